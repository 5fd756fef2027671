"""Who may write on a board. `check_` raises with the reason."""

from apps.access.models import Principal, PrincipalKind, Role, Workspace
from apps.access.policies import check_role
from apps.common.errors import Denied


def check_may_write(by: Principal, workspace: Workspace) -> None:
    """Let people write from operator up, agents and automations in their own
    workspace, and the system everywhere."""
    if not by.is_active:
        raise Denied(f"{by.label} is not active.")
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        if by.workspace_id != workspace.id:
            raise Denied(f"{by.label} does not belong to {workspace.slug}.")
        return
    check_role(by, Role.OPERATOR, workspace)
