"""Does a person have to decide, and has one decided?"""

from apps.common import canonical
from apps.common.errors import ApprovalRequired, Denied, PolarError
from apps.gateway.engine import rules
from apps.gateway.engine.decision import Decision
from apps.gateway.engine.standing import Standing, candidates
from apps.gateway.errors import CapabilityDenied
from apps.gateway.models import (
    ApprovalRequest,
    ApprovalState,
    CallState,
    PlanStep,
)
from apps.gateway.policies import check_may_decide, count_approvers
from apps.gateway.ports import CallKind

#: What is refused at once where nobody could ever answer, and how that is called.
NEEDS_SOMEBODY = {
    "destructive": "destructive_grant_required",
    "label_conflict": "label_conflict",
}
#: How many targets are kept with the decision.
TARGETS_KEPT = 200


def check(decision: Decision) -> str:
    """Let pass what needs no asking, what a grant or an approved plan covers,
    and what was approved.

    Writes: ApprovalRequest APPROVED → USED, or PlanStep used, one conditional
    UPDATE.   Raises: ApprovalRequired when nobody has decided; CapabilityDenied
    when somebody rejected it, the question expired, or nobody here may answer it.
    """
    reasons = decision.facts["asks"] = _reasons(decision)
    if not reasons:
        return "not needed"
    if rules.is_grantable(reasons):
        grant = find_grant(decision)
        if grant is not None:
            decision.facts["grant"] = str(grant.id)
            return f"grant: {grant.reason}"
    return _by_plan(decision) or _by_approval(decision)


def may_be_planned(decision: Decision) -> bool:
    """Tell whether this call would ask a person, and one approval of a plan would
    do for it. Writes nothing."""
    reasons = _reasons(decision)
    if not reasons or not rules.is_plannable(reasons):
        return False
    return not rules.is_grantable(reasons) or find_grant(decision) is None


def _reasons(decision: Decision) -> list[str]:
    request = decision.request
    risk = request.risk.as_dict()
    reasons = [*decision.asks, *rules.risk_asks(risk)]
    if request.lineage.is_strict:
        reasons += rules.strict_asks(request.kind, risk)
    if request.plan:
        reasons.append("plan")
    if request.reject_window is not None:
        reasons.append("reject_window")
    return reasons + _bulk(decision)


def binding_of(decision: Decision) -> str:
    """Hash what an approval is bound to: the effect, not the wording."""
    request = decision.request
    return canonical.digest(
        {
            "key": decision.call.idempotency_key,
            "run": str(request.lineage.run_id),
            "turn": str(request.lineage.turn_id),
            "step": str(request.lineage.step_id),
            "principal": str(request.principal.id),
            "capability": request.capability,
            "arguments": decision.call.args_digest,
            "rules": canonical.digest(
                {
                    "risk": request.risk.as_dict(),
                    "asks": decision.facts["asks"],
                    "bulk_threshold": request.bulk_threshold,
                    "plan": [
                        [step.capability, step.args_digest, step.risk.as_dict()]
                        for step in request.plan
                    ],
                }
            ),
        }
    )


def find_grant(decision: Decision) -> Standing | None:
    """Return the first live grant that covers the call."""
    request = decision.request
    for grant in candidates(decision.sight.grants, request, decision.now):
        if rules.covers(
            grant.capabilities,
            grant.constraints,
            capability=request.capability,
            agent=request.lineage.agent,
            targets=_targets(decision) if grant.constraints else [],
        ):
            return grant
    return None


def _targets(decision: Decision) -> list[str]:
    request = decision.request
    return list(request.targets) or rules.targets_of(request.arguments)


def _bulk(decision: Decision) -> list[str]:
    """Keep what a tool would reach; many targets need their own decision."""
    request = decision.request
    if request.kind != CallKind.TOOL:
        return []
    targets = _targets(decision)
    count = max(len(targets), rules.count_targets(request.arguments))
    decision.facts["targets"] = targets[:TARGETS_KEPT]
    decision.facts["target_count"] = count
    if request.bulk_threshold != rules.BULK:
        decision.facts["bulk_threshold"] = request.bulk_threshold
    writes = rules.writes(request.risk.as_dict())
    return ["bulk"] if writes and count >= request.bulk_threshold else []


