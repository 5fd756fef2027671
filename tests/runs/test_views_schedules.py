"""The pages of schedules, proposals, dead letters and effects in doubt."""

from datetime import timedelta

import pytest
from django.urls import reverse

from apps.access import services as access
from apps.agents import services as agents
from apps.common import clock
from apps.gateway.models import Call, CallState
from apps.runs import services
from apps.runs.models import Run, Schedule, ScheduleState, Slot, State
from tests import people


@pytest.fixture
def signed_in(client, alice, workspace):
    agents.install_default_profiles(workspace=workspace, by=access.system_principal())
    client.force_login(alice)
    return client


@pytest.fixture
def schedule(workspace, system) -> Schedule:
    return services.create_schedule(
        by=system,
        workspace=workspace,
        slug="news",
        title="Morning news",
        when=("cron", "0 8 * * 1-5"),
        run_kind="test.work",
    )


FORM = {
    "title": "Weekly look",
    "slug": "weekly-look",
    "kind": "cron",
    "expression": "0 9 * * 1",
    "timezone": "Europe/Berlin",
    "catch_up": "one",
    "overlap": "forbid",
    "jitter_seconds": "0",
    "max_failures": "5",
    "payload-profile": "primary",
    "payload-text": "What happened last week?",
}


def test_list_says_when_in_plain_words_and_draws_gaps(signed_in, schedule):
    Slot.objects.create(
        schedule=schedule, slot_at=clock.now() - timedelta(days=1), state="missed"
    )

    page = signed_in.get(reverse("runs:schedules")).content.decode()

    assert "At 08:00 on Monday through Friday" in page
    assert 'class="slot-missed"' in page
    assert "1 without a run" in page


def test_list_takes_as_many_queries_for_many_schedules(
    signed_in, schedule, system, workspace, django_assert_max_num_queries
):
    for number in range(20):
        services.create_schedule(
            by=system,
            workspace=workspace,
            slug=f"s{number}",
            when=("interval", "3600"),
            run_kind="test.work",
        )

    with django_assert_max_num_queries(20):
        signed_in.get(reverse("runs:schedules"))


def test_dry_run_of_the_form_plans_nothing(signed_in):
    page = signed_in.post(reverse("runs:new_schedule"), {**FORM, "try": "1"})

    assert "At 09:00 on Monday" in page.content.decode()
    assert not Schedule.objects.exists()


def test_form_plans_an_automation_that_acts_for_itself(signed_in):
    response = signed_in.post(reverse("runs:new_schedule"), FORM)

    made = Schedule.objects.get()
    assert response.status_code == 302
    assert (made.run_kind, made.payload["profile"]) == ("agents.automation", "primary")
    assert made.principal.key == "automation:default:weekly-look"


@pytest.mark.parametrize(
    "wrong",
    [
        {"expression": "never"},
        {"timezone": "Mars"},
        {"payload-profile": "nobody"},
        {"jitter_seconds": "-1"},
    ],
)
def test_form_shows_what_is_wrong_and_plans_nothing(signed_in, wrong):
    response = signed_in.post(reverse("runs:new_schedule"), {**FORM, **wrong})

    assert response.status_code == 422
    assert "field-error" in response.content.decode()
    assert not Schedule.objects.exists()


def test_change_of_a_version_that_is_gone_is_refused_with_words(signed_in):
    signed_in.post(reverse("runs:new_schedule"), FORM)
    made = Schedule.objects.get()
    url = reverse("runs:edit_schedule", args=[made.id])
    signed_in.post(url, {**FORM, "title": "First", "expected_version": "1"})

    late = signed_in.post(url, {**FORM, "title": "Second", "expected_version": "1"})

    assert "Somebody changed it meanwhile" in late.content.decode()
    assert Schedule.objects.get().title == "First"


@pytest.mark.parametrize(
    ("verb", "state"), [("pause", ScheduleState.PAUSED), ("run", ScheduleState.ACTIVE)]
)
def test_steering_from_the_page(signed_in, schedule, verb, state):
    signed_in.post(reverse("runs:steer_schedule", args=[schedule.id]), {"verb": verb})

    schedule.refresh_from_db()
    assert schedule.state == state
    assert Run.objects.count() == (1 if verb == "run" else 0)


def test_outsider_sees_and_steers_nothing(client, schedule, db):
    client.force_login(people.outsider("mallory"))

    assert "Morning" not in client.get(reverse("runs:schedules")).content.decode()
    assert client.get(reverse("runs:schedule", args=[schedule.id])).status_code == 404
    client.post(reverse("runs:steer_schedule", args=[schedule.id]), {"verb": "run"})
    assert not Run.objects.exists()


