"""`executeExtension` where a person has to answer, and what a refusal leaves behind.

The reason codes of `POLAR_EXTENSION_POLICY_DENIED` that a question, a tree of work
or what a conversation has read may come to.
"""

from datetime import timedelta
from typing import Any

import pytest

from apps.access.models import Membership
from apps.agents import services as agents
from apps.agents.models import Conversation, Turn
from apps.common import clock
from apps.extensions import ports
from apps.extensions.models import Extension
from apps.gateway import services as gateway
from apps.gateway.models import ApprovalRequest, Call

from . import test_api_execute
from .test_api_execute import TRACE, issue, order

execute, payload, session = (
    test_api_execute.execute,
    test_api_execute.payload,
    test_api_execute.session,
)
__all__ = ["execute", "payload", "session"]


@pytest.fixture
def cancel(payload, orders) -> dict[str, Any]:
    """The minimal payload of something destructive; its start waits for no seal."""
    orders.capabilities.filter(capability_id="cancel").update(effect_class="keyed")
    return order(payload, capabilityId="cancel")


def refusal_of(response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["reasonCode"]


def denied(reason: str) -> tuple[int, str, str]:
    return 403, "POLAR_EXTENSION_POLICY_DENIED", reason


def answer(user, approve: bool = True) -> None:
    asked = ApprovalRequest.objects.latest("id")
    gateway.decide_approval(
        by=user.principal, approval_id=asked.id, approve=approve, reason="looked"
    )


def test_scope_invalid_names_what_the_scope_lacks(execute, payload):
    scope = {"allowed": {"another": ["*"]}}

    response = execute({**payload, "capabilityScope": scope})

    assert refusal_of(response) == denied("scope_invalid")
    repaired = response.json()["minimalPayload"]["capabilityScope"]
    assert repaired == {"allowed": {"polar": ["clock.now"]}}
    assert execute(response.json()["minimalPayload"]).status_code == 200


def test_destructive_grant_required_where_nobody_may_answer(execute, cancel):
    Membership.objects.filter(role__in=["approver", "admin"]).update(role="operator")

    response = execute(cancel)

    assert refusal_of(response) == denied("destructive_grant_required")
    assert "role approver" in response.json()["error"]["message"]
    assert Call.objects.get(kind="tool").state == "denied"
    assert not ApprovalRequest.objects.exists()


@pytest.fixture
def conflicted(session, payload, orders) -> dict[str, Any]:
    """The conversation has read strangers' text and private data; the tool sends."""
    orders.capabilities.update(data_egress="network")
    conversation = Conversation.objects.get(id=session.id)
    labelled(conversation, ["private", "untrusted"])
    return order(payload)


def labelled(conversation, labels: list[str]) -> None:
    turn = agents.start_turn(
        conversation=conversation,
        principal=conversation.principal,
        text="Read the mail.",
        trigger="message",
    )
    Turn.objects.filter(id=turn.id).update(labels=labels)


def test_what_a_session_has_read_makes_sending_ask(execute, conflicted):
    response = execute(conflicted)

    assert response.status_code == 202
    assert Call.objects.get(kind="tool").facts["asks"] == [
        "label_conflict",
        "network_egress",
    ]


def test_label_conflict_where_nobody_may_answer(execute, conflicted):
    Membership.objects.filter(role__in=["approver", "admin"]).update(role="operator")

    assert refusal_of(execute(conflicted)) == denied("label_conflict")


def test_session_that_read_one_kind_only_is_not_asked_for_labels(
    execute, conflicted, session
):
    Turn.objects.update(labels=["untrusted"])

    execute(conflicted)

    assert Call.objects.get(kind="tool").facts["asks"] == ["network_egress"]


def test_approval_denied(execute, cancel, bob):
    asked = execute(cancel).json()
    answer(bob, approve=False)

    response = execute(cancel)

    assert refusal_of(response) == denied("approval_denied")
    assert "bob rejected this: looked" in response.json()["error"]["message"]
    assert response.json()["callId"] == asked["callId"]


def test_approval_expired(execute, cancel):
    execute(cancel)

    with clock.frozen(clock.now() + timedelta(minutes=31)):
        response = execute(cancel)

    assert refusal_of(response) == denied("approval_expired")


def test_loop_guard_counts_the_calls_of_one_trace(execute, payload):
    traced = {**payload, "traceId": TRACE}
    assert [execute(traced).status_code for _ in range(4)] == [200] * 4

    assert refusal_of(execute(traced)) == denied("loop_guard")
    assert execute({**payload, "traceId": "f" * 32}).status_code == 200
    assert execute(payload).status_code == 200


def test_trace_of_somebody_else_trips_nobody(execute, payload, bob):
    traced = {**payload, "traceId": TRACE}
    for _ in range(5):
        execute(traced)
    other = issue(bob, "extensions:execute", "act_as:default")

    assert execute(traced, token=other).status_code == 200


def test_resend_after_approval_is_done_once(execute, cancel, runtime, bob):
    first = execute(cancel).json()
    assert execute(cancel).json()["approvalId"] == first["approvalId"]
    answer(bob)

    done = execute(cancel).json()
    again = execute(cancel).json()

    assert (done["status"], done["callId"]) == ("completed", first["callId"])
    assert again["status"] == "approval_required"
    assert again["approvalId"] != first["approvalId"]
    assert [target.name for target in runtime.targets] == ["cancel"]


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"id": "2"}},
        {"capabilityId": "find"},
        {"capabilityId": "cancel", "idempotencyKey": "another"},
    ],
)
def test_other_request_does_not_use_the_approval(execute, cancel, bob, change):
    first = execute(cancel).json()
    answer(bob)

    response = execute({**cancel, **change}).json()

    assert response["callId"] != first["callId"]
    assert ApprovalRequest.objects.get(id=first["approvalId"]).state == "approved"


