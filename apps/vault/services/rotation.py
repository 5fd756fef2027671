"""Work over every secret while the vault serves: a new key, or new data keys.

A rotation is one row and whatever the secrets still lack; batches are taken by a
command, by the clock's tick, or by both at once, and a killed one leaves nothing
half done.
"""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import QuerySet

from apps.audit import services as audit
from apps.common import clock, failpoints
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import Conflict, FieldProblem, Invalid, PolarError
from apps.vault import policies, queries
from apps.vault.engine import rewrapping, store
from apps.vault.engine.rewrapping import BATCH, Batch
from apps.vault.errors import SecretUnreadable
from apps.vault.models import Key, Rotation, RotationKind, Secret, Wrap
from apps.vault.policies import Verdict
from apps.vault.services.secrets import adopt_first_key

#: How many batches one tick of the clock takes, so that other ticks come to turn.
BATCHES_PER_TICK = 5
NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rotation has come. `kind` is empty when none was ever begun."""

    kind: str = ""
    state: str = "none"
    total: int = 0
    remaining: int = 0
    unreadable: int = 0

    @property
    def done(self) -> int:
        return max(self.total - self.remaining, 0)

    @property
    def percent(self) -> int:
        return 100 * self.done // self.total if self.total else 100


@dataclass(frozen=True, slots=True)
class Preview:
    """What a rotation would do. Nothing was written."""

    to_kid: str
    rows_by_kid: dict[str, int]
    rows: int
    batches: int
    unreadable: tuple[str, ...]


def preview(*, by: Actor) -> Preview:
    """Try every data key that a rotation would wrap again; write nothing.

    Raises: VaultSealed; Conflict with fewer than two keys.
    """
    verdict = _verdict_with_two_keys()
    kid = verdict.ring.primary.kid
    rows = rewrapping.misplaced(kid=kid, kits=store.live_kits())
    failing = [
        secret.name
        for secret in rows.prefetch_related("wraps").iterator(chunk_size=BATCH)
        if not _opens(secret, verdict)
    ]
    count = rows.count()
    batches = -(-count // BATCH)
    return Preview(kid, _rows_by_kid(), count, batches, tuple(failing))


@transaction.atomic
def rotate(*, by: Actor, reason: str = "") -> Progress:
    """Begin to wrap every data key for the first key of the ring.

    Raises: VaultSealed; Conflict with fewer than two keys, or while other work over
    every secret is open.   Again: goes on with the rotation that is open.
    """
    verdict = _verdict_with_two_keys()
    adopt_first_key(verdict, by)
    return begin(by=by, kind=RotationKind.REWRAP, reason=reason)


@transaction.atomic
def reencrypt(*, by: Actor, reason: str) -> Progress:
    """Begin to give every secret a new data key, after a suspected leak.

    A leaked key means leaked secrets: each must also be changed where it was
    issued; `checklist(everything=True)` lists them.
    """
    if not reason.strip():
        problem = FieldProblem("reason", "empty", "what is suspected to have leaked")
        raise Invalid("Re-encrypting needs a reason.", fields=(problem,))
    verdict = policies.judge()
    verdict.require_open()
    adopt_first_key(verdict, by)
    return begin(by=by, kind=RotationKind.REENCRYPT, reason=reason)


def begin(*, by: Actor, kind: RotationKind, reason: str) -> Progress:
    """Open the row that makes the work findable. The caller holds the transaction."""
    found = Rotation.objects.filter(done_at=None).first()
    if found is not None and found.kind != kind:
        raise Conflict(f"{found.get_kind_display()} is still under way; let it end.")
    if found is None:
        found = Rotation.objects.create(
            kind=kind, reason=reason[:300], started_by=by.label
        )
        found.total = _remaining(found).count()
        Rotation.objects.filter(pk=found.pk).update(total=found.total)
        audit.record(
            type="vault.rotation_started",
            actor=by,
            subject=("rotation", str(found.pk)),
            reason=reason,
            data={"kind": kind, "rows": found.total},
        )
    return _progress_of(found)


def advance(*, by: Actor) -> Progress:
    """Take one batch of the open rotation. Again: the next one; at the end nothing.

    Raises: VaultSealed, KeyExhausted, KeyRetired; Conflict when it met a change.
    """
    failpoints.reach("vault.batch")
    with transaction.atomic():
        open_one = Rotation.objects.filter(done_at=None).first()
        if open_one is None:
            return progress()
        verdict = policies.judge()
        verdict.require_open()
        rows = _remaining(open_one)
        work = (
            rewrapping.reencrypt
            if open_one.kind == RotationKind.REENCRYPT
            else rewrapping.rewrap
        )
        batch = work(rows, verdict=verdict)
        failpoints.reach("vault.batch_written")
        if batch.done or batch.unreadable:
            _record(open_one, batch, by)
        else:
            _close(open_one, by)
    return progress()


def tick() -> int:
    """Go on with an open rotation from the clock; a refusal is tried again later."""
    taken = 0
    while taken < BATCHES_PER_TICK and Rotation.objects.filter(done_at=None).exists():
        try:
            advance(by=SYSTEM)
        except PolarError:
            break
        taken += 1
    return taken


def progress() -> Progress:
    """Say how far the open rotation is, or how the last one ended. Reads only."""
    latest = Rotation.objects.order_by("done_at", "-id").filter(done_at=None).first()
    latest = latest or Rotation.objects.order_by("-id").first()
    return Progress() if latest is None else _progress_of(latest)


@transaction.atomic
def finish(*, by: Actor) -> list[str]:
    """Retire every key but the first; then it may leave POLAR_VAULT_KEYS.

    A retired key never encrypts again, in no process: the conditional UPDATE that
    counts encryptions says so, and waits for whoever is just encrypting.
    Raises: VaultSealed; Conflict while any row has an older key.
    """
    verdict = policies.judge()
    verdict.require_open()
    older = Key.objects.filter(retired_at=None).exclude(kid=verdict.ring.primary.kid)
    kids = sorted(older.values_list("kid", flat=True))
    older.update(retired_at=clock.now())
    left = Wrap.objects.filter(recipient__startswith="key:").exclude(
        recipient=verdict.ring.primary.recipient
    )
    names = left.order_by("secret__name").values_list("secret__name", flat=True)
    count = left.count()
    if count:
        shown = ", ".join(list(names[:NAMES_SHOWN]))
        raise Conflict(
            f"{count} secrets are still under an older key: {shown}. Rotate first; "
            "enter again or forget what does not open.",
            left=count,
        )
    for kid in kids:
        audit.record(type="vault.key_retired", actor=by, subject=("key", kid))
    return kids


def _verdict_with_two_keys() -> Verdict:
    verdict = policies.judge()
    verdict.require_open()
    if len(verdict.ring.keys) < 2:
        raise Conflict(
            "Rotation needs two keys. Write the new one first, the old one second: "
            'POLAR_VAULT_KEYS="new:…,old:…", restart every process, rotate again.'
        )
    return verdict


def _remaining(rotation: Rotation) -> QuerySet[Secret]:
    """Read off the rows what a rotation has still to do."""
    if rotation.kind == RotationKind.REENCRYPT:
        rows = rewrapping.older_data_keys(rotation.created_at)
    else:
        key = policies.judge_ring().ring.keys[:1]
        kid = key[0].kid if key else ""
        rows = rewrapping.misplaced(kid=kid, kits=store.live_kits())
    return rewrapping.untried(rows, rotation.created_at)


def _progress_of(rotation: Rotation) -> Progress:
    unreadable = Secret.objects.filter(unreadable_since__isnull=False).count()
    if rotation.done_at is not None:
        return Progress(rotation.kind, "done", rotation.total, 0, unreadable)
    left = _remaining(rotation).count()
    return Progress(rotation.kind, "running", rotation.total, left, unreadable)


def _record(rotation: Rotation, batch: Batch, by: Actor) -> None:
    audit.record(
        type="vault.rotation_batch",
        actor=by,
        subject=("rotation", str(rotation.pk)),
        data={"rows": batch.done, "unreadable": list(batch.unreadable[:NAMES_SHOWN])},
    )


def _close(rotation: Rotation, by: Actor) -> None:
    mine = Rotation.objects.filter(pk=rotation.pk, done_at=None)
    if mine.update(done_at=clock.now()):
        audit.record(
            type="vault.rotation_done",
            actor=by,
            subject=("rotation", str(rotation.pk)),
            data={"kind": rotation.kind, "rows": rotation.total},
        )


def _opens(secret: Secret, verdict: Verdict) -> bool:
    try:
        store.data_key_of(secret, verdict=verdict)
    except SecretUnreadable:
        return False
    return True


def _rows_by_kid() -> dict[str, int]:
    return {
        recipient.removeprefix("key:"): rows
        for recipient, rows in queries.wraps_by_recipient().items()
        if recipient.startswith("key:")
    }
