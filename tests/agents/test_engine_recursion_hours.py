"""Sums of the heat map by the hour are the log's own counts, at any moment."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.core.management import call_command

from apps.access import services as access
from apps.access.models import Principal, User, Workspace
from apps.agents.engine import recursion, recursion_hours
from apps.agents.engine.failures import LOOP_GUARD
from apps.agents.models import RecursionHour, RecursionMark
from apps.audit import services as audit
from apps.common import clock, ids
from apps.common.actor import SYSTEM

NOW = datetime(2030, 5, 20, 13, 40, tzinfo=UTC)
NOON = datetime(2030, 5, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_noon() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


@pytest.fixture
def reader(alice: User) -> Principal:
    return access.principal_for_user(user=alice)


def tell(workspace: Workspace, at: datetime, kind: str, **data: Any) -> None:
    """Write one event of a moment, as a process that started then would."""
    is_cut = kind == "handoff.finished"
    with clock.frozen(at), mock.patch.object(ids, "_last_tick", 0):
        audit.record(
            type=kind,
            actor=SYSTEM,
            subject=("turn", ids.new_id().hex),
            workspace_id=workspace.id,
            trace_id=ids.new_trace_id(),
            decision="refused" if is_cut else "",
            reason=data.pop("reason", LOOP_GUARD) if is_cut else "",
            data={"root": ids.new_id().hex, **data},
        )


@pytest.fixture
def week(workspace: Workspace) -> Workspace:
    """Eight days of turns and handoffs, on the edges of hours too."""
    draw = random.Random(7)
    edges = [
        NOW - timedelta(days=7),
        NOON,
        NOON - timedelta(milliseconds=1),
        NOW - timedelta(minutes=5),
    ]
    spread = [NOW - timedelta(minutes=draw.randrange(8 * 24 * 60)) for _ in range(60)]
    for at in (*edges, *spread):
        agent = draw.choice(["primary", "writer"])
        tell(workspace, at, "turn.started", agent=agent, depth=draw.randrange(3))
        pair = {"source": "primary", "target": agent}
        tell(workspace, at, "handoff.started", **pair)
        tell(workspace, at, "handoff.finished", **pair, reason=draw.choice(REASONS))
    return workspace


REASONS = (LOOP_GUARD, "POLAR_DENIED")


def told(reader: Principal, days: int = 7) -> Any:
    drawn = recursion.of_window(hours=24 * days, principal=reader)
    return drawn.depths, drawn.edges, drawn.cuts, drawn.trees


def test_sums_say_what_the_log_says_at_any_mark(
    week: Workspace, reader: Principal
) -> None:
    raw = told(reader)
    assert min(map(len, raw[:3])) > 1 and sum(raw[0].values()) > 40

    with mock.patch.object(
        recursion_hours, "SUMMED", replace(recursion_hours.SUMMED, most_chunks=20)
    ):
        while recursion_hours.sum_up():
            assert told(reader) == raw

    assert RecursionMark.load().summed_to == NOON + timedelta(hours=1)
    assert RecursionHour.objects.exists()


def test_a_second_clock_and_a_second_time_add_nothing(
    week: Workspace, reader: Principal
) -> None:
    recursion_hours.sum_up()
    before = list(RecursionHour.objects.order_by("id").values())

    assert recursion_hours.sum_up() == 0
    assert not recursion_hours.SUMMED._close(NOON, NOON + timedelta(hours=1), None)
    assert list(RecursionHour.objects.order_by("id").values()) == before


def test_a_crash_between_mark_and_sums_leaves_the_log(
    week: Workspace, reader: Principal
) -> None:
    raw = told(reader)

    with (
        mock.patch.object(RecursionHour.objects, "bulk_create", side_effect=OSError),
        pytest.raises(OSError),
    ):
        recursion_hours.sum_up()

    assert RecursionMark.load().summed_to is None
    assert told(reader) == raw


def test_what_a_set_back_clock_writes_is_found_again(
    week: Workspace, reader: Principal
) -> None:
    recursion_hours.sum_up()
    before = told(reader)
    tell(week, NOW - timedelta(hours=9), "turn.started", agent="late", depth=0)
    assert told(reader) == before

    with clock.frozen(NOW + timedelta(hours=1)):
        assert recursion_hours.sum_up() == 1
        assert told(reader)[0]["late", 0] == 1


def test_sums_are_made_again_from_the_log(
    week: Workspace, reader: Principal, capsys: Any
) -> None:
    raw = told(reader)
    recursion_hours.sum_up()
    lost = RecursionHour.objects.filter(told="turn").order_by("hour").last()
    assert lost is not None
    RecursionHour.objects.filter(id=lost.id).update(count=lost.count + 5)
    assert told(reader) != raw

    call_command("agents", "resum")

    assert "1 hours of the heat map" in capsys.readouterr().out
    assert told(reader) == raw
    assert recursion_hours.rebuild() == 0


def test_an_empty_install_has_nothing_to_sum(db: None) -> None:
    assert recursion_hours.sum_up() == 0
    assert recursion_hours.mend() == 0
    assert recursion_hours.rebuild() == 0
    assert RecursionHour.objects.count() == 0


def test_who_belongs_to_no_workspace_counts_nothing(
    week: Workspace, charlie: User
) -> None:
    recursion_hours.sum_up()
    stranger = access.principal_for_user(user=charlie)

    assert told(stranger) == (Counter(), Counter(), Counter(), 0)


def test_a_window_reads_as_much_with_a_longer_log(
    week: Workspace, reader: Principal, django_assert_max_num_queries: Any
) -> None:
    recursion_hours.sum_up()

    with django_assert_max_num_queries(6):
        told(reader, 30)
