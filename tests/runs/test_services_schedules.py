"""Schedules in full: trying out, running now, failing, jumping clocks."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal, User, Workspace
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Conflict, Denied, Invalid, NotFound
from apps.runs import services
from apps.runs.engine import calendar, delivery
from apps.runs.errors import BadSchedule
from apps.runs.models import Proposal, Run, Schedule, ScheduleState, Slot, State
from tests import people
from tests.runs.conftest import claim_some

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def plan(system: Principal, workspace: Workspace) -> Any:
    def make(**options: Any) -> Schedule:
        with clock.frozen(NINE - timedelta(minutes=10)):
            return services.create_schedule(
                by=system,
                workspace=workspace,
                slug=options.pop("slug", "daily"),
                when=options.pop("when", ("cron", "0 * * * *")),
                run_kind="test.work",
                **options,
            )

    return make


def tick(at: datetime) -> None:
    with clock.frozen(at):
        services.tick()


def end_all(state: str) -> None:
    Run.objects.unsettled().update(state=state, finished_at=NINE)


# --- trying out


def test_trial_says_what_would_happen_and_does_nothing(plan: Any) -> None:
    schedule = plan(payload={"x": 1})

    with clock.frozen(NINE):
        trial = services.try_out(schedule=schedule)

    assert trial.moments[:2] == [NINE + HOUR, NINE + 2 * HOUR]
    assert "hour" in trial.in_words.lower()
    assert not Run.objects.exists()
    assert not Slot.objects.exists()


def test_trial_of_a_paused_schedule_says_why_nothing_would_start(plan, system):
    schedule = plan()
    services.set_schedule_state(
        by=system, schedule_id=schedule.id, state=ScheduleState.PAUSED, reason="x"
    )
    schedule.refresh_from_db()

    assert services.try_out(schedule=schedule).held_back_by == "the schedule is paused"


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (("cron", "0 9 * * 1-5"), "At 09:00 on Monday through Friday (UTC)"),
        (("interval", "7200"), "Every 2 hours"),
        (("once", "2027-01-01T08:00"), "Once, on 01 January 2027 at 08:00 (UTC)"),
        (("rrule", "FREQ=DAILY"), "By the rule FREQ=DAILY (UTC)"),
    ],
)
def test_moments_are_said_in_plain_words(plan, when, words):
    assert services.try_out(schedule=plan(when=when)).in_words == words


# --- run now


def test_run_now_starts_one_run_and_leaves_an_event(plan, system):
    schedule = plan(payload={"x": 1})

    run = services.run_now(by=system, schedule_id=schedule.id, reason="asked")

    assert (run.trigger, run.payload["x"]) == ("manual", 1)
    assert Event.objects.filter(type="schedule.run_now").count() == 1
    assert not Slot.objects.exists()


def test_run_now_while_one_is_not_over_is_refused(plan, system):
    schedule = plan()
    services.run_now(by=system, schedule_id=schedule.id)

    with pytest.raises(Conflict):
        services.run_now(by=system, schedule_id=schedule.id)


def test_run_now_by_a_viewer_or_stranger_is_refused(plan, workspace, charlie: User):
    schedule = plan()
    stranger = access.principal_for_user(user=people.outsider("mallory"))

    with pytest.raises(NotFound):
        services.run_now(by=stranger, schedule_id=schedule.id)
    assert not Run.objects.exists()


def test_change_made_on_an_older_version_is_refused(plan, system):
    schedule = plan()
    services.update_schedule(by=system, schedule_id=schedule.id, title="First")

    with pytest.raises(Conflict):
        services.update_schedule(
            by=system, schedule_id=schedule.id, expected_version=1, title="Second"
        )


@pytest.mark.parametrize(
    "when",
    [
        ("cron", "0 9 * * * *"),
        ("cron", "61 * * * *"),
        ("interval", "0"),
        ("once", "2001-01-01T00:00"),
        ("rrule", "FREQ=SECONDLY"),
        ("rrule", "FREQ=DAILY\nEXRULE:FREQ=DAILY"),
        ("rrule", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"),
        ("moon", "full"),
    ],
)
def test_schedule_that_cannot_fall_due_is_refused(plan, when):
    with pytest.raises((BadSchedule, Invalid)):
        plan(when=when)
    assert not Schedule.objects.exists()


# --- failing


def test_schedule_that_fails_again_and_again_is_disabled_with_one_notice(plan):
    schedule = plan(max_failures=2)
    for hour in range(2):
        tick(NINE + hour * HOUR)
        end_all(State.FAILED)

    tick(NINE + 2 * HOUR - timedelta(minutes=1))
    tick(NINE + 5 * HOUR)

    schedule.refresh_from_db()
    assert (schedule.state, schedule.failures) == (ScheduleState.DISABLED, 2)
    assert "2 planned runs failed" in schedule.state_reason
    assert Event.objects.filter(type="schedule.disabled").count() == 1
    assert Run.objects.count() == 2


def test_one_success_forgets_earlier_failures(plan):
    schedule = plan(max_failures=2)
    for hour, end in enumerate((State.FAILED, State.SUCCEEDED, State.FAILED)):
        tick(NINE + hour * HOUR)
        end_all(end)
    tick(NINE + 3 * HOUR - timedelta(minutes=1))

    schedule.refresh_from_db()
    assert (schedule.state, schedule.failures) == (ScheduleState.ACTIVE, 1)


def test_schedule_that_cannot_be_read_does_not_stop_the_others(plan):
    plan(slug="broken")
    plan(slug="whole")
    Schedule.objects.filter(slug="broken").update(timezone="Mars/Olympus")

    tick(NINE)

    assert Run.objects.count() == 1
    assert Schedule.objects.get(slug="broken").state == ScheduleState.DISABLED


# --- clocks that jump


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
@pytest.mark.parametrize("jump", [HOUR, timedelta(days=3)])
def test_clock_that_jumps_ahead_and_back_fires_no_slot_twice(plan, catch_up, jump):
    plan(catch_up=catch_up, overlap="queue")
    tick(NINE)

    tick(NINE + jump + timedelta(minutes=5))
    for minutes in range(0, 180, 20):
        tick(NINE + timedelta(minutes=minutes))

    fired = Slot.objects.filter(state="fired").values_list("slot_at", flat=True)
    assert len(fired) == len(set(fired)) == Run.objects.count()
    wanted = {NINE + hour * HOUR for hour in range(3)}
    assert wanted <= set(fired)


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
@pytest.mark.parametrize("back", [HOUR, timedelta(days=3)])
def test_clock_set_back_fires_each_slot_once(plan, catch_up, back):
    plan(catch_up=catch_up)
    tick(NINE)
    end_all(State.SUCCEEDED)

    for half_hours in range(int(back / HOUR) * 2 + 3):
        tick(NINE - back + half_hours * HOUR / 2)
        end_all(State.SUCCEEDED)

    fired = Slot.objects.filter(state="fired").values_list("slot_at", flat=True)
    assert sorted(fired) == [NINE, NINE + HOUR]
    assert Run.objects.count() == 2


@pytest.mark.parametrize("back", [HOUR, timedelta(days=3)])
def test_clock_set_back_while_a_slots_run_is_carried_starts_it_no_second_time(
    plan, back
):
    plan(overlap="queue")
    tick(NINE)
    with clock.frozen(NINE):
        (carried,) = claim_some()

    for half_hours in range(int(back / HOUR) * 2 + 1):
        tick(NINE - back + half_hours * HOUR / 2)

    assert Run.objects.get().id == carried.run.id
    assert Slot.objects.get().slot_at == NINE


@pytest.mark.parametrize(
    ("first", "hours"),
    [
        (datetime(2026, 3, 28, 20, tzinfo=UTC), 23),
        (datetime(2026, 10, 24, 20, tzinfo=UTC), 25),
    ],
)
def test_hourly_schedule_over_a_change_of_summer_time_fires_every_real_hour(
    plan, first, hours
):
    plan(timezone="Europe/Berlin", overlap="queue")
    start = first
    Schedule.objects.update(next_at=start)

    for half_hours in range(2 * hours):
        tick(start + timedelta(minutes=30 * half_hours))

    fired = sorted(Slot.objects.values_list("slot_at", flat=True))
    assert fired == [start + hour * HOUR for hour in range(hours)]


def test_jitter_is_the_same_for_the_same_slot(plan):
    schedule = plan(jitter_seconds=600)
    spread = {calendar.jitter(schedule, NINE + hour * HOUR) for hour in range(20)}

    again = calendar.jitter(schedule, NINE)

    assert again == calendar.jitter(schedule, NINE)
    assert len(spread) > 10
    assert all(timedelta() <= part <= timedelta(seconds=600) for part in spread)


# --- delivery


@pytest.mark.parametrize(
    ("hour", "allowed"), [(21, True), (22, False), (3, False), (7, True)]
)
def test_quiet_hours_hold_back_delivery(plan, hour, allowed):
    found = delivery.verdict(plan(), "user:1", NINE.replace(hour=hour))

    assert found.allowed is allowed
    if not allowed:
        assert found.until is not None
        assert found.until.hour == 7


def test_quiet_hours_are_local(plan):
    schedule = plan(timezone="Asia/Tokyo", quiet_from=time(22), quiet_to=time(7))

    assert not delivery.verdict(schedule, "user:1", NINE.replace(hour=14)).allowed


def test_quiet_hours_never_hold_back_a_run(plan):
    plan(when=("cron", "0 3 * * *"))

    tick(datetime(2026, 11, 3, 3, tzinfo=UTC))

    assert Run.objects.count() == 1


def test_daily_cap_counts_per_recipient_and_day(plan):
    schedule = plan(daily_cap=2)
    with clock.frozen(NINE):
        verdicts = [
            services.admit_delivery(schedule=schedule, recipient="user:1")
            for _ in range(3)
        ]
        other = services.admit_delivery(schedule=schedule, recipient="user:2")
    with clock.frozen(NINE + timedelta(days=1)):
        next_day = services.admit_delivery(schedule=schedule, recipient="user:1")

    assert [found.allowed for found in verdicts] == [True, True, False]
    assert verdicts[-1].reason == "daily_cap"
    assert other.allowed
    assert next_day.allowed
    assert Event.objects.filter(type="delivery.held_back").count() == 1


# --- proposals

BODY = {
    "title": "Morning news",
    "kind": "cron",
    "expression": "0 8 * * *",
    "timezone": "UTC",
    "run_kind": "test.work",
    "payload": {"x": 1},
}


@pytest.fixture
def rob(workspace: Workspace) -> Principal:
    return people.agent("rob", workspace)


@pytest.fixture
def proposal(rob: Principal, workspace: Workspace) -> Proposal:
    return services.propose_automation(
        by=rob, workspace=workspace, agent="rob", slug="news", body=BODY
    )


def test_proposal_plans_nothing(proposal):
    assert not Schedule.objects.exists()
    assert Event.objects.filter(type="automation.proposed").count() == 1


def test_proposal_when_approved_then_exactly_that_is_planned(proposal, system):
    decided = services.decide_proposal(
        by=system, proposal_id=proposal.id, approve=True, reason="useful"
    )

    schedule = Schedule.objects.get()
    assert decided.schedule == schedule
    assert (schedule.slug, schedule.expression) == ("news", "0 8 * * *")
    assert schedule.principal.kind == "automation"


def test_proposal_is_decided_once(proposal, system):
    services.decide_proposal(by=system, proposal_id=proposal.id, approve=False)

    with pytest.raises(Conflict):
        services.decide_proposal(by=system, proposal_id=proposal.id, approve=True)
    assert not Schedule.objects.exists()


def test_proposal_is_never_approved_by_an_agent(proposal, rob):
    with pytest.raises(Denied):
        services.decide_proposal(by=rob, proposal_id=proposal.id, approve=True)


def test_proposal_that_could_not_be_planned_is_refused(rob, workspace):
    with pytest.raises(BadSchedule):
        services.propose_automation(
            by=rob,
            workspace=workspace,
            agent="rob",
            slug="news",
            body={**BODY, "expression": "often"},
        )


def test_second_proposal_of_a_name_is_refused(proposal, rob, workspace):
    with pytest.raises(Conflict):
        services.propose_automation(
            by=rob, workspace=workspace, agent="rob", slug="news", body=BODY
        )
