"""Is the extension trusted, reviewed in this form, and enabled?"""

from apps.common.errors import NotTrusted
from apps.gateway.engine.decision import Decision
from apps.gateway.ports import TrustFacts

#: How a call is marked whose code ran without isolation.
DEGRADED = "degraded"


class NotEnabled(NotTrusted):
    """The extension is not enabled."""

    code = "POLAR_EXTENSION_NOT_ENABLED"


def check(decision: Decision) -> str:
    """Refuse a blocked, unpinned or disabled extension."""
    facts = decision.request.extension
    if facts is None:
        return "none needed"
    trust = check_facts(facts)
    if facts.is_isolated:
        return trust
    decision.facts["isolation"] = DEGRADED
    return f"{trust}, without isolation"


def check_facts(facts: TrustFacts) -> str:
    """The same question, asked again in the transaction that starts an effect."""
    if facts.trust == "blocked":
        raise NotTrusted(
            f"{facts.extension_id} is blocked: {facts.reason or 'no reason recorded'}",
            extension_id=facts.extension_id,
        )
    if not facts.is_pinned:
        raise NotTrusted(
            f"{facts.extension_id} is not what was reviewed; review it again.",
            reason_code="definition_changed",
            extension_id=facts.extension_id,
        )
    if facts.lifecycle != "enabled":
        raise NotEnabled(
            f"{facts.extension_id} is {facts.lifecycle}.",
            extension_id=facts.extension_id,
        )
    return facts.trust
