"""May this principal, may this token? `check_` raises with the reason."""

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import Permission
from django.db.models import QuerySet
from django.http import HttpRequest

from .errors import RoleRequired, ScopeRequired
from .models import (
    ROLE_ORDER,
    Membership,
    Principal,
    PrincipalKind,
    Role,
    Token,
    Workspace,
)

#: The scope that covers every other.
EVERYTHING = "*"

#: What a page of the desk asks for, as Django permissions of the roles' groups.
LOOK = "access.look"
ACT = "access.act"
APPROVE = "access.approve"
ADMINISTER = "access.administer"


class ByGroup(ModelBackend):
    """Permissions come from the groups of one's roles, never from the person's own
    row: no right stands where no role shows it, and a page asks one query less."""

    def _get_user_permissions(self, user_obj: Any) -> QuerySet[Permission]:
        return Permission.objects.none()


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Who a request comes from and what its credential covers."""

    principal: Principal
    scopes: frozenset[str]
    token: Token | None = None


def check_scope(auth: Authenticated, scope: str) -> None:
    """Refuse a credential that does not cover `scope`, such as "runs:read"."""
    area = scope.split(":")[0]
    if not auth.scopes & {EVERYTHING, scope, f"{area}:*"}:
        raise ScopeRequired(
            f"This needs the scope {scope}.", needed=scope, held=sorted(auth.scopes)
        )


def caller(request: HttpRequest) -> Authenticated:
    """Return who sent an API request; its door has asked for the scope."""
    auth: Authenticated = request.auth  # type: ignore[attr-defined]
    return auth


def check_entry(auth: Authenticated, scope: str, role: str) -> None:
    """Refuse a credential without the scope, or a person below the role anywhere.

    The outer wall of the API, before a body is read: the services behind ask for the
    role again, where it counts.   Raises: ScopeRequired, RoleRequired.
    """
    check_scope(auth, scope)
    if not role or auth.principal.kind == PrincipalKind.SYSTEM:
        return
    enough = ROLE_ORDER[ROLE_ORDER.index(Role(role)) :]
    held = Membership.objects.filter(user__principal=auth.principal, role__in=enough)
    if not held.exists():
        raise RoleRequired(f"This needs the role {role}.", needed=role)


def covers(held: frozenset[str], wanted: frozenset[str]) -> bool:
    """Tell whether every wanted scope is inside the held ones."""
    if EVERYTHING in held:
        return True
    return all(scope in held or f"{scope.split(':')[0]}:*" in held for scope in wanted)


def narrow(wanted: frozenset[str], held: frozenset[str]) -> frozenset[str]:
    """Return what is in both: the scopes wanted, cut to those held."""
    if EVERYTHING in held:
        return wanted
    if EVERYTHING in wanted:
        return held
    kept = {scope for scope in wanted if covers(held, frozenset({scope}))}
    kept |= {scope for scope in held if covers(wanted, frozenset({scope}))}
    return frozenset(kept)


def role_of(principal: Principal, workspace: Workspace) -> str:
    """Return the principal's role in a workspace, or ""."""
    if principal.kind != PrincipalKind.HUMAN:
        return ""
    found = Membership.objects.filter(user__principal=principal, workspace=workspace)
    return found.values_list("role", flat=True).first() or ""


def check_role(principal: Principal, role: str, workspace: Workspace) -> None:
    """Refuse a principal whose role is below `role`; the system passes."""
    if principal.kind == PrincipalKind.SYSTEM:
        return
    held = role_of(principal, workspace)
    if held and ROLE_ORDER.index(held) >= ROLE_ORDER.index(role):  # type: ignore[arg-type]
        return
    raise RoleRequired(
        f"This needs the role {role} in {workspace.slug}.", needed=role, held=held
    )


def can_role(principal: Principal, role: str, workspace: Workspace) -> bool:
    """Tell what `check_role` would say."""
    try:
        check_role(principal, role, workspace)
    except RoleRequired:
        return False
    return True
