"""Rule of two: untrusted, private and outward do not meet unasked."""

from apps.gateway.engine.decision import Decision

UNTRUSTED, PRIVATE, SECRET = "untrusted", "private", "secret"


def check(decision: Decision) -> str:
    """Ask a person when all three legs come together."""
    request = decision.request
    decision.facts["labels"] = sorted(request.labels)
    outward = (
        request.kind == "tool"
        and "network" in request.risk.data_egress
        or request.risk.side_effects == "external"
    )
    private = bool(request.labels & {PRIVATE, SECRET})
    if UNTRUSTED in request.labels and private and outward:
        decision.asks.append("label_conflict")
        return "asks: untrusted, private and outward together"
    return "clear"
