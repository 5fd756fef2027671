"""Does a person have to decide, and has one decided?"""

from fnmatch import fnmatchcase

from django.db.models import Q, QuerySet

from apps.common import canonical
from apps.common.errors import ApprovalRequired
from apps.gateway.engine.decision import Decision
from apps.gateway.errors import CapabilityDenied
from apps.gateway.models import ApprovalRequest, ApprovalState, Grant


def check(decision: Decision) -> str:
    """Let pass what needs no asking, what a grant covers, and what was approved.

    Writes: ApprovalRequest APPROVED → USED, one conditional UPDATE.
    Raises: ApprovalRequired when nobody has decided; CapabilityDenied when
    somebody rejected it.
    """
    reasons = [*decision.asks, *_risk_asks(decision)]
    decision.facts["asks"] = reasons
    if not reasons:
        return "not needed"
    if _grantable(reasons):
        grant = find_grant(decision)
        if grant is not None:
            decision.facts["grant"] = str(grant.id)
            return f"grant: {grant.reason}"
    return _by_approval(decision)


def binding_of(decision: Decision) -> str:
    """Hash what an approval is bound to: the effect, not the wording."""
    request = decision.request
    return canonical.digest(
        {
            "key": decision.call.idempotency_key,
            "run": str(request.lineage.run_id),
            "turn": str(request.lineage.turn_id),
            "step": str(request.lineage.step_id),
            "capability": request.capability,
            "arguments": decision.call.args_digest,
            "rules": canonical.digest(
                {"risk": request.risk.as_dict(), "asks": decision.facts["asks"]}
            ),
        }
    )


def find_grant(decision: Decision) -> Grant | None:
    """Return the first live grant that covers the call."""
    request = decision.request
    live: QuerySet[Grant] = Grant.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=decision.now),
        Q(principal__isnull=True) | Q(principal_id=request.principal.id),
        Q(workspace__isnull=True) | Q(workspace_id=request.workspace_id),
        revoked_at__isnull=True,
        kind=request.kind,
    )
    for grant in live.order_by("id"):
        if any(fnmatchcase(request.capability, name) for name in grant.capabilities):
            return grant
    return None


def _risk_asks(decision: Decision) -> list[str]:
    risk = decision.request.risk
    asks = []
    if risk.level == "destructive":
        asks.append("destructive")
    if risk.side_effects == "external":
        asks.append("external_write" if risk.level != "read" else "external")
    if risk.data_egress == "network":
        asks.append("network_egress")
    return asks


def _grantable(reasons: list[str]) -> bool:
    """Destructive actions and label conflicts need their own decision."""
    return not {"destructive", "label_conflict"} & set(reasons)


def _by_approval(decision: Decision) -> str:
    binding = binding_of(decision)
    found = ApprovalRequest.objects.filter(binding=binding).order_by("-id").first()
    if found is None or found.state in (ApprovalState.EXPIRED, ApprovalState.USED):
        raise ApprovalRequired(
            f"{decision.request.capability} asks first: "
            f"{', '.join(decision.facts['asks'])}.",
            binding=binding,
        )
    if found.state == ApprovalState.REJECTED:
        raise CapabilityDenied(
            f"{found.decided_by} rejected this: {found.decision_reason}",
            reason_code="approval_denied",
        )
    return _use(found, decision)


def _use(found: ApprovalRequest, decision: Decision) -> str:
    if found.expires_at <= decision.now:
        raise CapabilityDenied("The approval expired.", reason_code="approval_expired")
    unused = ApprovalRequest.objects.filter(id=found.id, state=ApprovalState.APPROVED)
    if not unused.update(state=ApprovalState.USED):
        raise ApprovalRequired(
            f"{decision.request.capability} still waits for a decision.",
            binding=found.binding,
            approval_id=str(found.id),
        )
    decision.facts["approval"] = str(found.id)
    return f"approved by {found.decided_by}"
