"""Ways round an approval: smuggling, replay, swaps, double clicks, restarts, time,
and approving oneself. Each is refused, and the refusal is shown."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.urls import reverse

from apps.access import services as access
from apps.access.models import Membership, Role
from apps.audit.models import Event
from apps.common import clock, ids
from apps.common.errors import ApprovalRequired, Conflict, Denied, Invalid, PolarError
from apps.gateway import errors, ports, services
from apps.gateway.models import ApprovalRequest, ApprovalState, Call, Grant, PlanStep
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    Lineage,
    Permit,
    PlannedStep,
    Result,
    Risk,
)
from tests import people

pytestmark = pytest.mark.django_db


def needs_threads(test):
    """For what two threads do at once, each in its own transactions."""
    for mark in (
        pytest.mark.django_db(transaction=True),
        pytest.mark.postgres,
        pytest.mark.skipif(
            connection.vendor != "postgresql", reason="needs PostgreSQL"
        ),
    ):
        test = mark(test)
    return test


EXTERNAL = Risk("write", side_effects="external")
DESTRUCTIVE = Risk("destructive")
SMUGGLED = [
    {"approved": True},
    {"approval": {"state": "approved"}},
    {"approvalId": "00000000-0000-7000-8000-000000000000"},
    {"metadata": {"approved_by": "bob", "skipApproval": True}},
    {"trustLevel": "trusted", "riskLevel": "read"},
    {"grant": {"capabilities": ["*"]}, "binding": "0" * 64},
]


class Outside:
    """What is reached, counted."""

    def __init__(self) -> None:
        self.reached: list[dict] = []

    def request(self, principal, workspace, **changes) -> CallRequest:
        run_id = ids.new_id()
        arguments = changes.pop("arguments", {"to": ["ann@example.org"], "text": "hi"})

        def perform(permit: Permit) -> Result:
            permit.spend(arguments)
            self.reached.append(arguments)
            return Result({"ok": True})

        base = CallRequest(
            kind=CallKind.TOOL,
            capability="mail/send",
            principal=principal,
            workspace_id=workspace.id,
            arguments=arguments,
            perform=perform,
            risk=EXTERNAL,
            lineage=Lineage(
                run_id=run_id, root_id=run_id, turn_id=ids.new_id(), agent="w", seq="1"
            ),
            scope={"allowed": {"mail": ["*"], "polar": ["*"]}},
        )
        return replace(base, **changes)


@pytest.fixture
def outside() -> Outside:
    return Outside()


def ask(request: CallRequest) -> ApprovalRequest:
    with pytest.raises(ApprovalRequired) as caught:
        services.call(request)
    return ApprovalRequest.objects.get(id=caught.value.facts["approval_id"])


def answer(asked: ApprovalRequest, user, approve: bool = True, **words):
    return services.decide_approval(
        by=user.principal, approval_id=asked.id, approve=approve, **words
    )


@pytest.mark.parametrize("smuggled", SMUGGLED)
def test_smuggled_approval_fields_change_nothing(smuggled, outside, rob, workspace):
    request = outside.request(
        rob, workspace, arguments={"to": "ann@example.org", **smuggled}
    )

    ask(request)

    assert outside.reached == []


def test_smuggled_field_in_the_decision_is_refused(
    client, outside, rob, workspace, bob
):
    asked = ask(outside.request(rob, workspace))
    client.force_login(bob)

    answered = client.post(
        f"/api/v1/approvals/{asked.id}",
        {"approve": True, "by": "somebody", "state": "used"},
        content_type="application/json",
    )

    asked.refresh_from_db()
    assert (answered.status_code, asked.state) == (422, ApprovalState.PENDING)


def test_replay_in_another_run_asks_anew(outside, rob, workspace, bob):
    request = outside.request(rob, workspace)
    answer(ask(request), bob)
    services.call(request)
    lineage = replace(request.lineage, run_id=ids.new_id())

    again = ask(replace(request, lineage=lineage))

    assert again.state == ApprovalState.PENDING
    assert len(outside.reached) == 1


def test_replay_under_the_same_key_does_nothing_again(outside, rob, workspace, bob):
    request = outside.request(rob, workspace)
    answer(ask(request), bob)

    services.call(request)

    assert services.call(request).replayed
    assert len(outside.reached) == 1


@pytest.mark.parametrize(
    "swap",
    [
        {"arguments": {"to": ["eve@example.org"], "text": "hi"}},
        {"capability": "mail/forward"},
        {"risk": DESTRUCTIVE},
        {"risk": Risk("write", "external", "network")},
        {"labels": frozenset({"untrusted", "private"})},
    ],
)
def test_swap_after_approval_asks_anew(swap, outside, rob, workspace, bob):
    request = outside.request(rob, workspace)
    answer(ask(request), bob)

    again = ask(replace(request, **swap))

    assert again.state == ApprovalState.PENDING
    assert outside.reached == []


def test_swap_under_one_key_is_refused(outside, rob, workspace, bob):
    request = replace(outside.request(rob, workspace), idempotency_key="k" * 64)
    answer(ask(request), bob)

    with pytest.raises(errors.KeyReused):
        services.call(replace(request, arguments={"to": ["eve@example.org"]}))
    assert outside.reached == []


def test_adapter_that_sends_other_arguments_is_refused(outside, rob, workspace, bob):
    def perform(permit: Permit) -> Result:
        permit.spend({"to": ["eve@example.org"]})
        return Result({})

    request = replace(outside.request(rob, workspace), perform=perform)
    answer(ask(request), bob)

    with pytest.raises(errors.PermitRefused):
        services.call(request)


def test_double_click_is_shown_the_first_answer(outside, rob, workspace, bob):
    asked = ask(outside.request(rob, workspace))
    answer(asked, bob, reason="go ahead")

    with pytest.raises(Conflict, match="Already approved by bob .* go ahead"):
        answer(asked, bob, approve=False)
    assert Event.objects.filter(type="approval.decided").count() == 1


def test_second_click_on_the_page_shows_the_first_answer(
    client, outside, rob, workspace, bob
):
    asked = ask(outside.request(rob, workspace))
    answer(asked, bob)
    client.force_login(bob)

    page = client.post(
        reverse("gateway:decide", args=[asked.id]), {"answer": "reject"}, follow=True
    )

    assert "Already approved by bob" in page.content.decode()


def together(*acts) -> list[str]:
    """Start threads at once; what each came to: "done" or the class of its error."""
    barrier, said = threading.Barrier(len(acts)), []

    def run(act) -> None:
        barrier.wait()
        try:
            act()
            said.append("done")
        except PolarError as error:
            said.append(type(error).__name__)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return sorted(said)


@needs_threads
def test_two_clicks_at_once_are_one_answer(outside, rob, workspace, bob, alice):
    Membership.objects.filter(user=alice).update(role=Role.APPROVER)
    for _ in range(10):
        asked = ask(outside.request(rob, workspace))

        said = together(
            lambda asked=asked: answer(asked, bob),
            lambda asked=asked: answer(asked, alice, approve=False, reason="no"),
        )

        asked.refresh_from_db()
        assert said == ["Conflict", "done"]
        decided = Event.objects.filter(type="approval.decided")
        assert decided.filter(subject_id=str(asked.id)).count() == 1


@needs_threads
def test_one_approval_used_twice_at_once_is_one_effect(outside, rob, workspace, bob):
    for number in range(10):
        request = outside.request(rob, workspace)
        answer(ask(request), bob)

        together(*[lambda request=request: services.call(request)] * 2)

        assert len(outside.reached) == number + 1


def test_restart_between_ask_and_answer_loses_nothing(outside, rob, workspace, bob):
    request = outside.request(rob, workspace)
    asked = ask(request)
    connections.close_all() if not connections["default"].in_atomic_block else None
    answer(ApprovalRequest.objects.get(id=asked.id), bob)

    services.call(outside.request(rob, workspace, lineage=request.lineage))

    asked.refresh_from_db()
    assert (len(outside.reached), asked.state) == (1, ApprovalState.USED)


def test_expired_question_cannot_be_answered(outside, rob, workspace, bob):
    asked = ask(outside.request(rob, workspace))

    with (
        clock.frozen(asked.expires_at),
        pytest.raises(Conflict, match="Nobody answered in time"),
    ):
        answer(asked, bob)


def test_expired_question_ends_the_call_and_wakes_the_run(
    outside, rob, workspace, monkeypatch
):
    woken = []
    monkeypatch.setitem(ports.decided._plugged, "runs", woken.append)
    request = outside.request(rob, workspace)
    asked = ask(request)

    with clock.frozen(asked.expires_at + timedelta(seconds=1)):
        assert services.sweep_approvals() == 1
        with pytest.raises(errors.CapabilityDenied) as caught:
            services.call(request)

    assert caught.value.reason_code == "approval_expired"
    assert woken == [request.lineage.run_id]
    assert Event.objects.filter(type="approval.expired").count() == 1


def test_answer_given_in_time_but_used_too_late_is_refused(
    outside, rob, workspace, bob
):
    request = outside.request(rob, workspace)
    asked = ask(request)
    with clock.frozen(asked.expires_at - timedelta(seconds=1)):
        answer(asked, bob)

    with (
        clock.frozen(asked.expires_at + timedelta(seconds=1)),
        pytest.raises(errors.CapabilityDenied, match="expired before it was used"),
    ):
        services.call(request)
    assert outside.reached == []


def test_waiting_two_days_for_a_person_is_not_work_of_the_tree(
    outside, rob, workspace, bob
):
    request = outside.request(rob, workspace)
    asked = ask(request)

    with clock.frozen(clock.now() + timedelta(hours=48)):
        answer(asked, bob)
        services.call(request)

    assert len(outside.reached) == 1


def test_question_in_a_conversation_expires_in_half_an_hour(outside, workspace, bob):
    request = outside.request(bob.principal, workspace)
    lineage = replace(request.lineage, session_id=str(ids.new_id()))

    asked = ask(replace(request, lineage=lineage))

    assert asked.expires_at - asked.created_at < timedelta(minutes=31)


def test_question_of_an_agent_waits_on_the_desk(outside, rob, workspace):
    asked = ask(outside.request(rob, workspace))

    assert asked.expires_at - asked.created_at > timedelta(hours=71)


def test_requester_may_not_approve_their_own_destruction(outside, workspace, bob):
    people.person("barbara", Role.APPROVER, workspace)
    asked = ask(outside.request(bob.principal, workspace, risk=DESTRUCTIVE))

    with pytest.raises(Denied, match="Somebody else"):
        answer(asked, bob)


def test_lone_approver_may_and_it_is_recorded(outside, workspace, bob):
    asked = ask(outside.request(bob.principal, workspace, risk=DESTRUCTIVE))

    answer(asked, bob)

    asked.refresh_from_db()
    assert asked.is_single_operator
    event = Event.objects.get(type="approval.decided")
    assert '"single_operator":true' in event.body


def test_approver_who_left_counts_no_more(outside, workspace, bob):
    gone = people.person("barbara", Role.APPROVER, workspace)
    type(gone).objects.filter(id=gone.id).update(is_active=False)
    asked = ask(outside.request(bob.principal, workspace, risk=DESTRUCTIVE))

    assert answer(asked, bob).is_single_operator


@pytest.mark.parametrize("who", ["agent", "operator", "outsider", "automation"])
def test_who_may_not_approve_is_refused(who, outside, rob, workspace, alice, charlie):
    asked = ask(outside.request(rob, workspace))
    by = {
        "agent": rob,
        "operator": alice.principal,
        "outsider": charlie.principal,
        "automation": access.principal_for_automation(
            key="automation:nightly", label="nightly", workspace=workspace
        ),
    }[who]

    with pytest.raises(Exception) as caught:
        services.decide_approval(by=by, approval_id=asked.id, approve=True)
    assert caught.type.__name__ in {"Denied", "RoleRequired", "NotFound"}
    asked.refresh_from_db()
    assert asked.state == ApprovalState.PENDING


@pytest.mark.parametrize("lost", ["role", "user", "second_approver"])
def test_rights_are_checked_again_at_use(lost, outside, workspace, bob):
    risk = DESTRUCTIVE if lost == "second_approver" else EXTERNAL
    request = outside.request(bob.principal, workspace, risk=risk)
    asked = ask(request)
    answer(asked, bob)
    if lost == "role":
        Membership.objects.filter(user=bob).update(role=Role.OPERATOR)
    elif lost == "user":
        type(bob).objects.filter(id=bob.id).update(is_active=False)
    else:
        people.person("barbara", Role.APPROVER, workspace)

    again = None
    with pytest.raises((ApprovalRequired, Denied)) as caught:
        services.call(request)
    again = caught.value.facts.get("approval_id")

    asked.refresh_from_db()
    assert outside.reached == []
    assert again is None or again != str(asked.id)


def test_grant_for_a_while_covers_the_same_and_nothing_wider(
    outside, rob, workspace, bob
):
    answer(ask(outside.request(rob, workspace)), bob, reason="daily", grant_hours=8)

    services.call(outside.request(rob, workspace))
    ask(outside.request(rob, workspace, arguments={"to": ["eve@example.org"]}))
    ask(outside.request(rob, workspace, capability="mail/forward"))
    with clock.frozen(clock.now() + timedelta(hours=9)):
        ask(outside.request(rob, workspace))

    assert len(outside.reached) == 1


@pytest.mark.parametrize(
    ("words", "risk"),
    [
        ({"reason": "always", "grant_hours": 8}, DESTRUCTIVE),
        ({"grant_hours": 8}, EXTERNAL),
        ({"reason": "forever", "grant_hours": 100_000}, EXTERNAL),
    ],
)
def test_grant_that_may_not_be_decides_nothing(
    words, risk, outside, rob, workspace, bob
):
    asked = ask(outside.request(rob, workspace, risk=risk))

    with pytest.raises(Invalid):
        answer(asked, bob, **words)
    asked.refresh_from_db()
    assert (asked.state, Grant.objects.count()) == (ApprovalState.PENDING, 0)


def test_grant_closes_the_question_it_answers(outside, rob, workspace, bob):
    request = outside.request(rob, workspace)
    asked = ask(request)
    services.make_grant(
        by=bob.principal,
        new=services.NewGrant(CallKind.TOOL, ("mail/*",), "mail is fine", workspace),
    )

    services.call(request)

    asked.refresh_from_db()
    assert asked.state == ApprovalState.EXPIRED


def test_wildcards_in_a_target_grant_only_themselves(outside, rob, workspace, bob):
    arguments = {"to": ["*"]}
    answer(
        ask(outside.request(rob, workspace, arguments=arguments)),
        bob,
        reason="odd",
        grant_hours=1,
    )

    ask(outside.request(rob, workspace, arguments={"to": ["eve@example.org"]}))

    assert outside.reached == []


@pytest.mark.parametrize(("count", "asks"), [(49, False), (50, True), (5000, True)])
def test_many_targets_ask_whatever_was_granted(count, asks, outside, rob, workspace):
    Grant.objects.create(
        kind=CallKind.TOOL, capabilities=["*"], reason="wide", granted_by="test"
    )
    arguments = {"to": [f"{number}@example.org" for number in range(count)]}
    request = outside.request(rob, workspace, arguments=arguments)

    if asks:
        assert ask(request).mode == "dry_run_approval"
    else:
        services.call(request)
    assert len(outside.reached) == (0 if asks else 1)


def test_dry_run_shows_what_would_happen_and_does_nothing(outside, rob, workspace, bob):
    request = outside.request(
        rob, workspace, risk=DESTRUCTIVE, preview=lambda: {"deletes": ["a", "b"]}
    )

    asked = ask(request)

    assert asked.preview["would"] == {"deletes": ["a", "b"]}
    assert asked.preview["targets"] == ["ann@example.org"]
    assert outside.reached == []


def automation(outside, principal, workspace, **changes) -> CallRequest:
    return outside.request(
        principal,
        workspace,
        kind=CallKind.AUTOMATION,
        capability="automation:nightly",
        risk=Risk("write", "internal"),
        reject_window=timedelta(hours=1),
        **changes,
    )


def test_auto_start_when_nobody_rejects_then_it_starts(outside, rob, workspace):
    request = automation(outside, rob, workspace)
    asked = ask(request)

    with clock.frozen(asked.starts_at - timedelta(seconds=1)):
        assert services.sweep_approvals() == 0
        ask(request)
    with clock.frozen(asked.starts_at):
        assert services.sweep_approvals() == 1
        services.call(request)

    assert len(outside.reached) == 1


def test_auto_start_when_rejected_in_its_window_then_never(
    outside, rob, workspace, bob
):
    request = automation(outside, rob, workspace)
    asked = ask(request)
    answer(asked, bob, approve=False, reason="not tonight")

    with clock.frozen(asked.starts_at):
        assert services.sweep_approvals() == 0
        with pytest.raises(errors.CapabilityDenied, match="not tonight"):
            services.call(request)


def test_auto_start_of_something_destructive_waits_for_a_person(
    outside, rob, workspace, bob
):
    request = replace(automation(outside, rob, workspace), risk=DESTRUCTIVE)
    asked = ask(request)

    with clock.frozen(clock.now() + timedelta(hours=2)):
        assert services.sweep_approvals() == 0
    assert asked.mode == "dry_run_approval"


def planned(outside, principal, workspace, *steps: PlannedStep) -> CallRequest:
    return outside.request(
        principal,
        workspace,
        capability="polar/plan.propose",
        arguments={"title": "three mails"},
        risk=Risk("read"),
        plan=steps,
    )


def test_plan_is_approved_once_and_covers_its_exact_calls(outside, rob, workspace, bob):
    first = outside.request(rob, workspace, arguments={"to": ["ann@example.org"]})
    plan = planned(
        outside, rob, workspace, PlannedStep("mail/send", first.arguments, EXTERNAL)
    )
    first = replace(first, lineage=replace(plan.lineage, seq="2"))
    answer(ask(plan), bob)
    services.call(plan)

    services.call(first)

    assert PlanStep.objects.get().used_call_id is not None
    ask(replace(first, lineage=replace(plan.lineage, seq="3")))
    other = outside.request(
        rob,
        workspace,
        arguments={"to": ["eve@example.org"]},
        lineage=replace(plan.lineage, seq="4"),
    )
    ask(other)


@pytest.mark.parametrize("change", ["not_approved", "destructive", "other_turn"])
def test_plan_covers_nothing_else(change, outside, rob, workspace, bob):
    risk = DESTRUCTIVE if change == "destructive" else EXTERNAL
    step = PlannedStep("mail/send", {"to": ["ann@example.org"]}, risk)
    plan = planned(outside, rob, workspace, step)
    asked = ask(plan)
    if change != "not_approved":
        answer(asked, bob)
        services.call(plan)
    turn_id = ids.new_id() if change == "other_turn" else plan.lineage.turn_id

    ask(
        outside.request(
            rob,
            workspace,
            arguments=step.arguments,
            risk=risk,
            lineage=replace(plan.lineage, seq="2", turn_id=turn_id),
        )
    )


def test_every_refusal_leaves_its_call(outside, rob, workspace, bob):
    request = outside.request(rob, workspace)
    answer(ask(request), bob, approve=False, reason="no")

    with pytest.raises(errors.CapabilityDenied):
        services.call(request)

    row = Call.objects.get()
    assert (row.stage, row.reason_code) == ("approval", "approval_denied")
