"""Who is asking, and do they belong to the workspace?"""

from uuid import UUID

from apps.access.models import Membership, Principal, PrincipalKind
from apps.common.errors import Denied
from apps.gateway.engine.decision import Decision


def check(decision: Decision) -> str:
    """Refuse a principal that is switched off or belongs elsewhere."""
    request = decision.request
    found = Principal.objects.filter(id=request.principal.id, is_active=True).first()
    if found is None:
        raise Denied(f"{request.principal.label} is not active.")
    if not _belongs(found, request.workspace_id):
        raise Denied(f"{request.principal.label} does not belong to this workspace.")
    return request.principal.key


def _belongs(principal: Principal, workspace_id: UUID) -> bool:
    if principal.kind == PrincipalKind.SYSTEM:
        return True
    if principal.kind == PrincipalKind.HUMAN:
        mine = Membership.objects.filter(user__principal=principal)
        return mine.filter(workspace_id=workspace_id).exists()
    return principal.workspace_id == workspace_id
