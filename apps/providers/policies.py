"""Who may change providers: they belong to the install, so its administrators."""

from apps.access.models import Principal, Role
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.common.errors import PolarError


def check_manage(principal: Principal) -> None:
    """Refuse whoever does not administer this install.   Raises: RoleRequired."""
    check_role(principal, Role.ADMIN, default_workspace())


def can_manage(principal: Principal) -> bool:
    """Tell what `check_manage` would say."""
    try:
        check_manage(principal)
    except PolarError:
        return False
    return True


def check_test(principal: Principal) -> None:
    """Refuse whoever may not operate; a test costs a little money."""
    check_role(principal, Role.OPERATOR, default_workspace())
