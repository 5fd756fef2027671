"""Who is asking, and do they belong to the workspace?"""

from apps.access import queries as access
from apps.common.errors import Denied
from apps.gateway.engine.decision import Decision


def check(decision: Decision) -> str:
    """Refuse a principal that is switched off or belongs elsewhere."""
    request = decision.request
    is_active, belongs = access.standing(request.principal, request.workspace_id)
    if not is_active:
        raise Denied(f"{request.principal.label} is not active.")
    if not belongs:
        raise Denied(f"{request.principal.label} does not belong to this workspace.")
    return request.principal.key
