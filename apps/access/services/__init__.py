"""The only writers of workspaces, users, principals, tokens and sessions."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.access.models import (
    Membership,
    Principal,
    PrincipalKind,
    Role,
    Token,
    User,
    Workspace,
)
from apps.access.policies import EVERYTHING, check_role, covers
from apps.access.queries import DEFAULT_SLUG, token_digest
from apps.access.services.answers import (
    begin_answer as begin_answer,
)
from apps.access.services.answers import (
    finish_answer as finish_answer,
)
from apps.access.services.answers import (
    hold_answer as hold_answer,
)
from apps.access.services.answers import (
    release_answer as release_answer,
)
from apps.access.services.bearers import (
    enter_by_token as enter_by_token,
)
from apps.access.services.people import (
    activate_user as activate_user,
)
from apps.access.services.people import (
    change_password as change_password,
)
from apps.access.services.people import (
    check_password_strength,
    follow_role,
)
from apps.access.services.people import (
    deactivate_user as deactivate_user,
)
from apps.access.services.people import (
    reset_password as reset_password,
)
from apps.access.services.people import (
    set_role as set_role,
)
from apps.access.services.sessions import (
    end_session as end_session,
)
from apps.access.services.sessions import (
    open_session as open_session,
)
from apps.audit import services as audit
from apps.common import clock, ids
from apps.common.errors import Denied, FieldProblem, Invalid, NotFound

FROM_ENVIRONMENT = "POLAR_UI_API_SECRET"
#: Shorter secrets can be guessed. Units: characters, at ≥ 5 bits each.
SHORTEST_UI_SECRET = 26
LONGEST_NAME = 150
#: "*", "area:*", "area:verb", "act_as:workspace".
SCOPE = re.compile(r"\*|[a-z_]{1,40}:(\*|[a-zA-Z0-9_-]{1,64})")
LONGEST_TOKEN_NAME = 120
#: Units: requests a minute.
FASTEST = 600_000


@dataclass(frozen=True, slots=True)
class NewUser:
    """A person to be let in."""

    username: str
    password: str = field(repr=False)
    role: Role
    workspace: Workspace
    is_staff: bool = True


def ensure_default_workspace() -> Workspace:
    """Return the default workspace, making it at first use."""
    row, _ = Workspace.objects.get_or_create(
        slug=DEFAULT_SLUG, defaults={"name": "Default"}
    )
    return row


def system_principal() -> Principal:
    """Return the principal of Polar itself, making it at first use."""
    return _principal("system", PrincipalKind.SYSTEM, "polar")


def principal_for_user(*, user: User) -> Principal:
    """Return a person's principal, making it at first use.

    Reads: once for each object of a user, as a request has one.
    """
    with contextlib.suppress(Principal.DoesNotExist):
        return user.principal
    row, _ = Principal.objects.get_or_create(
        key=f"user:{user.id}",
        defaults={
            "kind": PrincipalKind.HUMAN,
            "label": user.username,
            "user": user,
        },
    )
    return row


def principal_for_agent(*, slug: str, workspace: Workspace) -> Principal:
    """Return an agent's principal in a workspace, making it at first use."""
    key = f"agent:{workspace.slug}:{slug}"
    return _principal(key, PrincipalKind.AGENT, f"@{slug}", workspace)


def principal_for_automation(
    *, key: str, label: str, workspace: Workspace
) -> Principal:
    """Return an automation's principal in a workspace, making it at first use."""
    full_key = f"automation:{workspace.slug}:{key}"
    return _principal(full_key, PrincipalKind.AUTOMATION, label, workspace)


@transaction.atomic
def create_user(*, by: Principal, new: NewUser) -> User:
    """Let a person in, with one role in one workspace.

    Raises: RoleRequired below admin; Invalid naming the field.
    """
    check_role(by, Role.ADMIN, new.workspace)
    _check_new_user(new)
    user = User.objects.create_user(
        username=new.username, password=new.password, is_staff=new.is_staff
    )
    Membership.objects.create(user=user, workspace=new.workspace, role=new.role)
    follow_role(user=user)
    user.refresh_from_db()
    principal_for_user(user=user)
    audit.record(
        type="user.created",
        actor=by.actor,
        subject=("user", str(user.id)),
        workspace_id=new.workspace.id,
        data={"username": user.username, "role": str(new.role)},
    )
    return user


