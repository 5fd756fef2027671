"""Reads of who is who. Never writes."""

import hashlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet

from apps.common import clock
from apps.common.errors import NotFound, Unauthenticated

from . import ports
from .models import (
    AccessPolicy,
    ExternalIdentity,
    Membership,
    Principal,
    PrincipalKind,
    Role,
    SecondFactor,
    SignIn,
    Token,
    User,
    Workspace,
)
from .policies import Authenticated, narrow

DEFAULT_SLUG = "default"

#: What a signed-in person may do through the API, by role: what their pages show and
#: do. An operation may ask for a higher role than its scope does.
ROLE_SCOPES = {
    Role.VIEWER: frozenset(
        {
            "runs:read",
            "agents:read",
            "approvals:read",
            "audit:read",
            "boards:read",
            "budgets:read",
            "channels:read",
            "extensions:read",
            "grants:read",
            "halt:read",
            "providers:read",
            "store:read",
            "tokens:*",
        }
    ),
    Role.OPERATOR: frozenset(
        {
            "runs:*",
            "agents:*",
            "providers:read",
            "providers:write",
            "store:*",
            "audit:read",
            "boards:*",
            "channels:*",
            "halt:*",
            "extensions:*",
            "approvals:read",
            "grants:*",
            "config:read",
            "tokens:*",
            "budgets:read",
        }
    ),
    Role.APPROVER: frozenset(
        {
            "runs:*",
            "agents:*",
            "providers:*",
            "store:*",
            "audit:*",
            "boards:*",
            "channels:*",
            "halt:*",
            "approvals:*",
            "extensions:*",
            "grants:*",
            "config:read",
            "tokens:*",
            "budgets:*",
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
    scopes = frozenset(found.scopes)
    if found.principal.kind == PrincipalKind.HUMAN:
        # A token reaches no further than its owner does now; to act for others is
        # given by an administrator and holds only where its owner belongs.
        acting = {scope for scope in scopes if scope.startswith("act_as:")}
        scopes = narrow(scopes, _scopes_of(found.principal.user_id)) | acting
    return Authenticated(found.principal, scopes, found)


def was_token(raw: str) -> bool:
    """Tell whether this was a token once: then using it is no guess."""
    return Token.objects.filter(digest=token_digest(raw)).exists()


def still_enters(auth: Authenticated) -> bool:
    """Tell whether what let somebody in still would: asked while a stream is open."""
    if auth.token is not None:
        return Token.objects.live(clock.now()).filter(id=auth.token.id).exists()
    return Principal.objects.filter(id=auth.principal.id, is_active=True).exists()


def authenticated_user(user: User) -> Authenticated:
    """Describe a signed-in person as the API sees them."""
    principal = Principal.objects.filter(user=user, is_active=True).first()
    if principal is None:
        raise Unauthenticated("This account has no principal.")
    return Authenticated(principal, _scopes_of(user.id))


def _scopes_of(user_id: UUID | None) -> frozenset[str]:
    if user_id is None:
        return frozenset()
    roles = Membership.objects.filter(user_id=user_id).values_list("role", flat=True)
    return frozenset[str]().union(*(ROLE_SCOPES[Role(role)] for role in roles))


def standing(
    principal: Principal, workspace_id: UUID
) -> Callable[[], tuple[bool, bool]]:
    """Ask whether a principal is active, and whether it belongs to a workspace.

    Reads: one plain statement, as every call asks it; in a transaction it travels
    with the next.   Shape: what is called for the two answers.
    """
    prepare = Principal._meta.pk.get_db_prep_value
    ids = [prepare(workspace_id, connection), prepare(principal.id, connection)]
    here: Any = connection  # a method of our own backends
    found = here.execute_later(_STANDING, ids)
    return lambda: _stands(found(), workspace_id)


def _stands(row: Any, workspace_id: UUID) -> tuple[bool, bool]:
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


def people_of(workspace: Workspace) -> QuerySet[Membership]:
    """Return who belongs to a workspace, with role, by name."""
    return (
        Membership.objects.filter(workspace=workspace)
        .select_related(
            "user__principal", "user__second_factor", "user__external_identity"
        )
        .order_by("user__username", "id")
    )


def find_user(name: str, workspace: Workspace) -> User | None:
    """Find a person of a workspace by their name."""
    return User.objects.filter(
        username=name.replace("\0", ""), memberships__workspace=workspace
    ).first()


def tokens_for(principal: Principal) -> QuerySet[Token]:
    """Return the tokens somebody may see: an administrator all, others their own."""
    rows = Token.objects.select_related("principal")
    admin = Membership.objects.filter(user__principal=principal, role=Role.ADMIN)
    if principal.kind == PrincipalKind.SYSTEM or admin.exists():
        return rows
    return rows.filter(principal=principal)


def open_sessions(user: User) -> QuerySet[SignIn]:
    """Return a person's sessions that go on, newest first."""
    return SignIn.objects.filter(user=user, ended_at__isnull=True).order_by("-id")


def has_second_factor(user: User) -> bool:
    return SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists()


def needs_second_factor(user: User) -> bool:
    """Tell whether policy demands a second factor of this person."""
    if not AccessPolicy.objects.filter(second_factor_required=True).exists():
        return False
    weighty = [Role.APPROVER, Role.ADMIN]
    return Membership.objects.filter(user=user, role__in=weighty).exists()


def sign_on() -> ports.SignOn | None:
    """Return where people may sign on; None when nowhere, or not wholly set up."""
    setup = ports.written_sign_on()
    return setup if setup.issuer and not sign_on_problems(setup) else None


def sign_on_problems(setup: ports.SignOn) -> list[str]:
    """Tell what keeps a set-up from being used, by the name of the setting."""
    if not setup.issuer:
        return []
    told = {
        "ISSUER must be the https:// address of the identity provider, or http:// "
        "at a host:port of POLAR_OIDC_LOCAL": setup.is_safe(setup.issuer),
        "CLIENT_ID is not set": bool(setup.client_id),
        "SCOPES must have openid": ports.OPENID in setup.scopes.split(),
        "ROLE_CLAIM is not set": bool(setup.role_claim),
        "ROLES must give a role to at least one value of the claim, as "
        '{"value": "role"}': bool(setup.roles),
        f"ROLES knows {', '.join(Role.values)}": all(
            each in Role.values for each in setup.roles.values()
        ),
    }
    return [f"POLAR_OIDC_{problem}." for problem, is_met in told.items() if not is_met]


def signs_on_elsewhere(user: User) -> bool:
    """Tell whether the identity provider says who this person is and what they may."""
    setup = sign_on()
    return (
        setup is not None
        and ExternalIdentity.objects.filter(user=user, issuer=setup.issuer).exists()
    )
