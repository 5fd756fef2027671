"""One call through the pipeline: what it allows, refuses and leaves behind."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from apps.access import services as access
from apps.audit.models import Event
from apps.common import clock, ids
from apps.common.errors import (
    ApprovalRequired,
    BudgetExceeded,
    Conflict,
    Denied,
    Halted,
    Invalid,
    NotTrusted,
    UpstreamError,
)
from apps.gateway import errors, services
from apps.gateway.models import (
    ApprovalRequest,
    Budget,
    Call,
    CallState,
    Grant,
    Reservation,
)
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
    TrustFacts,
    Usage,
)

pytestmark = pytest.mark.django_db

EXTERNAL = Risk("write", side_effects="external")


class Receiver:
    """Something outside that counts what reaches it."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.error: Exception | None = None

    def perform(self, permit: Permit) -> Result:
        permit.spend({"text": "hello"})
        self.keys.append(permit.idempotency_key)
        if self.error is not None:
            raise self.error
        return Result({"ok": True}, Usage(micros=70))


@pytest.fixture
def outside() -> Receiver:
    return Receiver()


@pytest.fixture
def request_(workspace, rob, outside) -> CallRequest:
    run_id = ids.new_id()
    return CallRequest(
        kind=CallKind.TOOL,
        capability="polar/echo",
        principal=rob,
        workspace_id=workspace.id,
        arguments={"text": "hello"},
        perform=outside.perform,
        risk=Risk("read"),
        lineage=Lineage(run_id=run_id, root_id=run_id, agent="rob", seq="1"),
        scope={"allowed": {"polar": ["echo"]}},
    )


def grown(request: CallRequest, seq: str) -> CallRequest:
    return replace(request, lineage=replace(request.lineage, seq=seq))


def test_call_when_allowed_then_done_once_and_recorded(request_, outside):
    outcome = services.call(request_)

    row = Call.objects.get(id=outcome.call_id)
    assert (outcome.output, row.state) == ({"ok": True}, CallState.SUCCEEDED)
    assert list(Event.objects.values_list("type", flat=True)).count("call.settled") == 1


def test_call_when_repeated_then_replayed_not_done(request_, outside):
    services.call(request_)

    again = services.call(request_)

    assert again.replayed
    assert len(outside.keys) == 1


def test_call_when_key_reused_with_other_arguments_then_conflict(request_):
    keyed = replace(request_, idempotency_key="k" * 64)
    services.call(keyed)

    with pytest.raises(errors.KeyReused):
        services.call(replace(keyed, arguments={"text": "other"}))


def test_call_when_principal_switched_off_then_denied(request_, rob):
    type(rob).objects.filter(id=rob.id).update(is_active=False)

    with pytest.raises(Denied):
        services.call(request_)
    assert Call.objects.get().stage == "identify"


def test_call_when_other_workspace_then_denied(request_, charlie):
    stranger = access.principal_for_user(user=charlie)

    with pytest.raises(Denied):
        services.call(replace(request_, principal=stranger))


@pytest.mark.parametrize("scope", ["all", "agent:rob", "kind:tool"])
def test_call_when_halted_then_refused_and_trace_left(request_, outside, scope):
    services.halt(by=access.system_principal(), scope=scope, reason="drill")

    with pytest.raises(Halted):
        services.call(request_)
    assert outside.keys == []
    assert Event.objects.filter(type="call.denied").count() == 1


def test_call_when_halted_between_decision_and_start_then_not_started(
    request_, outside
):
    def perform(permit: Permit) -> Result:
        services.halt(by=access.system_principal(), scope="all", reason="now")
        return outside.perform(permit)

    with pytest.raises(Halted):
        services.call(replace(request_, perform=perform))
    assert outside.keys == []


def test_receive_when_halted_then_still_heard(request_):
    services.halt(by=access.system_principal(), scope="all", reason="drill")

    outcome = services.call(
        replace(request_, kind=CallKind.RECEIVE, capability="receive:web", scope=None)
    )

    assert outcome.state == CallState.SUCCEEDED


