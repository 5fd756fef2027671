"""Reads of who is who. Never writes."""

import hashlib
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet

from apps.common import clock
from apps.common.errors import NotFound, Unauthenticated

from .models import Membership, Principal, PrincipalKind, Role, Token, User, Workspace
from .policies import Authenticated

DEFAULT_SLUG = "default"

#: What a signed-in person may do through the API, by role.
ROLE_SCOPES = {
    Role.VIEWER: frozenset(
        {"runs:read", "agents:read", "providers:read", "extensions:read"}
    ),
    Role.OPERATOR: frozenset(
        {
            "runs:*",
            "agents:*",
            "providers:read",
            "audit:read",
            "boards:*",
            "halt:*",
            "extensions:*",
            "approvals:read",
            "grants:*",
        }
    ),
    Role.APPROVER: frozenset(
        {
            "runs:*",
            "agents:*",
            "providers:*",
            "audit:*",
            "boards:*",
            "halt:*",
            "approvals:*",
            "extensions:*",
            "grants:*",
        }
    ),
    Role.ADMIN: frozenset({"*"}),
}

_STANDING = """
    SELECT principal.is_active, principal.kind, principal.workspace_id,
           (SELECT count(*) FROM access_membership membership
             WHERE membership.user_id = principal.user_id
               AND membership.workspace_id = %s)
      FROM access_principal principal WHERE principal.id = %s
"""


def token_digest(raw: str) -> str:
    """Hash a token for lookup; tokens are random, so no slow hash is needed."""
    return hashlib.sha256(b"polar-token\0" + raw.encode()).hexdigest()


def authenticate(raw: str) -> Authenticated:
    """Find the live token behind a bearer value.

    Reads: Token, one indexed row, on every request: nothing is cached, so a
    revocation holds at once.   Raises: Unauthenticated.
    """
    found = (
        Token.objects.live(clock.now())
        .filter(digest=token_digest(raw))
        .select_related("principal__workspace")
        .first()
    )
    if found is None:
        raise Unauthenticated("This token is unknown, expired or revoked.")
    return Authenticated(found.principal, frozenset(found.scopes), found)


def authenticated_user(user: User) -> Authenticated:
    """Describe a signed-in person as the API sees them."""
    principal = Principal.objects.filter(user=user, is_active=True).first()
    if principal is None:
        raise Unauthenticated("This account has no principal.")
    roles = Membership.objects.filter(user=user).values_list("role", flat=True)
    scopes = frozenset[str]().union(*(ROLE_SCOPES[Role(role)] for role in roles))
    return Authenticated(principal, scopes)


def standing(principal: Principal, workspace_id: UUID) -> tuple[bool, bool]:
    """Tell whether a principal is active, and whether it belongs to a workspace.

    Reads: one plain statement, as every call asks it.
    """
    prepare = Principal._meta.pk.get_db_prep_value
    ids = [prepare(workspace_id, connection), prepare(principal.id, connection)]
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, ids)
        row = cursor.fetchone()
    if row is None:
        return False, False
    is_active, kind, home, memberships = row
    belongs = {
        PrincipalKind.SYSTEM: True,
        PrincipalKind.HUMAN: memberships > 0,
    }.get(kind, str(home).replace("-", "") == workspace_id.hex)
    return bool(is_active), belongs


def default_workspace() -> Workspace:
    """Return the workspace of a fresh install. Raises: NotFound before set-up."""
    found = Workspace.objects.filter(slug=DEFAULT_SLUG).first()
    if found is None:
        raise NotFound("There is no default workspace yet; run ./polar seed_demo.")
    return found


def workspaces_of(principal: Principal) -> QuerySet[Workspace]:
    """Return the workspaces a principal belongs to."""
    if principal.kind == PrincipalKind.SYSTEM:
        return Workspace.objects.order_by("slug")
    if principal.kind == PrincipalKind.HUMAN:
        mine = Membership.objects.filter(user__principal=principal)
        return Workspace.objects.filter(id__in=mine.values("workspace")).order_by(
            "slug"
        )
    return Workspace.objects.filter(principal=principal)


def find_principal(ident: str) -> Principal | None:
    """Find a principal by its own id or by its user's."""
    try:
        key = UUID(ident)
    except ValueError:
        return None
    return Principal.objects.filter(Q(id=key) | Q(user_id=key)).first()
