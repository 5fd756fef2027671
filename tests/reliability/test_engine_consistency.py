"""`store verify`: a store that agrees with itself, and each way in which it may not."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from apps.access import services as access
from apps.access.models import Principal, User, Workspace
from apps.agents import services as agents
from apps.agents.models import Turn
from apps.audit import ports as audit_ports
from apps.audit import services as audit
from apps.audit.models import Event, SinkCursor
from apps.common import clock, ids
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.gateway.models import Budget, Call, Reservation
from apps.providers import services as providers
from apps.reliability.engine import consistency
from apps.runs import services as runs
from apps.runs.models import Run, Schedule, Slot

LONG_AGO = timedelta(hours=1)


@pytest.fixture
def turn(workspace: Workspace, alice: User) -> Turn:
    """A turn that was answered with a tool."""
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin()
    providers.sync_from_env()
    agents.install_default_profiles(workspace=workspace, by=system)
    person: Principal = access.principal_for_user(user=alice)
    asked = agents.start_turn(
        conversation=agents.start_conversation(workspace=workspace, principal=person),
        principal=person,
        text="What time is it?",
        trigger="message",
    )
    runs.execute(asked.run_id)
    return asked


def broken() -> list[str]:
    return [each.rule for each in consistency.contradictions()]


def test_store_after_a_turn_agrees_with_itself(turn: Turn) -> None:
    assert consistency.contradictions() == []


def test_lease_that_lapsed_just_now_is_the_sweeps_matter(turn: Turn) -> None:
    just_now = clock.now() - timedelta(seconds=40)
    Run.objects.update(state="running", lease_until=just_now)

    assert "leases" not in broken()


def lapsed(turn: Turn) -> None:
    until = clock.now() - LONG_AGO
    Run.objects.update(state="running", lease_until=until)
    Turn.objects.update(state="open", finished_at=None)


def silent(turn: Turn) -> None:
    Run.objects.update(state="waiting_operator", reason="", waiting_on="")


def untold(turn: Turn) -> None:
    row = Run.objects.get()
    row.id = row.root_id = ids.new_id()
    row.kind, row.finished_at = "other", clock.now()
    row.save(force_insert=True)


def ended_twice(turn: Turn) -> None:
    with transaction.atomic():
        audit.record(
            type="run.finished", actor=turn.principal.actor, run_id=turn.run_id
        )


def still_open(turn: Turn) -> None:
    Run.objects.update(finished_at=clock.now() - LONG_AGO)
    Turn.objects.update(state="open", finished_at=None)


def over_too_early(turn: Turn) -> None:
    Run.objects.update(state="queued")
    Turn.objects.update(finished_at=clock.now() - LONG_AGO)


def without_turn(turn: Turn) -> None:
    row = Run.objects.get()
    row.id = row.root_id = ids.new_id()
    row.state = "queued"
    row.save(force_insert=True)


def key_twice(turn: Turn) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX call_one_effect_per_key")
    row = Call.objects.filter(state="succeeded").first()
    assert row is not None
    row.id = ids.new_id()
    row.save(force_insert=True)


def fence_falls(turn: Turn) -> None:
    for fence in ("3", "2"):
        with transaction.atomic():
            audit.record(
                type="call.settled",
                actor=turn.principal.actor,
                run_id=turn.run_id,
                data={"fence": fence},
            )


def set_aside_by_nobody(turn: Turn) -> None:
    Budget.objects.create(
        scope="global", unit="micros", window="day", limit=10, reserved=5
    )


def past_its_limit(turn: Turn) -> None:
    Budget.objects.create(
        scope="global", unit="micros", window="day", limit=10, spent=14, overrun=3
    )


def slices_that_say_less(turn: Turn) -> None:
    row = Budget.objects.create(
        scope="global", unit="micros", window="day", is_rolling=True, limit=10, spent=5
    )
    row.slices.create(starts_at=clock.now(), amount=4)


def never_given_back(turn: Turn) -> None:
    call = Call.objects.filter(state="succeeded").first()
    assert call is not None
    Call.objects.filter(id=call.id).update(finished_at=clock.now() - LONG_AGO)
    row = Budget.objects.create(
        scope="global", unit="micros", window="day", limit=10, reserved=5
    )
    Reservation.objects.create(call=call, budget=row, amount=5)


def two_slots(turn: Turn) -> None:
    for number in range(2):
        schedule = Schedule.objects.create(
            workspace=turn.conversation.workspace,
            principal=turn.principal,
            slug=f"s{number}",
            title="s",
            kind="cron",
            expression="0 9 * * *",
            run_kind="other",
        )
        Slot.objects.create(
            schedule=schedule, slot_at=clock.now(), run_id=turn.run_id, state="fired"
        )


@pytest.mark.parametrize(
    ("plant", "rules"),
    [
        (lapsed, {"leases"}),
        (silent, {"waits"}),
        (untold, {"ends"}),
        (ended_twice, {"ends"}),
        (still_open, {"turns"}),
        (over_too_early, {"turns"}),
        (without_turn, {"turns"}),
        (key_twice, {"effects"}),
        (fence_falls, {"fences"}),
        (set_aside_by_nobody, {"budgets"}),
        (slices_that_say_less, {"budgets"}),
        (past_its_limit, {"limits"}),
        (never_given_back, {"reservations"}),
        (two_slots, {"slots"}),
    ],
)
def test_store_that_contradicts_itself_is_told_by_its_rule(
    turn: Turn, plant: Callable[[Turn], None], rules: set[str]
) -> None:
    plant(turn)

    assert rules <= set(broken())


class Ahead:
    """A sink that holds what the log has not."""

    patience_seconds = 0.0

    def last_contiguous_seq(self) -> int:
        return 1_000_000


def test_sink_that_is_ahead_or_lost_what_it_acknowledged_is_told(
    turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_ports, "_sinks", {"file": Ahead()})
    SinkCursor.objects.create(name="file", last_seq=2_000_000)

    found = {each.rule: each.where for each in consistency.contradictions()}

    assert len(found["sinks"]) == 2


def test_log_that_is_broken_is_told(turn: Turn, monkeypatch: Any) -> None:
    bad = audit.Verdict(ok=False, size=9, root="", first_bad=3, problem="altered")
    monkeypatch.setattr(audit, "verify", lambda: bad)

    found = {each.rule: each.where for each in consistency.contradictions()}

    assert found["log"] == ("event 3: altered",)


def test_command_tells_and_exits(turn: Turn) -> None:
    out = StringIO()
    call_command("store", "verify", stdout=out)
    assert "contradictions: 0" in out.getvalue()

    silent(turn)
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("store", "verify", "--json", stdout=out)

    said = json.loads(out.getvalue())
    assert said["contradictions"][0]["rule"] == "waits"


def test_command_writes_nothing(turn: Turn) -> None:
    before = Event.objects.count()

    call_command("store", "verify", stdout=StringIO())

    assert Event.objects.count() == before