def test_resume_when_lifted_then_allowed(request_):
    halt = services.halt(by=access.system_principal(), scope="all", reason="drill")
    services.resume(by=access.system_principal(), halt_id=halt.id)

    assert services.call(request_).state == CallState.SUCCEEDED


def test_call_when_unknown_field_then_names_it(request_):
    schema = {"type": "object", "properties": {"word": {"type": "string"}}}

    with pytest.raises(errors.ContractBroken) as caught:
        services.call(replace(request_, input_schema=schema))
    assert "text" in caught.value.fields[0].problem


def test_call_when_blocked_then_not_trusted(request_):
    facts = TrustFacts("polar", "plugin", "blocked", "enabled", reason="malicious")

    with pytest.raises(NotTrusted, match="malicious"):
        services.call(replace(request_, extension=facts))


def test_call_when_definition_changed_then_not_trusted(request_):
    facts = TrustFacts("polar", "plugin", "trusted", "enabled", is_pinned=False)

    with pytest.raises(NotTrusted):
        services.call(replace(request_, extension=facts))


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        (None, "scope_invalid"),
        ({"allowed": {}}, "scope_invalid"),
        ({"allowed": {"polar": ["other"]}}, "scope_capability_denied"),
        ({"allowed": {"other": ["*"]}}, "scope_capability_denied"),
    ],
)
def test_call_when_scope_does_not_reach_then_denied(request_, scope, reason):
    with pytest.raises(errors.CapabilityDenied) as caught:
        services.call(replace(request_, scope=scope))
    assert caught.value.reason_code == reason


def test_call_when_risk_unknown_then_denied(request_):
    with pytest.raises(errors.CapabilityDenied) as caught:
        services.call(replace(request_, risk=Risk()))
    assert caught.value.reason_code == "risk_unknown"


def test_call_when_same_arguments_too_often_then_loop_guard(request_, outside):
    for seq in range(4):
        services.call(grown(request_, str(seq)))

    with pytest.raises(errors.LoopGuardTripped):
        services.call(grown(request_, "5"))
    assert len(outside.keys) == 4


def test_call_when_too_deep_then_loop_guard(request_):
    deep = replace(request_, lineage=replace(request_.lineage, depth=6))

    with pytest.raises(errors.LoopGuardTripped):
        services.call(deep)


def test_call_when_budget_short_then_refused_and_nothing_held(request_, workspace):
    budget = Budget.objects.create(
        workspace=workspace, scope="workspace", unit="micros", window="day", limit=99
    )

    with pytest.raises(BudgetExceeded, match="budget allows"):
        services.call(replace(request_, estimate=Estimate(micros=100)))
    budget.refresh_from_db()
    assert (budget.reserved, budget.spent) == (0, 0)


def test_call_when_budget_covers_then_settled_with_real_usage(request_, workspace):
    budget = Budget.objects.create(
        workspace=workspace, scope="workspace", unit="micros", window="day", limit=100
    )

    services.call(replace(request_, estimate=Estimate(micros=100)))

    budget.refresh_from_db()
    assert (budget.reserved, budget.spent) == (0, 70)
    assert Reservation.objects.get().settled_amount == 70


def test_external_when_nobody_decided_then_asks_once(request_, outside):
    asks = replace(request_, risk=EXTERNAL)

    for _ in range(2):
        with pytest.raises(ApprovalRequired):
            services.call(asks)

    assert ApprovalRequest.objects.count() == 1
    assert outside.keys == []


def test_external_when_approved_then_done_once(request_, outside, bob):
    asks = replace(request_, risk=EXTERNAL)
    with pytest.raises(ApprovalRequired) as caught:
        services.call(asks)
    services.decide_approval(
        by=bob.principal, approval_id=caught.value.facts["approval_id"], approve=True
    )

    services.call(asks)

    assert services.call(asks).replayed
    assert len(outside.keys) == 1


