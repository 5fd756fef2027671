"""Who is asking, and do they belong to the workspace?"""

from apps.common.errors import Denied
from apps.gateway.engine.decision import Decision


def check(decision: Decision) -> str:
    """Refuse a principal that is switched off or belongs elsewhere."""
    request = decision.request
    is_active, belongs = decision.sight.standing()
    if not is_active:
        raise Denied(f"{request.principal.label} is not active.")
    if not belongs:
        raise Denied(f"{request.principal.label} does not belong to this workspace.")
    return request.principal.key
