"""A slot fires at most once, and what passed leaves a row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.access.models import Principal, User, Workspace
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Invalid
from apps.runs import services
from apps.runs.engine import calendar
from apps.runs.models import Run, Schedule, Slot

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)


@pytest.fixture
def plan(system: Principal, workspace: Workspace) -> Any:
    def make(**options: Any) -> Schedule:
        with clock.frozen(NINE - timedelta(minutes=10)):
            return services.create_schedule(
                by=system,
                workspace=workspace,
                slug="daily",
                when=options.pop("when", ("cron", "0 * * * *")),
                run_kind="test.work",
                **options,
            )

    return make


def fire(at: datetime) -> int:
    with clock.frozen(at):
        return services.fire_due_slots()


def slot_states() -> list[str]:
    return list(Slot.objects.order_by("slot_at").values_list("state", flat=True))


def test_slot_when_due_then_a_run_with_its_schedule(plan: Any) -> None:
    schedule = plan(payload={"x": 1})

    assert fire(NINE) == 1

    run = Run.objects.get()
    assert run.payload["slot_at"] == NINE.isoformat()
    assert run.serial_key == f"schedule:{schedule.id}"


def test_slot_when_due_then_event_and_next_moment(plan: Any) -> None:
    schedule = plan()

    fire(NINE)

    schedule.refresh_from_db()
    assert schedule.next_at == NINE + timedelta(hours=1)
    assert Event.objects.filter(type="schedule.fired").count() == 1


def test_slot_when_two_clocks_fire_then_once(plan: Any) -> None:
    plan()
    stale = Schedule.objects.get()

    assert (fire(NINE), fire(NINE)) == (1, 0)
    assert calendar.fire(stale, NINE) == 0
    assert Run.objects.count() == 1


def test_slot_when_next_at_is_set_back_then_the_row_stops_a_second_run(
    plan: Any,
) -> None:
    plan()
    fire(NINE)
    Schedule.objects.update(next_at=NINE)
    Run.objects.update(state="succeeded")

    assert fire(NINE) == 0
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("catch_up", "states"),
    [
        ("skip", ["missed", "missed", "missed"]),
        ("one", ["missed", "missed", "fired"]),
        ("all", ["fired", "fired", "fired"]),
    ],
)
def test_slots_when_missed_then_as_the_rule_says(
    plan: Any, catch_up: str, states: list[str]
) -> None:
    plan(catch_up=catch_up, overlap="queue")

    fire(NINE + timedelta(hours=2, minutes=30))

    assert slot_states() == states


def test_slot_when_a_little_late_then_fires_under_every_rule(plan: Any) -> None:
    plan(catch_up="skip")

    assert fire(NINE + timedelta(seconds=30)) == 1


def test_slot_when_earlier_still_runs_and_overlap_is_forbidden_then_skipped(
    plan: Any,
) -> None:
    plan(overlap="forbid")
    fire(NINE)

    assert fire(NINE + timedelta(hours=1)) == 0
    assert slot_states() == ["fired", "skipped"]


def test_schedule_when_paused_then_nothing_fires(plan: Any, system: Principal) -> None:
    schedule = plan()
    services.set_schedule_state(by=system, schedule_id=schedule.id, state="paused")

    assert fire(NINE) == 0


def test_schedule_when_once_then_it_has_no_next(plan: Any) -> None:
    schedule = plan(when=("once", NINE.isoformat()))

    assert fire(NINE) == 1
    schedule.refresh_from_db()
    assert schedule.next_at is None


def test_schedule_when_viewer_plans_then_refused(
    workspace: Workspace, charlie: User
) -> None:
    with pytest.raises(RoleRequired):
        services.create_schedule(
            by=access.principal_for_user(user=charlie),
            workspace=workspace,
            slug="x",
            when=("cron", "0 9 * * *"),
            run_kind="test.work",
        )


def test_schedule_when_changed_then_event_and_new_moment(
    plan: Any, system: Principal
) -> None:
    schedule = plan()

    with clock.frozen(NINE):
        changed = services.update_schedule(
            by=system, schedule_id=schedule.id, expression="30 9 * * *"
        )

    assert changed.next_at == NINE + timedelta(minutes=30)
    assert Event.objects.filter(type="schedule.updated").count() == 1


def test_schedule_when_unknown_field_is_changed_then_refused(
    plan: Any, system: Principal
) -> None:
    with pytest.raises(Invalid):
        services.update_schedule(by=system, schedule_id=plan().id, slug="other")