def test_external_when_rejected_then_denied(request_, outside, bob):
    asks = replace(request_, risk=EXTERNAL)
    with pytest.raises(ApprovalRequired) as caught:
        services.call(asks)
    services.decide_approval(
        by=bob.principal, approval_id=caught.value.facts["approval_id"], approve=False
    )

    with pytest.raises(errors.CapabilityDenied) as denied:
        services.call(asks)
    assert denied.value.reason_code == "approval_denied"


def test_approval_when_arguments_swapped_then_asked_anew(request_, outside, bob):
    asks = replace(request_, risk=EXTERNAL)
    with pytest.raises(ApprovalRequired) as caught:
        services.call(asks)
    services.decide_approval(
        by=bob.principal, approval_id=caught.value.facts["approval_id"], approve=True
    )

    with pytest.raises(ApprovalRequired):
        services.call(replace(asks, arguments={"text": "swapped"}))
    assert outside.keys == []


def test_approval_when_answered_twice_then_first_stands(request_, bob):
    with pytest.raises(ApprovalRequired) as caught:
        services.call(replace(request_, risk=EXTERNAL))
    asked = caught.value.facts["approval_id"]
    services.decide_approval(by=bob.principal, approval_id=asked, approve=True)

    with pytest.raises(Conflict, match="approved"):
        services.decide_approval(by=bob.principal, approval_id=asked, approve=False)


def test_approval_when_agent_decides_then_denied(request_, rob):
    with pytest.raises(ApprovalRequired) as caught:
        services.call(replace(request_, risk=EXTERNAL))

    with pytest.raises(Denied):
        services.decide_approval(
            by=rob, approval_id=caught.value.facts["approval_id"], approve=True
        )


def test_approval_when_expired_then_denied(request_, bob):
    now = clock.now()
    asks = replace(request_, risk=EXTERNAL)
    with clock.frozen(now), pytest.raises(ApprovalRequired) as caught:
        services.call(asks)
    with clock.frozen(now + timedelta(hours=73)), pytest.raises(Conflict):
        services.decide_approval(
            by=bob.principal,
            approval_id=caught.value.facts["approval_id"],
            approve=True,
        )


def test_external_when_granted_then_not_asked(request_, outside, workspace):
    Grant.objects.create(
        kind=CallKind.TOOL,
        capabilities=["polar/*"],
        reason="for the test",
        granted_by="test",
        workspace=workspace,
    )

    services.call(replace(request_, risk=EXTERNAL))

    assert len(outside.keys) == 1


def test_destructive_when_granted_then_asked_all_the_same(request_, bob):
    Grant.objects.create(
        kind=CallKind.TOOL, capabilities=["*"], reason="wide", granted_by="test"
    )

    with pytest.raises(ApprovalRequired):
        services.call(replace(request_, risk=Risk("destructive")))


def test_rule_of_two_when_three_legs_meet_then_asks(request_, bob):
    Grant.objects.create(
        kind=CallKind.TOOL, capabilities=["*"], reason="wide", granted_by="test"
    )
    outward = replace(
        request_, risk=EXTERNAL, labels=frozenset({"untrusted", "private"})
    )

    with pytest.raises(ApprovalRequired):
        services.call(outward)


def test_permit_when_spent_twice_then_refused(request_):
    def perform(permit: Permit) -> Result:
        permit.spend(request_.arguments)
        permit.spend(request_.arguments)
        return Result(None)

    with pytest.raises(errors.PermitRefused):
        services.call(replace(request_, perform=perform))


def test_permit_when_arguments_differ_then_refused(request_):
    def perform(permit: Permit) -> Result:
        permit.spend({"text": "something else"})
        return Result(None)

    with pytest.raises(errors.PermitRefused):
        services.call(replace(request_, perform=perform))


def test_permit_when_never_spent_then_answer_refused(request_):
    with pytest.raises(errors.OutputBroken):
        services.call(replace(request_, perform=lambda permit: Result({"ok": True})))


