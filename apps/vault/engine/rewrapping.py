"""One batch of work over every secret: re-wrap, re-encrypt, rescue.

Hides: what a row still lacks. Nothing is noted beside the rows, so a batch that dies
leaves nothing half done and the next one goes on where it was.
Invariants: the rows of a batch are locked; a wrap is never changed, so removing it by
id is the compare-and-set: one that is gone meanwhile undoes the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.common import clock
from apps.common.errors import Conflict
from apps.vault.engine import envelope, rescue, store
from apps.vault.engine.rescue import RescueKey
from apps.vault.errors import SecretUnreadable
from apps.vault.models import Install, Recovery, Secret, Wrap
from apps.vault.policies import Verdict

#: Small enough that nobody waits for a batch. Units: rows.
BATCH = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch did."""

    done: int = 0
    unreadable: tuple[str, ...] = ()


@dataclass(slots=True)
class _Work:
    """Wraps to make and to remove, gathered over the rows of a batch."""

    made: list[Wrap] = field(default_factory=list)
    gone: list[Wrap] = field(default_factory=list)
    unreadable: list[Secret] = field(default_factory=list)


def misplaced(*, kid: str, kits: list[Recovery]) -> QuerySet[Secret]:
    """Secrets that are wrapped for an older key, or not for a kit."""
    mine = Wrap.objects.filter(secret=OuterRef("pk"))
    older = mine.filter(recipient__startswith="key:").exclude(recipient=f"key:{kid}")
    wanted = Q(Exists(older))
    for kit in kits:
        wanted |= Q(~Exists(mine.filter(recipient=kit.recipient)))
    return Secret.objects.filter(wanted)


def older_data_keys(since: datetime) -> QuerySet[Secret]:
    """Secrets whose data key was made before."""
    return Secret.objects.filter(data_key_at__lt=since)


def rescuable(*, kid: str, key: RescueKey) -> QuerySet[Secret]:
    """Secrets that a recovery key opens and the first key of the ring does not."""
    mine = Wrap.objects.filter(secret=OuterRef("pk"))
    return Secret.objects.filter(
        Exists(mine.filter(recipient=key.recipient)),
        ~Exists(mine.filter(recipient=f"key:{kid}")),
    )


def untried(rows: QuerySet[Secret], since: datetime) -> QuerySet[Secret]:
    """Leave out what was found unreadable since the work began."""
    return rows.filter(Q(unreadable_since=None) | Q(unreadable_since__lt=since))


def rewrap(rows: QuerySet[Secret], *, verdict: Verdict) -> Batch:
    """Wrap the data keys of up to a batch of rows for the first key and the kits."""
    return _settle(
        rows,
        verdict=verdict,
        open_data_key=lambda secret: store.data_key_of(secret, verdict=verdict),
    )


def rescue_rows(rows: QuerySet[Secret], *, verdict: Verdict, key: RescueKey) -> Batch:
    """Wrap data keys for the first key, opened with a recovery key."""
    install_id = Install.load().install_id

    def open_data_key(secret: Secret) -> bytes:
        wraps = {wrap.recipient: wrap for wrap in secret.wraps.all()}
        place = store.place_of(secret, install_id)
        return rescue.unwrap(wraps[key.recipient].wrapped_dek, place=place, key=key)

    return _settle(rows, verdict=verdict, open_data_key=open_data_key)


def reencrypt(rows: QuerySet[Secret], *, verdict: Verdict) -> Batch:
    """Give up to a batch of rows a new data key each, and seal the values again."""
    work, found = _Work(), _locked(rows)
    kits, install_id = store.live_kits(), Install.load().install_id
    for secret in found:
        place = store.place_of(secret, install_id)
        try:
            plain = store.read(secret, verdict=verdict)
        except SecretUnreadable:
            work.unreadable.append(secret)
            continue
        data_key = envelope.new_data_key()
        changed = Secret.objects.filter(pk=secret.pk, ciphertext=secret.ciphertext)
        sealed = envelope.seal(plain, place=place, data_key=data_key)
        if not changed.update(
            ciphertext=sealed, data_key_at=clock.now(), unreadable_since=None
        ):
            raise _changed()
        work.gone += secret.wraps.all()
        primary = verdict.ring.primary
        work.made += store.wraps_for(secret, data_key, key=primary, kits=kits)
    return _finish(work, len(found), verdict)


def _settle(
    rows: QuerySet[Secret],
    *,
    verdict: Verdict,
    open_data_key: Callable[[Secret], bytes],
) -> Batch:
    """Bring the wraps of a batch to what they should be; values stay closed."""
    work, found, kits = _Work(), _locked(rows), store.live_kits()
    primary = verdict.ring.primary
    for secret in found:
        try:
            data_key = open_data_key(secret)
        except SecretUnreadable:
            work.unreadable.append(secret)
            continue
        wraps = list(secret.wraps.all())
        has = frozenset(wrap.recipient for wrap in wraps)
        wanted = {primary.recipient} | {kit.recipient for kit in kits}
        work.gone += [wrap for wrap in wraps if wrap.recipient not in wanted]
        work.made += store.wraps_for(secret, data_key, key=primary, kits=kits, has=has)
    return _finish(work, len(found), verdict)


def _locked(rows: QuerySet[Secret]) -> list[Secret]:
    locked = rows.select_for_update().order_by("pk")[:BATCH]
    return list(locked.prefetch_related("wraps"))


def _finish(work: _Work, found: int, verdict: Verdict) -> Batch:
    """Write what was gathered. Raises: Conflict when a wrap was gone already."""
    keyed = [wrap for wrap in work.made if wrap.recipient.startswith("key:")]
    if keyed:
        store.count_encryptions(verdict.ring.primary.kid, len(keyed))
    gone = [wrap.pk for wrap in work.gone]
    if gone:
        removed, _ = Wrap.objects.filter(pk__in=gone).delete()
        if removed != len(gone):
            raise _changed()
    Wrap.objects.bulk_create(work.made)
    if work.unreadable:
        lost = [secret.pk for secret in work.unreadable]
        Secret.objects.filter(pk__in=lost).update(unreadable_since=clock.now())
    names = tuple(secret.name for secret in work.unreadable)
    return Batch(found - len(names), names)


def _changed() -> Conflict:
    return Conflict("These secrets were changed meanwhile; go on from here.")
