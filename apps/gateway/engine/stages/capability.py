"""Does the scope reach, and is the risk known?"""

from apps.gateway.engine.decision import Decision
from apps.gateway.errors import CapabilityDenied
from apps.gateway.ports import CallKind

#: Kinds of effect that a capability scope narrows.
SCOPED = frozenset({CallKind.TOOL, CallKind.HANDOFF})
RISK_LEVELS = frozenset({"read", "write", "destructive"})


def check(decision: Decision) -> str:
    """Refuse unknown risk, and a tool or handoff outside the scope.

    Scope shape: {"allowed": {"<extension>": ["<capability>" | "*"]}}; None is
    given only by callers that are not narrowed by one (models, receiving).
    """
    request = decision.request
    decision.facts["risk"] = request.risk.as_dict()
    if request.risk.level not in RISK_LEVELS:
        raise CapabilityDenied(
            f"The risk of {request.capability} is unknown; an operator has to say it.",
            reason_code="risk_unknown",
        )
    if request.kind not in SCOPED:
        return request.risk.level
    extension_id, _, capability_id = request.capability.partition("/")
    allowed = (request.scope or {}).get("allowed") or {}
    if not allowed:
        raise CapabilityDenied(
            "The capability scope is empty.", reason_code="scope_invalid"
        )
    names = set(allowed.get(extension_id, []))
    if not names & {"*", capability_id}:
        raise CapabilityDenied(
            f"The scope does not cover {request.capability}.",
            reason_code="scope_capability_denied",
            would_allow={"allowed": {extension_id: [capability_id]}},
        )
    return request.risk.level