def test_output_when_contract_broken_then_failed(request_):
    with pytest.raises(errors.OutputBroken):
        services.call(replace(request_, output_schema={"type": "string"}))
    assert Call.objects.get().state == CallState.FAILED


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    "output", [deep(200), deep(800), {"a": "\ud800"}, {"\udfff": 1}]
)
def test_output_when_nobody_can_keep_it_then_failed(request_, output):
    def perform(permit: Permit) -> Result:
        permit.spend(request_.arguments)
        return Result(output)

    with pytest.raises(errors.OutputBroken):
        services.call(replace(request_, perform=perform))
    assert Call.objects.get().state == CallState.FAILED


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_call_when_its_text_is_broken_then_refused_and_recorded(request_, text):
    broken = replace(request_, arguments={"text": text})

    with pytest.raises(errors.ContractBroken):
        services.call(broken)
    assert json.loads(Call.objects.get().arguments) == {"text": text}


def test_upstream_error_when_raised_then_failed_and_released(
    request_, outside, workspace
):
    budget = Budget.objects.create(
        workspace=workspace, scope="workspace", unit="micros", window="day", limit=100
    )
    outside.error = UpstreamError("it broke")

    with pytest.raises(UpstreamError):
        services.call(replace(request_, estimate=Estimate(micros=100)))
    budget.refresh_from_db()
    assert (Call.objects.get().state, budget.reserved) == (CallState.FAILED, 0)


def lost(request: CallRequest) -> Call:
    """Leave the call as a worker does that dies in the middle of it."""

    def perform(permit: Permit) -> Result:
        permit.spend(request.arguments)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        services.call(replace(request, perform=perform))
    return Call.objects.get()


@pytest.mark.parametrize("effect", ["pure", "internal", "keyed"])
def test_lost_call_when_repeatable_then_done_with_same_key(request_, outside, effect):
    repeatable = replace(request_, effect_class=EffectClass(effect))
    first = lost(repeatable)

    services.call(repeatable)

    assert outside.keys == [first.idempotency_key]


@pytest.mark.parametrize("effect", ["reconcilable", "non_repeatable"])
def test_lost_call_when_not_repeatable_then_in_doubt(request_, outside, effect):
    careful = replace(request_, effect_class=EffectClass(effect))
    lost(careful)

    for _ in range(2):
        with pytest.raises(errors.OutcomeUnknown):
            services.call(careful)
    assert outside.keys == []
    assert Call.objects.get().state == CallState.UNKNOWN


@pytest.mark.parametrize("happened", [True, False])
def test_doubt_when_settled_then_done_or_done_again(request_, outside, happened):
    careful = replace(request_, effect_class=EffectClass.NON_REPEATABLE)
    call = lost(careful)
    with pytest.raises(errors.OutcomeUnknown):
        services.call(careful)

    services.settle_outcome(
        by=access.system_principal(),
        call_id=call.id,
        happened=happened,
        again=not happened,
        reason="looked",
    )
    services.call(careful)

    assert len(outside.keys) == (0 if happened else 1)


def test_doubt_when_settled_as_left_undone_then_never_repeated(request_, outside):
    careful = replace(request_, effect_class=EffectClass.NON_REPEATABLE)
    call = lost(careful)
    with pytest.raises(errors.OutcomeUnknown):
        services.call(careful)

    services.settle_outcome(
        by=access.system_principal(), call_id=call.id, happened=False, reason="looked"
    )

    with pytest.raises(errors.EffectLeftUndone):
        services.call(careful)
    assert outside.keys == []


def test_halt_when_no_reason_then_refused(workspace):
    with pytest.raises(Invalid):
        services.halt(by=access.system_principal(), scope="all", reason=" ")


def test_halt_when_viewer_then_refused(charlie, workspace):
    with pytest.raises(Denied):
        services.halt(
            by=access.principal_for_user(user=charlie), scope="all", reason="fun"
        )