def test_other_caller_does_not_use_the_approval(execute, cancel, bob):
    first = execute(cancel).json()
    answer(bob)
    token = issue(bob, "extensions:execute", "act_as:default")

    response = execute(cancel, token=token).json()

    assert response["status"] == "approval_required"
    assert response["approvalId"] != first["approvalId"]


def test_same_key_for_another_capability_is_refused(execute, payload):
    execute({**payload, "idempotencyKey": "k"})
    other = {"capabilityId": "calculator.evaluate", "input": {"expression": "1"}}
    scope = {"capabilityScope": {"allowed": {"polar": ["*"]}}}

    response = execute({**payload, **scope, **other, "idempotencyKey": "k"})

    assert response.status_code == 409


def test_bulk_threshold_of_the_capability_asks(execute, payload, orders):
    orders.capabilities.filter(capability_id="find").update(
        bulk_threshold=3,
        side_effects="internal",
        input_schema={"properties": {"ids": {"type": "array"}}},
    )
    few = order(payload, input={"ids": ["1", "2"]})
    many = order(payload, input={"ids": ["1", "2", "3"]})

    assert execute(few).json()["status"] == "completed"
    assert execute(many).json()["status"] == "approval_required"
    assert ApprovalRequest.objects.get().mode == "dry_run_approval"


def test_answer_says_that_it_ran_without_isolation(
    execute, payload, orders, monkeypatch
):
    Extension.objects.filter(id=orders.id).update(
        accepts_degraded=True, degraded_reason="an old kernel"
    )
    assert execute(order(payload)).json()["degraded"] is False
    open_host = ports.Isolation(is_available=False, detail="no bwrap")
    monkeypatch.setattr(ports, "isolation", lambda: open_host)

    body = execute(order(payload)).json()

    assert body["degraded"] is True
    stages = Call.objects.get(id=body["callId"]).facts["stages"]
    assert stages["trust"] == "reviewed, without isolation"
