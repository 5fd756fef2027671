"""Recovery kits, and the ways back from a lost key.

A kit is a public key here and a private part that is shown once. With it, `recover`
wraps every data key for the first key of the ring. Without one, `accept_loss` says
which secrets are gone, and the checklist leads through entering them again.
Nothing here deletes a ciphertext: an old key that turns up opens what it opened.
"""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from apps.audit import services as audit
from apps.common import clock, failpoints
from apps.common.actor import Actor
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.vault import policies, ports
from apps.vault.engine import rescue, rewrapping
from apps.vault.engine.rescue import RescueKey
from apps.vault.errors import BadKeyRing, BadRecovery
from apps.vault.models import (
    Key,
    Recovery,
    RecoveryForm,
    RotationKind,
    Secret,
    Wrap,
)
from apps.vault.policies import Verdict
from apps.vault.services.rotation import Progress, begin
from apps.vault.services.secrets import adopt_first_key

CODE_CHARS = 16


@dataclass(frozen=True, slots=True)
class Kit:
    """A new kit. `lines` is the private part: show it once, keep it nowhere."""

    recovery: Recovery
    lines: tuple[str, ...] = field(repr=False)


@transaction.atomic
def make_kit(*, by: Actor, form: str) -> Kit:
    """Make a recovery recipient and begin to wrap every data key for it.

    Raises: VaultSealed; Invalid for an unknown form; Conflict while other work
    over every secret is open.
    """
    if form not in RecoveryForm.values:
        problem = FieldProblem("form", f"unknown: {form!r}", "offline or shares")
        raise Invalid("There is no such recovery kit.", fields=(problem,))
    verdict = policies.judge()
    verdict.require_open()
    key = rescue.new_key()
    adopt_first_key(verdict, by)
    made = Recovery.objects.create(
        recipient=key.recipient, form=form, public_key=key.public
    )
    audit.record(
        type="vault.recovery_made",
        actor=by,
        subject=("recovery", made.recipient),
        data={"form": form},
    )
    begin(by=by, kind=RotationKind.ENROL, reason=f"recovery kit: {form}")
    shares = form == RecoveryForm.SHARES
    return Kit(made, tuple(key.as_shares() if shares else [key.as_text()]))


@transaction.atomic
def drop_kit(*, by: Actor, recovery_id: UUID, reason: str) -> None:
    """Stop wrapping for a kit, and remove its wraps. Again: does nothing."""
    kit = Recovery.objects.filter(pk=recovery_id).first()
    if kit is None:
        raise NotFound("There is no such recovery kit.")
    mine = Recovery.objects.filter(pk=kit.pk, dropped_at=None)
    if mine.update(dropped_at=clock.now()):
        removed, _ = Wrap.objects.filter(recipient=kit.recipient).delete()
        audit.record(
            type="vault.recovery_dropped",
            actor=by,
            subject=("recovery", kit.recipient),
            reason=reason,
            data={"wraps": removed},
        )


@transaction.atomic
def verify_backup(*, by: Actor, text: str) -> str:
    """Compare what was backed up with what is in use, and note the date.

    `text` is a key, its check code, an offline recovery key, or three shares.
    Returns what it proved to be, such as "key:k1".   Raises: Invalid.
    """
    proved = _prove_key(text) or _prove_kit(text)
    if not proved:
        raise Invalid(
            "This belongs to no key and no recovery kit of this vault.",
            fields=(
                FieldProblem(
                    "backup",
                    "unknown",
                    "a vault key, its check code, an offline key or three shares",
                ),
            ),
        )
    audit.record(type="vault.backup_verified", actor=by, subject=("backup", proved))
    return proved