@transaction.atomic
def issue_token(
    *,
    by: Principal,
    principal: Principal,
    name: str,
    scopes: Iterable[str],
    held: frozenset[str],
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """Make a token and return it with its plaintext, shown once.

    Raises: Denied when the caller holds less than the token would.
    """
    wanted = frozenset(scopes)
    _check_new_token(by, principal, name, wanted)
    if expires_at is not None and expires_at <= clock.now():
        problem = FieldProblem("expiresAt", "over", "a time to come")
        raise Invalid("This token would be over already.", fields=(problem,))
    if not covers(held, wanted):
        raise Denied(
            "A token cannot reach further than its maker.",
            wanted=sorted(wanted),
            held=sorted(held),
        )
    raw = ids.new_token()
    token = Token.objects.create(
        principal=principal,
        name=name,
        digest=token_digest(raw),
        scopes=sorted(wanted),
        expires_at=expires_at,
    )
    audit.record(
        type="token.issued",
        actor=by.actor,
        subject=("token", str(token.id)),
        data={"name": name, "scopes": sorted(wanted), "for": principal.key},
    )
    return token, raw


@transaction.atomic
def revoke_token(*, by: Principal, token_id: UUID) -> None:
    """End a token everywhere at once: one's own, or any as an administrator.

    Raises: NotFound, also for a token that is not theirs to see.
    Again: does nothing.
    """
    found = Token.objects.filter(id=token_id)
    owner = found.values_list("principal_id", flat=True).first()
    if owner is None or (owner != by.id and not _is_admin(by)):
        raise NotFound("There is no such token.")
    if found.filter(revoked_at__isnull=True).update(revoked_at=clock.now()):
        audit.record(
            type="token.revoked", actor=by.actor, subject=("token", str(token_id))
        )


@transaction.atomic
def limit_token(*, by: Principal, token_id: UUID, rate_per_minute: int) -> Token:
    """Say how many requests a minute a token may send.

    Raises: RoleRequired below admin; NotFound; Invalid. Again: does nothing.
    """
    check_role(by, Role.ADMIN, ensure_default_workspace())
    if not 1 <= rate_per_minute <= FASTEST:
        problem = FieldProblem("ratePerMinute", "out of range", f"1 to {FASTEST}")
        raise Invalid("A token cannot have this rate.", fields=(problem,))
    rows = Token.objects.filter(id=token_id)
    if rows.exclude(rate_per_minute=rate_per_minute).update(
        rate_per_minute=rate_per_minute
    ):
        audit.record(
            type="token.limited",
            actor=by.actor,
            subject=("token", str(token_id)),
            data={"rate_per_minute": rate_per_minute},
        )
    found = rows.select_related("principal").first()
    if found is None:
        raise NotFound("There is no such token.")
    return found


@transaction.atomic
def sync_ui_secret(*, secret: str) -> Token | None:
    """Make `POLAR_UI_API_SECRET` the one admin token that has its name.

    Writes: Token; a secret that changed or vanished revokes the one before.
    Again: the same secret changes nothing.
    """
    before = Token.objects.filter(source="env", revoked_at__isnull=True)
    system = system_principal()
    if secret and len(secret) < SHORTEST_UI_SECRET:
        raise Invalid(
            f"{FROM_ENVIRONMENT} is too short to be safe.",
            fields=(
                FieldProblem(FROM_ENVIRONMENT, "too short", "at least 26 characters"),
            ),
        )
    digest = token_digest(secret) if secret else ""
    for token in before.exclude(digest=digest):
        revoke_token(by=system, token_id=token.id)
    if not secret:
        return None
    token, made = Token.objects.get_or_create(
        digest=digest,
        defaults={
            "principal": system,
            "name": FROM_ENVIRONMENT,
            "scopes": [EVERYTHING],
            "source": "env",
        },
    )
    # An earlier secret that was put back counts again: the environment decides.
    gone = Token.objects.filter(id=token.id, source="env", revoked_at__isnull=False)
    if gone.update(revoked_at=None) or made:
        audit.record(
            type="token.issued",
            actor=system.actor,
            subject=("token", str(token.id)),
            data={"name": FROM_ENVIRONMENT, "scopes": [EVERYTHING], "for": system.key},
        )
    return token


def _is_admin(by: Principal) -> bool:
    if by.kind == PrincipalKind.SYSTEM:
        return True
    return Membership.objects.filter(user__principal=by, role=Role.ADMIN).exists()


def _check_new_token(
    by: Principal, principal: Principal, name: str, wanted: frozenset[str]
) -> None:
    if principal.id != by.id and not _is_admin(by):
        raise Denied("Only an administrator makes a token for somebody else.")
    problems = []
    if not 0 < len(name.strip()) <= LONGEST_TOKEN_NAME or not name.isprintable():
        expected = f"1 to {LONGEST_TOKEN_NAME} characters"
        problems.append(FieldProblem("name", "cannot be a name", expected))
    if not wanted or not all(SCOPE.fullmatch(each) for each in wanted):
        problems.append(FieldProblem("scopes", "not scopes", "such as runs:read"))
    if problems:
        raise Invalid("This token cannot be made.", fields=tuple(problems))


def _principal(
    key: str, kind: PrincipalKind, label: str, workspace: Workspace | None = None
) -> Principal:
    row, _ = Principal.objects.get_or_create(
        key=key, defaults={"kind": kind, "label": label, "workspace": workspace}
    )
    return row


def _check_new_user(new: NewUser) -> None:
    if User.objects.filter(username=new.username).exists():
        raise Invalid(
            "This user name is taken.",
            fields=(FieldProblem("username", "taken", "another name"),),
        )
    try:
        User.username_validator(new.username)
    except ValidationError as error:
        raise Invalid(
            "This user name cannot be one.",
            fields=(FieldProblem("username", " ".join(error.messages)),),
        ) from error
    if len(new.username) > LONGEST_NAME:
        raise Invalid(f"A user name has at most {LONGEST_NAME} characters.")
    check_password_strength(new.password)