def test_proposal_is_approved_on_its_page(signed_in, workspace):
    proposal = services.propose_automation(
        by=people.agent("rob", workspace),
        workspace=workspace,
        agent="rob",
        slug="news",
        body={
            "title": "News",
            "kind": "cron",
            "expression": "0 8 * * *",
            "run_kind": "agents.automation",
            "payload": {"profile": "primary", "text": "News?"},
        },
    )
    url = reverse("runs:proposal", args=[proposal.id])
    assert "At 08:00" in signed_in.get(url).content.decode()

    signed_in.post(url, {"decision": "approve", "reason": "yes"})

    assert Schedule.objects.get().slug == "news"


# --- dead letters and doubt


def dead(enqueue, count: int, reason: str = "poison") -> None:
    for _ in range(count):
        run = enqueue()
        Run.objects.filter(id=run.id).update(
            state=State.DEAD_LETTER, reason=reason, finished_at=clock.now()
        )


def test_bulk_acts_on_what_matches_and_no_more(signed_in, enqueue):
    dead(enqueue, 3)
    dead(enqueue, 2, "budget")

    signed_in.post(
        reverse("runs:act_on_matching"),
        {"reason_code": "poison", "action": "dismiss", "reason": "known"},
    )

    assert Run.objects.filter(state=State.DISMISSED).count() == 3
    assert Run.objects.filter(state=State.DEAD_LETTER).count() == 2


def test_bulk_goes_in_bounded_steps(system, enqueue):
    dead(enqueue, 5)

    steps = [
        services.act_on_matching(
            by=system,
            which=services.Filter(),
            action="requeue",
            reason="fixed",
            limit=2,
        )
        for _ in range(4)
    ]

    assert [(step.done, step.left) for step in steps] == [
        (2, 3),
        (2, 1),
        (1, 0),
        (0, 0),
    ]


def doubtful(enqueue, workspace, system) -> Call:
    run = enqueue()
    Run.objects.filter(id=run.id).update(state=State.WAITING_OPERATOR)
    return Call.objects.create(
        workspace=workspace,
        principal=system,
        kind="tool",
        capability="mail/send",
        state=CallState.UNKNOWN,
        effect_class="non_repeatable",
        idempotency_key="k",
        args_digest="d",
        run_id=run.id,
        started_at=clock.now(),
    )


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("happened", CallState.SUCCEEDED),
        ("did_not_happen", CallState.FAILED),
        ("retry", CallState.FAILED),
    ],
)
def test_doubt_is_settled_from_the_run(
    signed_in, enqueue, workspace, system, verdict, state
):
    call = doubtful(enqueue, workspace, system)
    page = signed_in.get(reverse("runs:detail", args=[call.run_id])).content.decode()
    assert "It happened" in page

    signed_in.post(
        reverse("runs:settle_effect", args=[call.run_id, call.id]),
        {"verdict": verdict, "reason": "asked the server"},
    )

    call.refresh_from_db()
    assert call.state == state
    assert Run.objects.get().state == State.QUEUED


def test_doubt_without_a_reason_stays(signed_in, enqueue, workspace, system):
    call = doubtful(enqueue, workspace, system)

    signed_in.post(
        reverse("runs:settle_effect", args=[call.run_id, call.id]),
        {"verdict": "happened", "reason": " "},
    )

    call.refresh_from_db()
    assert call.state == CallState.UNKNOWN


def test_doubt_of_three_days_is_a_dead_letter(enqueue, workspace, system):
    doubtful(enqueue, workspace, system)
    with clock.frozen(clock.now() + timedelta(hours=71)):
        services.tick()
    assert Run.objects.get().state == State.WAITING_OPERATOR

    with clock.frozen(clock.now() + timedelta(hours=73)):
        services.tick()

    run = Run.objects.get()
    assert (run.state, run.reason) == (State.DEAD_LETTER, "in_doubt_effect")


def test_form_of_a_heartbeat_asks_for_its_checks(signed_in):
    url = reverse("runs:new_schedule") + "?run_kind=agents.heartbeat"
    page = signed_in.get(url).content.decode()
    assert 'name="payload-checks"' in page

    values = {name: value for name, value in FORM.items() if "text" not in name}
    values |= {"payload-checks": "look", "payload-active_from": "08:00"}
    signed_in.post(url, {**values, "payload-active_to": "20:00"})

    assert Schedule.objects.get().run_kind == "agents.heartbeat"
