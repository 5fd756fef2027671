"""Who may stop, and who may decide what somebody else asked for."""

from uuid import UUID

from apps.access.models import Membership, Principal, PrincipalKind, Role
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.common.errors import Denied

from .models import ApprovalRequest


def check_operator(by: Principal) -> None:
    """Refuse who may not stop, resume or settle."""
    if by.kind == PrincipalKind.AGENT:
        raise Denied("An agent never stops, resumes or settles.")
    if by.kind == PrincipalKind.HUMAN:
        check_role(by, Role.OPERATOR, default_workspace())


def check_may_decide(by: Principal, asked: ApprovalRequest) -> bool:
    """Refuse who may not decide; asked at the click and again at use.

    Returns whether somebody decides alone what they asked for themselves.
    """
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("Agents never approve.")
    if not by.is_active or (by.user is not None and not by.user.is_active):
        raise Denied(f"{by.label} is not active.")
    check_role(by, Role.APPROVER, asked.workspace)
    alone = count_approvers(asked.workspace_id) < 2
    own = by.id == asked.requester_id or (
        by.user_id is not None and asked.requester.user_id == by.user_id
    )
    destructive = "destructive" in asked.call.facts.get("asks", [])
    if own and destructive and not alone:
        raise Denied("Somebody else decides what you asked to destroy.")
    return alone and own


def can_decide(by: Principal, asked: ApprovalRequest) -> str:
    """Return why not, in the words of the rule, or ""."""
    try:
        check_may_decide(by, asked)
    except Denied as error:
        return error.detail
    return ""


def count_approvers(workspace_id: UUID) -> int:
    """Count who could answer a question in a workspace."""
    return Membership.objects.filter(
        workspace_id=workspace_id,
        role__in=[Role.APPROVER, Role.ADMIN],
        user__is_active=True,
    ).count()
