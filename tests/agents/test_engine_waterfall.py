"""Where the bars of a trace stand."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.agents.engine.scale import Scale, quiet
from apps.agents.engine.waterfall import (
    PAUSE_WIDTH,
    STAGES,
    Bar,
    Trace,
    _place,
    stage_strip,
)
from apps.gateway.models import Call


def bar(begin: float, until: float, **more) -> Bar:
    start = datetime(2026, 3, 14, tzinfo=UTC)
    at = [start + timedelta(seconds=each) for each in (begin, until)]
    return Bar(key="b", icon="tool", title="t", start=at[0], end=at[1], **more)


def placed(*bars: Bar) -> Trace:
    trace = Trace("t", [], [], [], bars=list(bars))
    _place(trace)
    return trace


def test_bars_without_a_wait_are_true_to_scale():
    trace = placed(bar(0, 2), bar(2, 10))

    assert [each.width for each in trace.bars] == [20, 80]
    assert trace.pauses == []


def test_long_wait_is_cut_out_with_a_fixed_width():
    trace = placed(bar(0, 10), bar(200, 210))

    assert trace.pauses[0].width == PAUSE_WIDTH
    assert trace.pauses[0].seconds == 190
    assert trace.bars[0].width == pytest.approx(trace.bars[1].width)


def test_everything_stays_inside_the_figure():
    trace = placed(bar(0, 0.001), bar(50, 51), bar(400, 401))

    assert all(0 <= each.x <= 100 for each in trace.bars)
    assert all(0 <= x <= 100 for x, _ in trace.ticks)


def test_wait_for_a_person_counts_asquiet():
    waiting = bar(1, 100, is_work=False)

    trace = placed(bar(0, 1), waiting, bar(100, 101))

    assert len(trace.pauses) == 1
    assert waiting.width == pytest.approx(PAUSE_WIDTH)


def test_trace_where_nothing_worked_yet_has_no_pause():
    assert placed(bar(0, 100, is_work=False)).pauses == []


def test_quiet_finds_only_long_stretches():
    assert quiet([(0, 1), (2, 3)], 3) == []
    assert quiet([(0, 1), (60, 61)], 61) == [(1, 60)]


def test_scale_gives_few_ticks_even_for_hours():
    assert len(Scale(20_000, []).ticks()) <= 9


def test_strip_of_a_denied_call_names_the_stage():
    call = Call(state="denied", stage="capability", facts={"stages": {"halt": "none"}})

    tones = {each["name"]: each["tone"] for each in stage_strip(call)}

    assert list(tones) == list(STAGES)
    assert (tones["halt"], tones["capability"], tones["budget"]) == (
        "ok",
        "critical",
        "off",
    )
