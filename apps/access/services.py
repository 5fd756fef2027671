"""The only writers of workspaces, users, principals and tokens."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from apps.audit import services as audit
from apps.common import clock, ids
from apps.common.errors import Denied, FieldProblem, Invalid, NotFound

from .models import Membership, Principal, PrincipalKind, Role, Token, User, Workspace
from .policies import EVERYTHING, check_role, covers
from .queries import DEFAULT_SLUG, token_digest

FROM_ENVIRONMENT = "POLAR_UI_API_SECRET"
#: Shorter secrets can be guessed. Units: characters, at ≥ 5 bits each.
SHORTEST_UI_SECRET = 26


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
    """Return a person's principal, making it at first use."""
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
    user.is_superuser = new.role == Role.ADMIN and new.is_staff
    user.save(update_fields=["is_superuser"])
    Membership.objects.create(user=user, workspace=new.workspace, role=new.role)
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
    """End a token everywhere at once. Again: does nothing."""
    found = Token.objects.filter(id=token_id)
    if not found.exists():
        raise NotFound("There is no such token.")
    if found.filter(revoked_at__isnull=True).update(revoked_at=clock.now()):
        audit.record(
            type="token.revoked", actor=by.actor, subject=("token", str(token_id))
        )


def note_use(*, token: Token) -> None:
    """Remember when a token was last used, at most once a minute."""
    now = clock.now()
    if token.last_used_at is None or (now - token.last_used_at).seconds >= 60:
        Token.objects.filter(id=token.id).update(last_used_at=now)


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
    if made:
        audit.record(
            type="token.issued",
            actor=system.actor,
            subject=("token", str(token.id)),
            data={"name": FROM_ENVIRONMENT, "scopes": [EVERYTHING], "for": system.key},
        )
    return token


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
        validate_password(new.password)
    except ValidationError as error:
        raise Invalid(
            "This password is too weak.",
            fields=(FieldProblem("password", " ".join(error.messages)),),
        ) from error
