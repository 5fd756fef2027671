"""Roles as groups of Django permissions: what the desk and the admin site let through.

These are the outer wall. A service behind it asks for the role again, in the
workspace of the row; a permission alone opens nothing.
Invariant: the groups carry exactly what stands here, from every migration on.
"""

from django.contrib.auth.models import Group, Permission
from django.db import transaction

from apps.access.models import Role
from apps.access.policies import ACT, ADMINISTER, APPROVE, LOOK

#: Model names by app; what a lower role may, a higher one may too.
VIEWS: dict[Role, dict[str, str]] = {
    Role.VIEWER: {
        "boards": "board task taskevent taskcomment",
        "runs": "run schedule",
        "agents": "agentprofile conversation turn handoff",
        "providers": "provider model route breaker",
        "extensions": "extension capability version review",
        "reliability": "incident alert drillrun drillstep",
    },
    Role.OPERATOR: {
        "runs": "proposal",
        "gateway": "call grant approvalrequest budget halt",
        "agents": "memory",
        "channels": "account",
        "extensions": "certificate",
        "reliability": "silence rollback",
    },
    Role.APPROVER: {"gateway": "setting"},
}
#: Rows that a role adds or changes on the admin site, each through its service.
CHANGES: dict[Role, dict[str, str]] = {
    Role.OPERATOR: {
        "boards": "board task",
        "runs": "run schedule proposal",
        "agents": "agentprofile",
    },
}
DESK = {
    Role.VIEWER: LOOK,
    Role.OPERATOR: ACT,
    Role.APPROVER: APPROVE,
    Role.ADMIN: ADMINISTER,
}


def codes_of(role: Role) -> set[str]:
    """Return "app.codename" of what a role adds to those before it."""
    codes = {DESK[role]}
    for verbs, table in ((("view",), VIEWS), (("add", "change"), CHANGES)):
        for app, models in table.get(role, {}).items():
            codes |= {f"{app}.{v}_{name}" for name in models.split() for v in verbs}
    return codes


@transaction.atomic
def sync_groups() -> None:
    """Give each role's group its permissions; an administrator has them all.

    Runs after every migration. Again: changes nothing.
    """
    known = {
        f"{app}.{code}": key
        for key, app, code in Permission.objects.values_list(
            "id", "content_type__app_label", "codename"
        )
    }
    wanted: set[str] = set()
    for role in DESK:
        wanted |= codes_of(role)
        codes = set(known) if role == Role.ADMIN else wanted & set(known)
        group, _ = Group.objects.get_or_create(name=str(role))
        group.permissions.set(known[code] for code in codes)


def missing_permissions() -> set[str]:
    """Return what stands here and no model has: a slip of the pen."""
    rows = Permission.objects.values_list("content_type__app_label", "codename")
    known = {f"{app}.{code}" for app, code in rows}
    return set[str]().union(*(codes_of(role) for role in DESK)) - known
