"""May this principal speak here, may it steer agents? `check_` raises."""

from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.agents.models import Conversation, PinScope
from apps.common.errors import Denied, NotFound


def check_may_speak(principal: Principal, conversation: Conversation) -> None:
    """Refuse a principal that neither owns the conversation nor may see it.

    Raises: Denied for an inactive principal; NotFound, so that a stranger learns
    nothing of what exists.
    """
    if not principal.is_active:
        raise Denied("This principal is no longer active.")
    if conversation.principal_id == principal.id:
        return
    mine = Conversation.objects.visible_to(principal).filter(id=conversation.id)
    if not mine.exists():
        raise NotFound("There is no such session, or it is not yours to see.")


def check_may_shape(principal: Principal, workspace: Workspace) -> None:
    """Refuse who may not change agents in a workspace. Raises: RoleRequired."""
    check_role(principal, Role.OPERATOR, workspace)


def check_may_pin(
    principal: Principal, scope: str, key: str, workspace: Workspace
) -> None:
    """Refuse who may not say which agent serves this scope.

    Everybody pins for themselves; operators for sessions, users and the
    workspace; admins of the default workspace for all.
    """
    if scope == PinScope.USER and key == str(principal.id):
        return
    if scope == PinScope.SESSION:
        own = Conversation.objects.filter(id=key, principal=principal)
        if own.exists():
            return
    if scope == PinScope.GLOBAL:
        check_role(principal, Role.ADMIN, default_workspace())
        return
    check_role(principal, Role.OPERATOR, workspace)
