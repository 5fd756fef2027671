"""Who is asking, and do they belong to the workspace?"""

from apps.access.models import Membership, Principal, PrincipalKind
from apps.common.errors import Denied
from apps.gateway.engine.decision import Decision


def check(decision: Decision) -> str:
    """Refuse a principal that is switched off or belongs elsewhere."""
    request = decision.request
    live = Principal.objects.filter(id=request.principal.id, is_active=True)
    row = live.values("kind", "user_id", "workspace_id").first()
    if row is None:
        raise Denied(f"{request.principal.label} is not active.")
    if not _belongs(row, request.workspace_id):
        raise Denied(f"{request.principal.label} does not belong to this workspace.")
    return request.principal.key


def _belongs(row: dict[str, object], workspace_id: object) -> bool:
    if row["kind"] == PrincipalKind.SYSTEM:
        return True
    if row["kind"] == PrincipalKind.HUMAN:
        mine = Membership.objects.filter(user_id=row["user_id"])
        return mine.filter(workspace_id=workspace_id).exists()
    return row["workspace_id"] == workspace_id
