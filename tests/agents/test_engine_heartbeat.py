"""A beat asks an agent, or ends well with the reason why not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.engine import heartbeat
from apps.agents.models import AgentProfile, Turn
from apps.common import clock
from apps.common.errors import Invalid
from apps.gateway import services as gateway
from apps.gateway.models import Budget
from apps.runs import services as runs
from apps.runs.models import Run
from apps.runs.ports import Finish, Outcome, Park, RunContext

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
POLICY = {
    "profile": "primary",
    "checks": "is the inbox answered?\n# are the plants watered?",
    "active_from": "08:00",
    "active_to": "20:00",
}


@pytest.fixture
def beat(workspace):
    """Make a policy, change the world, and let one beat come."""
    system = access.system_principal()
    agents.install_default_profiles(workspace=workspace, by=system)
    gateway.install_shipped_grants(by=system)

    def make(change: Any = None, at: datetime = NOON, **policy: str) -> Outcome:
        with clock.frozen(at):
            schedule = runs.create_automation(
                by=system,
                workspace=workspace,
                slug="beat",
                when=("interval", "1800"),
                run_kind=heartbeat.KIND,
                payload={**POLICY, **policy},
            )
        with clock.frozen(schedule.next_at):
            runs.fire_due_slots()
            run = Run.objects.get()
            if change:
                change(schedule)
            return agents.carry_heartbeat(
                RunContext(
                    run_id=run.id,
                    fence=1,
                    attempt=1,
                    trace_id=run.trace_id,
                    payload=run.payload,
                    root_id=run.root_id,
                )
            )

    return make


def pause(schedule):
    runs.set_schedule_state(
        by=access.system_principal(), schedule_id=schedule.id, state="paused"
    )


def use_up(schedule):
    Budget.objects.create(
        scope="global", unit="micros", window="total", limit=100, spent=100
    )


def retire(schedule):
    AgentProfile.objects.update(is_active=False)


def test_beat_asks_for_what_is_switched_on(beat):
    outcome = beat()

    turn = Turn.objects.get()
    assert isinstance(outcome, Park)
    assert turn.run.trigger == "heartbeat"
    assert "inbox" in turn.message_text
    assert "plants" not in turn.message_text


@pytest.mark.parametrize(
    ("reason", "world"),
    [
        ("policy_inactive", {"change": pause}),
        ("outside_active_hours", {"at": NOON.replace(hour=23)}),
        ("no_active_checks", {"checks": "# nothing"}),
        ("budget_exceeded", {"change": use_up}),
        ("profile_not_resolved", {"change": retire}),
    ],
)
def test_beat_that_is_left_out_ends_well_with_its_reason(beat, reason, world):
    outcome = beat(**world)

    assert isinstance(outcome, Finish)
    assert (outcome.state, outcome.reason) == ("succeeded", reason)
    assert not Turn.objects.exists()


def test_beat_under_pressure_is_left_out(beat, monkeypatch):
    monkeypatch.setattr(runs, "queue_is_full", lambda: True)

    assert beat().reason == "queue_backpressure"


def test_policy_without_hours_is_refused(beat):
    with pytest.raises(Invalid):
        beat(active_from="early")
