"""The second factor: an authenticator's codes, and recovery codes for its loss.

Invariants: the key lies in the vault alone; a code of a time step that was used
opens nothing again, nor does any older one; recovery codes are kept as hashes.
Source: RFC 6238.
"""

import hashlib
import io
import secrets
from uuid import UUID

import pyotp
import segno
from django.db import transaction
from django.urls import reverse

from apps.access.models import (
    AccessPolicy,
    Membership,
    Principal,
    RecoveryCode,
    Role,
    SecondFactor,
    SignIn,
    User,
)
from apps.access.policies import check_role
from apps.access.queries import default_workspace, has_second_factor
from apps.access.services import sessions
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import Actor
from apps.common.errors import Conflict, Denied
from apps.vault import services as vault
from apps.vault.ports import Place

RECOVERY_CODES = 10
#: 80 random bits in hex. Units: bytes.
RECOVERY_BYTES = 10
#: Units: seconds per code, and how many steps a clock may be off.
STEP_SECONDS, DRIFT_STEPS = 30, 1
PURPOSE = "second factor"


@transaction.atomic
def begin(*, user: User) -> str:
    """Make a key for an authenticator and return it, to be shown once.

    Writes: SecondFactor, unconfirmed; the vault.   Raises: Conflict when one is
    confirmed already; VaultSealed.   Again: a new key replaces the unconfirmed one.
    """
    if has_second_factor(user):
        raise Conflict("There is a second factor already: remove it first.")
    key = pyotp.random_base32(32)
    secret = vault.put(
        by=user.principal.actor,
        name=f"second-factor:{user.id}",
        purpose=PURPOSE,
        value=key,
    )
    SecondFactor.objects.update_or_create(
        user=user, defaults={"secret": secret, "confirmed_at": None, "last_step": 0}
    )
    _record("second_factor.begun", user.principal.actor, user)
    return key


def picture(*, user: User, key: str) -> str:
    """Draw the key as a QR code for an authenticator. Shape: SVG."""
    uri = pyotp.TOTP(key).provisioning_uri(name=user.username, issuer_name="Polar")
    drawn = io.BytesIO()
    segno.make(uri, error="m").save(
        drawn, kind="svg", scale=5, xmldecl=False, light="#fff", omitsize=False
    )
    return drawn.getvalue().decode()


def confirm(*, user: User, code: str) -> list[str]:
    """Prove that the authenticator works; returns the recovery codes, shown once.

    Raises: Denied for a wrong code; Conflict when nothing waits for one.
    """
    factor = SecondFactor.objects.filter(user=user, confirmed_at__isnull=True).first()
    if factor is None:
        raise Conflict("No second factor waits to be confirmed.")
    step = _matching_step(factor, code)
    codes = [secrets.token_hex(RECOVERY_BYTES) for _ in range(RECOVERY_CODES)]
    with transaction.atomic():
        waiting = SecondFactor.objects.filter(
            id=factor.id, secret=factor.secret_id, confirmed_at__isnull=True
        )
        if not waiting.update(confirmed_at=clock.now(), last_step=step):
            raise Conflict("It was confirmed meanwhile.")
        RecoveryCode.objects.filter(user=user).delete()
        RecoveryCode.objects.bulk_create(
            RecoveryCode(user=user, digest=_digest(each)) for each in codes
        )
        _record("second_factor.confirmed", user.principal.actor, user)
    return codes


def check(*, user: User, code: str) -> None:
    """Let somebody through who knows a fresh code, or an unused recovery code.

    Raises: Denied; VaultSealed, while recovery codes still work.
    """
    plain = "".join(code.split()).lower()
    if len(plain) == 2 * RECOVERY_BYTES:
        _spend_recovery_code(user, plain)
        return
    factor = SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).first()
    if factor is None:
        raise Denied("There is no second factor.")
    step = _matching_step(factor, plain)
    fresh = SecondFactor.objects.filter(id=factor.id, last_step__lt=step)
    if not fresh.update(last_step=step):
        raise Denied("This code was used already: wait for the next one.")


@transaction.atomic
def remove(*, by: Principal, user: User, reason: str = "") -> None:
    """Take a second factor away: one's own, or as an administrator another's.

    The sessions of somebody else end. Again: does nothing.
    """
    if by.user_id != user.id:
        check_role(by, Role.ADMIN, default_workspace())
        sessions.close_all(user=user)
    factor = SecondFactor.objects.filter(user=user).first()
    if factor is None:
        return
    secret_id = factor.secret_id
    factor.delete()
    RecoveryCode.objects.filter(user=user).delete()
    vault.delete(by=by.actor, secret_id=secret_id, reason="second factor removed")
    _record("second_factor.removed", by.actor, user, reason)


@transaction.atomic
def require_second_factor(*, by: Principal, required: bool, reason: str = "") -> None:
    """Demand a second factor of approvers and administrators, or no longer.

    Sessions of those who have none end, so that they set one up. Again: nothing.
    """
    check_role(by, Role.ADMIN, default_workspace())
    AccessPolicy.load()
    rows = AccessPolicy.objects.exclude(second_factor_required=required)
    if not rows.update(second_factor_required=required):
        return
    if required:
        lacking = Membership.objects.filter(
            role__in=[Role.APPROVER, Role.ADMIN]
        ).exclude(user__second_factor__confirmed_at__isnull=False)
        ids = SignIn.objects.filter(
            ended_at__isnull=True, user__in=lacking.values("user")
        )
        for user in User.objects.filter(sign_ins__in=ids).distinct():
            sessions.close_all(user=user)
    audit.record(
        type="access.policy_set",
        actor=by.actor,
        reason=reason,
        data={"second_factor_required": required},
    )


def place_of_factor(purpose: str, secret_id: UUID) -> Place | None:
    """Tell the vault whose authenticator a key belongs to. Nobody types it again."""
    if purpose != PURPOSE:
        return None
    factor = SecondFactor.objects.filter(secret_id=secret_id).first()
    if factor is None:
        return None
    name = factor.user.username
    return Place(
        used_by=f"the second factor of {name}",
        page=reverse("access:users"),
        command=f"./polar access users drop-factor {name}",
        instead=f"Remove the second factor of {name}, who then sets up another.",
    )


def _matching_step(factor: SecondFactor, code: str) -> int:
    """Return the time step whose code this is. Raises: Denied."""
    now = int(clock.now().timestamp()) // STEP_SECONDS
    with vault.lease(
        factor.secret_id, purpose=PURPOSE, by=Actor("system", "access", "polar")
    ) as key:
        totp = pyotp.TOTP(key.reveal())
        steps = range(now + DRIFT_STEPS, now - DRIFT_STEPS - 1, -1)
        for step in steps:
            if secrets.compare_digest(
                totp.at(step * STEP_SECONDS).encode(), code.encode()
            ):
                return step
    raise Denied("This code is not right.")


@transaction.atomic
def _spend_recovery_code(user: User, code: str) -> None:
    unused = RecoveryCode.objects.filter(
        user=user, digest=_digest(code), used_at__isnull=True
    )
    if not unused.update(used_at=clock.now()):
        raise Denied("This code is not right.")
    _record("second_factor.recovery_used", user.principal.actor, user)


def _digest(code: str) -> str:
    return hashlib.sha256(b"polar-recovery\0" + code.encode()).hexdigest()


def _record(type: str, by: Actor, user: User, reason: str = "") -> None:
    audit.record(
        type=type,
        actor=by,
        subject=("user", str(user.id)),
        reason=reason,
        data={"username": user.username},
    )
