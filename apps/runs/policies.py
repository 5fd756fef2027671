"""Who may steer runs and plan schedules. `check_` raises with the reason."""

import uuid

from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.runs.models import Run
from apps.runs.queries import get_run


def check_may_steer(principal: Principal, run_id: uuid.UUID) -> Run:
    """Return the run when this principal may cancel it or act on it.

    Raises: NotFound, RoleRequired.
    """
    run = get_run(run_id, principal=principal)
    check_role(principal, Role.OPERATOR, run.workspace)
    return run


def check_may_plan(principal: Principal, workspace: Workspace) -> None:
    """Raises: RoleRequired."""
    check_role(principal, Role.OPERATOR, workspace)
