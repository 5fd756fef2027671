"""Rule of two: untrusted, private and outward do not meet unasked."""

from apps.gateway.engine import rules
from apps.gateway.engine.decision import Decision


def check(decision: Decision) -> str:
    """Ask a person when all three legs come together."""
    request = decision.request
    decision.facts["labels"] = sorted(request.labels)
    if rules.three_legs(request.kind, request.risk.as_dict(), request.labels):
        decision.asks.append("label_conflict")
        return "asks: untrusted, private and outward together"
    return "clear"
