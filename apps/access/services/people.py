"""Changing people: their role, their password, whether they may enter at all.

Invariants: a workspace keeps an administrator; whoever is sent away loses every
session and every token in the same transaction.
"""

from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from apps.access.models import (
    Membership,
    Principal,
    Role,
    Token,
    User,
    Workspace,
)
from apps.access.policies import check_role
from apps.access.queries import signs_on_elsewhere
from apps.access.services import sessions
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, Denied, FieldProblem, Invalid, NotFound


@transaction.atomic
def set_role(*, by: Principal, user: User, role: str, workspace: Workspace) -> None:
    """Give a person another role. Holds at their next request.

    Raises: RoleRequired below admin; Conflict for the last administrator.
    """
    check_role(by, Role.ADMIN, workspace)
    if role not in Role.values:
        expected = ", ".join(Role.values)
        raise Invalid(
            f"There is no role {role!r}.",
            fields=(FieldProblem("role", "unknown", expected),),
        )
    _held_role(user, workspace)
    _check_kept_here(user)
    give_role(by=by, user=user, role=role, workspace=workspace)


@transaction.atomic
def give_role(
    *, by: Principal, user: User, role: str, workspace: Workspace, reason: str = ""
) -> None:
    """Make this a person's role, "" for none, whoever decided it. Again: nothing.

    Raises: Conflict for the last administrator.
    """
    rows = Membership.objects.filter(user=user, workspace=workspace)
    before = rows.values_list("role", flat=True).first() or ""
    if before == role:
        return
    if before == Role.ADMIN:
        _keep_an_admin(user, workspace)
    if not role:
        rows.delete()
    elif not rows.update(role=role):
        Membership.objects.create(user=user, workspace=workspace, role=role)
    follow_role(user=user)
    _record("user.role_set", by, user, reason, before=before, after=role)


@transaction.atomic
def deactivate_user(
    *, by: Principal, user: User, workspace: Workspace, reason: str = ""
) -> None:
    """Send a person away: sessions and tokens end at once. Again: does nothing."""
    check_role(by, Role.ADMIN, workspace)
    if _held_role(user, workspace) == Role.ADMIN:
        _keep_an_admin(user, workspace)
    if User.objects.filter(id=user.id, is_active=True).update(is_active=False):
        Principal.objects.filter(user=user).update(is_active=False)
        end_every_way_in(user=user)
        _record("user.deactivated", by, user, reason=reason)


def end_every_way_in(*, user: User) -> None:
    """End a person's sessions and tokens, in every process."""
    Token.objects.filter(principal__user=user, revoked_at__isnull=True).update(
        revoked_at=clock.now()
    )
    sessions.close_all(user=user)


@transaction.atomic
def activate_user(*, by: Principal, user: User, workspace: Workspace) -> None:
    """Let a person in again; tokens stay revoked. Again: does nothing."""
    check_role(by, Role.ADMIN, workspace)
    _held_role(user, workspace)
    if User.objects.filter(id=user.id, is_active=False).update(is_active=True):
        Principal.objects.filter(user=user).update(is_active=True)
        _record("user.activated", by, user)


@transaction.atomic
def reset_password(
    *, by: Principal, user: User, password: str, workspace: Workspace
) -> None:
    """Set somebody's password for them; their sessions end."""
    check_role(by, Role.ADMIN, workspace)
    _held_role(user, workspace)
    _check_kept_here(user)
    _set_password(by, user, password)
    sessions.close_all(user=user)


@transaction.atomic
def change_password(*, user: User, old: str, new: str, session_key: str = "") -> None:
    """Set one's own password; every other session of theirs ends.

    Raises: Denied for a wrong old password; Invalid for a weak new one.
    """
    if not user.check_password(old):
        raise Denied("The password of now is not right.")
    _set_password(user.principal, user, new)
    sessions.close_all(user=user, but=session_key)


def follow_role(*, user: User) -> None:
    """Make groups and flags of the admin site say what the roles say."""
    roles = set(Membership.objects.filter(user=user).values_list("role", flat=True))
    groups = [Group.objects.get_or_create(name=name)[0] for name in sorted(roles)]
    user.groups.set(groups)
    User.objects.filter(id=user.id).update(
        is_superuser=Role.ADMIN in roles and user.is_staff
    )


def check_password_strength(password: str, user: User | None = None) -> None:
    """Refuse a weak password. Raises: Invalid naming the field."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(
            "This password is too weak.",
            fields=(FieldProblem("password", " ".join(error.messages)),),
        ) from error
    if "\0" in password or len(password) > 1024:
        raise Invalid("This password cannot be stored.")


def _set_password(by: Principal, user: User, password: str) -> None:
    check_password_strength(password, user)
    user.set_password(password)
    user.save(update_fields=["password"])
    _record("user.password_set", by, user)


def _held_role(user: User, workspace: Workspace) -> str:
    """Raises: NotFound for somebody of another workspace."""
    found = Membership.objects.filter(user=user, workspace=workspace)
    role = found.values_list("role", flat=True).first()
    if role is None:
        raise NotFound(f"{user.username} is not in {workspace.slug}.")
    return role


def _check_kept_here(user: User) -> None:
    """Raises: Conflict for somebody whose role and door are another's to decide."""
    if signs_on_elsewhere(user):
        raise Conflict(
            f"{user.username} signs on at the identity provider, which says what they "
            "may: change it there."
        )


def _keep_an_admin(user: User, workspace: Workspace) -> None:
    """The row of the workspace is locked, so that two cannot remove each other."""
    Workspace.objects.select_for_update().get(id=workspace.id)
    others = Membership.objects.filter(
        workspace=workspace, role=Role.ADMIN, user__is_active=True
    ).exclude(user=user)
    if not others.exists():
        raise Conflict(f"{user.username} is the last administrator.")


def _record(
    type: str, by: Principal, user: User, reason: str = "", **data: object
) -> None:
    audit.record(
        type=type,
        actor=by.actor,
        subject=("user", str(user.id)),
        reason=reason,
        data={"username": user.username, **{k: str(v) for k, v in data.items()}},
    )
