"""Put, lease, delete, seal, unseal: one secret, or the door to all."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import transaction
from django.db.models import F, ProtectedError

from apps.audit import services as audit
from apps.common import clock, redaction
from apps.common.actor import Actor
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.common.redaction import SecretStr
from apps.vault import policies, ports, queries
from apps.vault.engine import store
from apps.vault.engine.leased import LeasedSecret
from apps.vault.engine.store import NewValue
from apps.vault.errors import SecretUnreadable
from apps.vault.models import SealState, Secret
from apps.vault.policies import Verdict
from apps.vault.queries import Status, get_secret

#: Longer values are files, not secrets. Units: characters.
LONGEST_VALUE = 65_536


@transaction.atomic
def put(
    *,
    by: Actor,
    name: str,
    purpose: str,
    value: str,
    workspace_id: UUID | None = None,
) -> Secret:
    """Store a value under a name, sealed.

    Writes: Secret, Wrap, Key.   Raises: VaultSealed, KeyExhausted, Invalid.
    Again: the same value changes nothing and leaves no event.
    """
    new = NewValue(name, purpose, value, workspace_id)
    _check_new(new)
    verdict = policies.judge()
    verdict.require_open()
    before = Secret.objects.filter(name=name).first()
    if before is not None and store.holds(before, new, verdict=verdict):
        return before
    adopt_first_key(verdict, by)
    secret = store.write(new, verdict=verdict)
    audit.record(
        type="vault.put",
        actor=by,
        subject=("secret", str(secret.id)),
        workspace_id=workspace_id,
        data={
            "name": name,
            "purpose": purpose,
            "fingerprint": secret.fingerprint,
            "kid": verdict.ring.primary.kid,
            "replaced": before is not None,
        },
    )
    if before is not None and before.unreadable_since is not None:
        ports.ring_unsealed()  # what waited for this one may go on
    return secret


@contextmanager
def lease(
    secret_id: UUID, *, purpose: str, by: Actor, run_id: UUID | None = None
) -> Iterator[SecretStr]:
    """Give a plaintext for the length of a `with` block.

    Writes: an event, committed before the block starts; no transaction is open
    inside it.   Raises: VaultSealed, SecretUnreadable, NotFound.
    """
    plain = _take(secret_id, purpose=purpose, by=by, run_id=run_id)
    redaction.register(plain)
    leased = LeasedSecret(plain)
    try:
        yield leased
    finally:
        leased.end()
        redaction.forget(plain)


@transaction.atomic
def delete(*, by: Actor, secret_id: UUID, reason: str = "") -> None:
    """Remove a secret for good. Works while sealed: a lost key must not keep it.

    Raises: NotFound; Conflict while something still needs it.
    """
    secret = get_secret(secret_id)
    facts = {"name": secret.name, "fingerprint": secret.fingerprint}
    was_unreadable = secret.unreadable_since is not None
    try:
        secret.delete()
    except ProtectedError as error:
        raise Conflict(f"{facts['name']} is still in use.") from error
    audit.record(
        type="vault.deleted",
        actor=by,
        subject=("secret", str(secret_id)),
        workspace_id=secret.workspace_id,
        reason=reason,
        data=facts,
    )
    if was_unreadable:
        ports.ring_unsealed()  # what waited for it finds another, or says it is gone


@transaction.atomic
def seal(*, by: Actor, reason: str) -> None:
    """Close the vault in every process at once. Again: does nothing.

    Every lease reads the seal, so there is nothing to tell the processes.
    """
    if not reason.strip():
        problem = FieldProblem("reason", "empty", "why the vault is sealed")
        raise Invalid("Sealing needs a reason.", fields=(problem,))
    if _set_seal(sealed=True, reason=reason):
        audit.record(type="vault.sealed", actor=by, reason=reason)


@transaction.atomic
def unseal(*, by: Actor, reason: str = "") -> None:
    """Lift an operator's seal and wake what waited. Again: does nothing.

    Raises: VaultSealed when the ring itself does not open the vault.
    """
    policies.judge_ring().require_open()
    if _set_seal(sealed=False, reason=reason):
        audit.record(type="vault.unsealed", actor=by, reason=reason)
        ports.ring_unsealed()


def status() -> Status:
    """Tell whether the vault opens, and name what is wrong. Reads only."""
    return queries.status()


def _take(secret_id: UUID, *, purpose: str, by: Actor, run_id: UUID | None) -> str:
    """Open the row and write the event; a row that does not open is marked."""
    failure: SecretUnreadable | None = None
    with transaction.atomic():
        verdict = policies.judge()
        verdict.require_open()
        secret = get_secret(secret_id)
        plain = ""
        try:
            plain = _read(secret, verdict)
        except SecretUnreadable as error:
            failure = error
        news = store.mark(secret, readable=failure is None)
        if failure is None or news:
            audit.record(
                type="vault.leased" if failure is None else "vault.unreadable",
                actor=by,
                subject=("secret", str(secret_id)),
                workspace_id=secret.workspace_id,
                run_id=run_id,
                reason="" if failure is None else failure.detail,
                data={"name": secret.name, "purpose": purpose},
            )
    if failure is not None:
        raise failure
    return plain


def _read(secret: Secret, verdict: Verdict) -> str:
    """Open a row; one that was written between row and wraps is read again, held."""
    try:
        return store.read(secret, verdict=verdict)
    except SecretUnreadable:
        held = Secret.objects.select_for_update().filter(pk=secret.pk).first()
        if held is None:
            raise
        return store.read(held, verdict=verdict)


def adopt_first_key(verdict: Verdict, by: Actor) -> None:
    """Remember the first key of the ring, with its event. Again: does nothing."""
    key = verdict.ring.primary
    if store.adopt(key):
        audit.record(
            type="vault.key_adopted",
            actor=by,
            subject=("key", key.kid),
            data={"kcv": key.kcv[:16]},
        )


def _set_seal(*, sealed: bool, reason: str) -> bool:
    """Turn the seal; True when it turned. Each turn begins a new seal epoch."""
    SealState.load()
    return bool(
        SealState.objects.filter(sealed=not sealed).update(
            sealed=sealed,
            reason=reason[:300],
            seal_epoch=F("seal_epoch") + 1,
            changed_at=clock.now(),
        )
    )


def _check_new(new: NewValue) -> None:
    limits = {"name": 160, "purpose": 160, "value": LONGEST_VALUE}
    problems = tuple(
        FieldProblem(name, "empty or too long", f"1 to {limit} characters")
        for name, limit in limits.items()
        if not 0 < len(getattr(new, name)) <= limit
    )
    if any("\ud800" <= sign <= "\udfff" for sign in new.value):
        problems += (FieldProblem("value", "carries half a character", "whole text"),)
    if problems:
        raise Invalid("This secret cannot be stored.", fields=problems)
