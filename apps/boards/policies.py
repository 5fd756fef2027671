"""Who may write on a board. `check_` raises with the reason."""

from apps.access.models import Principal, PrincipalKind, Role, Workspace
from apps.access.policies import check_role
from apps.boards.errors import BoardArchived
from apps.boards.models import Board
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


def can_write(by: Principal, workspace: Workspace) -> bool:
    """Tell what `check_may_write` would say."""
    try:
        check_may_write(by, workspace)
    except Denied:
        return False
    return True


def check_may_judge(by: Principal, workspace: Workspace) -> None:
    """Let the system and people say what history says; an agent does not judge
    its own."""
    check_may_write(by, workspace)
    if by.kind == PrincipalKind.AGENT:
        raise Denied("An agent does not mark tasks or check them again.")


def check_may_start(by: Principal, workspace: Workspace) -> None:
    """Let everybody but agents set an agent to work by a task: an agent hands
    work over by a handoff, where the loop guard counts it."""
    check_may_write(by, workspace)
    if by.kind == PrincipalKind.AGENT:
        raise Denied("An agent hands work over by a handoff, not by a task.")


def check_open(board: Board) -> None:
    """Refuse to write on a board that rests. Raises: BoardArchived."""
    if board.archived_at is not None:
        raise BoardArchived()