def _by_plan(decision: Decision) -> str:
    """Use one step of a plan that was approved in this turn, if it is exactly
    this call. Destructive actions, bulk and label conflicts ask for themselves."""
    request, asks = decision.request, decision.facts["asks"]
    lineage = request.lineage
    if lineage.turn_id is None or not rules.is_plannable(asks):
        return ""
    steps = PlanStep.objects.filter(
        approval__state=ApprovalState.USED,
        approval__expires_at__gt=decision.now,
        approval__call__run_id=lineage.run_id,
        approval__call__turn_id=lineage.turn_id,
        approval__call__principal_id=request.principal.id,
        capability=request.capability,
        args_digest=decision.call.args_digest,
        used_call_id__isnull=True,
    ).select_related("approval__decided_by", "approval__workspace", "approval__call")
    for step in steps.order_by("approval_id", "position"):
        if step.risk != request.risk.as_dict() or _withdrawn(step.approval):
            continue
        decision.before_writing()
        unused = PlanStep.objects.filter(id=step.id, used_call_id__isnull=True)
        if unused.update(used_call_id=decision.call.id):
            decision.facts["approval"] = str(step.approval_id)
            return (
                f"step {step.position} of the plan that {_who(step.approval)} approved"
            )
    return ""


def _by_approval(decision: Decision) -> str:
    binding = binding_of(decision)
    found = (
        ApprovalRequest.objects.select_related(
            "decided_by__user", "workspace", "requester", "call"
        )
        .filter(binding=binding)
        .order_by("-id")
        .first()
    )
    waited = decision.call.state == CallState.AWAITING_APPROVAL
    if found is None or found.state == ApprovalState.USED:
        raise _asks(decision, binding)
    if found.state == ApprovalState.REJECTED:
        raise CapabilityDenied(
            f"{_who(found)} rejected this: {found.decision_reason or 'no reason'}",
            reason_code="approval_denied",
        )
    is_over = found.expires_at <= decision.now
    if is_over and waited:
        raise CapabilityDenied(
            f"Nobody answered before {found.expires_at:%Y-%m-%d %H:%M} UTC."
            if found.decided_by_id is None
            else "The approval expired before it was used.",
            reason_code="approval_expired",
        )
    if is_over or found.state == ApprovalState.EXPIRED:
        raise _asks(decision, binding)
    return _use(found, decision)


def _use(found: ApprovalRequest, decision: Decision) -> str:
    unused = ApprovalRequest.objects.filter(id=found.id, state=ApprovalState.APPROVED)
    if found.state == ApprovalState.PENDING:
        raise _asks(decision, found.binding, approval_id=str(found.id))
    why = _withdrawn(found)
    if why:
        raise _asks(decision, found.binding, withdrawn=why)
    decision.before_writing()
    if not unused.update(state=ApprovalState.USED):
        raise _asks(decision, found.binding)
    decision.facts["approval"] = str(found.id)
    return f"approved by {_who(found)}"


def _withdrawn(found: ApprovalRequest) -> str:
    """Rights are checked at use as at the click: say why an answer lost them."""
    if found.decided_by is None:
        return "nobody decided it"
    try:
        check_may_decide(found.decided_by, found)
    except Denied as error:
        return error.detail
    return ""


def _asks(
    decision: Decision, binding: str, *, withdrawn: str = "", approval_id: str = ""
) -> PolarError:
    why = ", ".join(decision.facts["asks"])
    needed = [
        NEEDS_SOMEBODY[ask] for ask in decision.facts["asks"] if ask in NEEDS_SOMEBODY
    ]
    if needed and not count_approvers(decision.request.workspace_id):
        return CapabilityDenied(
            f"{decision.request.capability} asks first: {why}. Nobody here may "
            "answer: give somebody in this workspace the role approver.",
            reason_code=needed[0],
        )
    detail = f"{decision.request.capability} asks first: {why}."
    if withdrawn:
        detail += f" The earlier approval no longer holds: {withdrawn}"
    refusal = ApprovalRequired(detail, binding=binding)
    if approval_id:
        refusal.facts["approval_id"] = approval_id
    return refusal


def _who(found: ApprovalRequest) -> str:
    return found.decided_by.label if found.decided_by else "the clock"
