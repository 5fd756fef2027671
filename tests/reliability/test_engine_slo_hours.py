"""Promises over days: hours that are over are summed once and say what rows say."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.agents import services as agents
from apps.agents.models import Handoff, HandoffState, Mode, Step, StepKind
from apps.common import clock, statements
from apps.common.periods import hour_of
from apps.providers.models import UsageRow
from apps.reliability.engine import slo, slo_hours
from apps.reliability.engine.slo_hours import CHUNK
from apps.reliability.models import SloMark, SloMinute

NOW = datetime(2030, 5, 20, 13, 40, tzinfo=UTC)
ESCALATION = next(each for each in slo.SLOS if each.slug == "escalation")
HANDOFF = next(each for each in slo.SLOS if each.slug == "handoff")
SINK = next(each for each in slo.SLOS if each.slug == "sink")


@pytest.fixture(autouse=True)
def at_noon() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


def call(at: datetime, **also: Any) -> UsageRow:
    values: dict[str, Any] = {
        "requested_lane": "local",
        "served_lane": "local",
        "served_provider": "acme",
        "created_at": at,
    }
    return UsageRow(**values | also)


@pytest.fixture
def month(db: None) -> None:
    draw = random.Random(11)
    near = [NOW - timedelta(minutes=draw.randrange(8 * 60)) for _ in range(40)]
    far = [NOW - timedelta(minutes=draw.randrange(29 * 24 * 60)) for _ in range(160)]
    statements.insert(
        *(
            call(
                at,
                served_lane=draw.choice(["local", "local", "brain"]),
                lane_change=draw.choice(["none", "operator_pin"]),
                ok=draw.random() < 0.9,
                origin=draw.choice(["real", "real", "demo"]),
            )
            for at in (*near, *far)
        )
    )


def shown(promise: slo.Slo) -> Any:
    now = clock.now()
    return promise.tallies(now), promise.days(now)


def test_sums_say_what_the_rows_say(month: None) -> None:
    raw = shown(ESCALATION)
    assert 0 < raw[0]["3d"].bad < raw[0]["3d"].total

    assert slo_hours.sum_up() > 30

    assert shown(ESCALATION) == raw
    assert slo_hours.ESCALATIONS.mark() == datetime(2030, 5, 20, 12, tzinfo=UTC)
    assert SloMinute.objects.filter(slo="escalation").count() > 50


def test_an_hour_is_summed_once(month: None) -> None:
    slo_hours.sum_up()
    before = list(SloMinute.objects.order_by("id").values())

    assert slo_hours.sum_up() == 0
    assert list(SloMinute.objects.order_by("id").values()) == before


@pytest.fixture
def handed(workspace: Workspace, alice: User) -> Handoff:
    """One agent asked another two days ago; no answer yet, and none is due."""
    by = access.principal_for_user(user=alice)
    agents.install_default_profiles(workspace=workspace, by=access.system_principal())
    talk = agents.ensure_conversation(workspace=workspace, principal=by)
    parent, child = (
        agents.start_turn(conversation=talk, principal=by, text="go", trigger="message")
        for _ in range(2)
    )
    step = Step.objects.create(turn=parent, seq=1, kind=StepKind.HANDOFF)
    began = NOW - timedelta(days=2)
    return Handoff.objects.create(
        workspace=workspace,
        step=step,
        position=0,
        child=child,
        root_id=parent.run_id,
        trace_id=parent.trace_id,
        source="primary",
        target="writer",
        mode=Mode.FAN_OUT,
        depth=1,
        created_at=began,
        deadline_at=NOW + timedelta(days=9),
    )


def test_a_handoff_that_is_not_over_keeps_its_hour_open(handed: Handoff) -> None:
    slo_hours.sum_up()
    assert slo_hours.HANDOFFS.mark() == hour_of(handed.created_at)
    assert HANDOFF.tallies(NOW)["3d"] == slo.Tally(0, 0)

    Handoff.objects.update(state=HandoffState.FAILED, finished_at=NOW)
    assert HANDOFF.tallies(NOW)["3d"] == slo.Tally(1, 1)
    raw = shown(HANDOFF)
    slo_hours.sum_up()

    assert slo_hours.HANDOFFS.mark() == datetime(2030, 5, 20, 12, tzinfo=UTC)
    assert shown(HANDOFF) == raw


def test_of_two_clocks_one_sums(month: None) -> None:
    since = datetime(2030, 5, 19, tzinfo=UTC)
    SloMark.objects.create(slo="escalation", judged_to=since)

    def count(first: datetime, until: datetime) -> list[slo_hours.Hour]:
        raise AssertionError("the other one counts these")

    with mock.patch.object(slo_hours, "_mark", return_value=since - CHUNK):
        assert slo_hours._sum("escalation", since, NOW, count) == 0

    assert slo_hours.ESCALATIONS.mark() == since


def test_old_minutes_of_the_sink_are_kept_as_hours(db: None) -> None:
    first = datetime(2030, 5, 12, 9, tzinfo=UTC)
    SloMinute.objects.bulk_create(
        SloMinute(slo="sink", minute=first + timedelta(minutes=at), total=at, bad=1)
        for at in range(150)
    )
    young = SloMinute.objects.create(
        slo="sink", minute=NOW - timedelta(hours=1), total=5
    )
    before = shown(SINK)

    slo_hours.sum_up()

    assert shown(SINK) == before
    kept = SloMinute.objects.filter(slo="sink", minute__lt=young.minute)
    assert [row.minute.hour for row in kept.order_by("minute")] == [9, 10, 11]
    assert slo_hours.sum_up() == 0


def test_the_page_says_the_same_before_and_after(
    month: None, client: Client, alice: User
) -> None:
    client.force_login(alice)
    before = client.get("/slo/")

    slo_hours.sum_up()

    after = client.get("/slo/")
    assert bars(after) == bars(before)


def bars(answer: Any) -> Any:
    charts = answer.context["charts"]
    return [[(bar.day, bar.tally) for bar in chart.bars] for chart in charts]