def recover(*, by: Actor, kept: str) -> Progress:
    """Wrap every data key for the first key of the ring, opened with a kit.

    The ring holds the new key; what is done stays done, so after a kill the same
    call goes on.   Raises: BadRecovery, VaultSealed.
    """
    key = rescue.read_key(kept)
    if not Recovery.objects.filter(recipient=key.recipient).exists():
        raise BadRecovery("This key belongs to no recovery kit of this vault.")
    since, total, lost = clock.now(), 0, 0
    while True:
        failpoints.reach("vault.recover")
        with transaction.atomic():
            verdict = policies.judge_rescue()
            verdict.require_open()
            adopt_first_key(verdict, by)
            batch = rewrapping.rescue_rows(
                _rescuable(verdict, key, since), verdict=verdict, key=key
            )
            total, lost = total + batch.done, lost + len(batch.unreadable)
            if not batch.done and not batch.unreadable:
                _note_recovered(key, by, total=total, lost=lost)
                return Progress("recover", "done", total, 0, lost)


@transaction.atomic
def accept_loss(*, by: Actor, reason: str) -> int:
    """Say that the missing keys are gone; the vault opens for entering anew.

    Returns how many secrets must be entered again.   Raises: VaultSealed for any
    trouble other than a missing key; Conflict when no key is missing.
    """
    if not reason.strip():
        problem = FieldProblem("reason", "empty", "how the key was lost")
        raise Invalid("Accepting a loss needs a reason.", fields=(problem,))
    verdict = policies.judge_rescue()
    verdict.require_open()
    mine = Wrap.objects.filter(secret=OuterRef("pk"))
    held = [key.recipient for key in verdict.ring.keys]
    lost = Secret.objects.filter(~Exists(mine.filter(recipient__in=held)))
    count = lost.filter(lost_at=None).update(
        lost_at=clock.now(), unreadable_since=clock.now()
    )
    if not count:
        raise Conflict("No secret is lost: the ring holds a key of every one.")
    adopt_first_key(verdict, by)
    gone = Key.objects.filter(lost_at=None, retired_at=None)
    gone = gone.exclude(kid__in=verdict.ring.kids)
    kids = sorted(gone.values_list("kid", flat=True))
    gone.update(lost_at=clock.now())
    audit.record(
        type="vault.loss_accepted",
        actor=by,
        reason=reason,
        data={"secrets": count, "kids": kids},
    )
    return count


def _rescuable(verdict: Verdict, key: RescueKey, since: datetime) -> QuerySet[Secret]:
    rows = rewrapping.rescuable(kid=verdict.ring.primary.kid, key=key)
    return rewrapping.untried(rows, since)


def _note_recovered(key: RescueKey, by: Actor, *, total: int, lost: int) -> None:
    """The last batch was empty: note the proof, forget the loss, wake who waited."""
    now = clock.now()
    Recovery.objects.filter(recipient=key.recipient).update(proved_at=now)
    first = policies.judge_rescue().ring.primary
    mine = Wrap.objects.filter(secret=OuterRef("pk"), recipient=first.recipient)
    opened = Secret.objects.filter(Exists(mine), unreadable_since__isnull=False)
    opened.update(unreadable_since=None, lost_at=None)
    audit.record(
        type="vault.recovered",
        actor=by,
        subject=("recovery", key.recipient),
        data={"secrets": total, "unreadable": lost, "kid": first.kid},
    )
    ports.ring_unsealed()


def _prove_key(text: str) -> str:
    """Find the key that a backed-up key or a check code belongs to, or ""."""
    plain = text.strip()
    now = clock.now()
    try:
        given = ports.parse_key(plain)
    except BadKeyRing:
        kid = _kid_of_code(plain)
    else:
        kids = Key.objects.filter(kcv=given.kcv, retired_at=None)
        kid = kids.values_list("kid", flat=True).first() or ""
    if kid and Key.objects.filter(kid=kid).update(backup_proved_at=now):
        return f"key:{kid}"
    return ""


def _kid_of_code(code: str) -> str:
    """A check code can only be compared with a key of the ring."""
    plain = code.replace("-", "").replace(" ", "").lower()
    if len(plain) != CODE_CHARS:
        return ""
    ring = policies.judge_ring().ring
    return next((key.kid for key in ring.keys if key.check_code == plain), "")


def _prove_kit(text: str) -> str:
    try:
        key = rescue.read_key(text)
    except BadRecovery:
        return ""
    mine = Recovery.objects.filter(recipient=key.recipient, dropped_at=None)
    return key.recipient if mine.update(proved_at=clock.now()) else ""
