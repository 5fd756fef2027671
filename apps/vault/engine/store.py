"""The vault's rows: values in, values out, keys counted. The caller holds the
transaction and writes the event.
"""

import hmac
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import F

from apps.common import clock, ids
from apps.vault.engine import envelope, rescue
from apps.vault.engine.envelope import Place
from apps.vault.errors import (
    KeyExhausted,
    KeyNotHeld,
    KeyRetired,
    SecretUnreadable,
)
from apps.vault.models import Install, Key, Recovery, Secret, Wrap
from apps.vault.policies import Verdict
from apps.vault.ports import RingKey

#: Random 96-bit nonces stay apart with certainty enough up to here.
#: Source: NIST SP 800-38D section 8.3.
MOST_ENCRYPTIONS = 2**32


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value to be stored under a name."""

    name: str
    purpose: str
    value: str = field(repr=False)
    workspace_id: UUID | None = None


def adopt(key: RingKey) -> bool:
    """Remember a key's check value; True when it is new."""
    _, made = Key.objects.get_or_create(kid=key.kid, defaults={"kcv": key.kcv})
    return made


def write(new: NewValue, *, verdict: Verdict) -> Secret:
    """Encrypt and store a value, over the one of the same name if there is one.

    Writes: Secret, Wrap, Key.encryptions.   Raises: KeyExhausted, KeyRetired.
    """
    key = verdict.ring.primary
    before = Secret.objects.select_for_update().filter(name=new.name).first()
    secret_id = before.id if before else ids.new_id()
    place = Place(Install.load().install_id, secret_id, new.purpose)
    data_key = envelope.new_data_key()
    count_encryptions(key.kid, 1)
    now = clock.now()
    secret, _ = Secret.objects.update_or_create(
        id=secret_id,
        defaults={
            "name": new.name,
            "purpose": new.purpose,
            "workspace_id": new.workspace_id,
            "ciphertext": envelope.seal(new.value, place=place, data_key=data_key),
            "fingerprint": key.fingerprint(new.value),
            "stored_at": now,
            "data_key_at": now,
            "unreadable_since": None,
            "checked_at": None,
            "check_problem": "",
        },
    )
    Wrap.objects.filter(secret=secret).delete()
    Wrap.objects.bulk_create(wraps_for(secret, data_key, key=key, kits=live_kits()))
    return secret


def live_kits() -> list[Recovery]:
    """Return the recovery recipients that every data key is wrapped for."""
    return list(Recovery.objects.filter(dropped_at=None).order_by("recipient"))


def place_of(secret: Secret, install_id: UUID) -> Place:
    return Place(install_id, secret.id, secret.purpose)


def wraps_for(
    secret: Secret,
    data_key: bytes,
    *,
    key: RingKey,
    kits: list[Recovery],
    has: frozenset[str] = frozenset(),
) -> list[Wrap]:
    """Wrap a data key for the first key and every kit, unless it `has` one."""
    place = place_of(secret, Install.load().install_id)
    made = {}
    if key.recipient not in has:
        made[key.recipient] = envelope.wrap(data_key, place=place, key=key)
    for kit in kits:
        if kit.recipient not in has:
            made[kit.recipient] = rescue.wrap(
                data_key, place=place, recipient=kit.recipient, public=kit.public_key
            )
    return [
        Wrap(secret=secret, recipient=recipient, wrapped_dek=text)
        for recipient, text in made.items()
    ]


def holds(secret: Secret, new: NewValue, *, verdict: Verdict) -> bool:
    """Tell whether a row already holds just this value, readable."""
    same = (secret.purpose, secret.workspace_id) == (new.purpose, new.workspace_id)
    if not same or secret.fingerprint != verdict.ring.primary.fingerprint(new.value):
        return False
    try:
        stored = read(secret, verdict=verdict)
    except SecretUnreadable:
        return False
    return hmac.compare_digest(stored.encode(), new.value.encode())


def read(secret: Secret, *, verdict: Verdict) -> str:
    """Decrypt a row with the first checked key that it is wrapped for.

    Raises: SecretUnreadable.
    """
    place = place_of(secret, Install.load().install_id)
    data_key = data_key_of(secret, verdict=verdict)
    return envelope.open_value(secret.ciphertext, place=place, data_key=data_key)


def data_key_of(secret: Secret, *, verdict: Verdict) -> bytes:
    """Unwrap a row's data key with the first checked key that it is wrapped for.

    Raises: KeyNotHeld, SecretUnreadable.
    """
    place = place_of(secret, Install.load().install_id)
    wraps = {wrap.recipient: wrap for wrap in secret.wraps.all()}
    for key in verdict.ring.keys:
        wrap = wraps.get(key.recipient)
        if wrap is not None and key.kid in verdict.checked:
            return envelope.unwrap(wrap.wrapped_dek, place=place, key=key)
    kids = ", ".join(sorted(name for name in wraps if name.startswith("key:")))
    raise KeyNotHeld(
        f"{secret.name} is stored under {kids or 'no key'}, which the ring does not "
        "hold. Add the key, recover it, or enter the secret again.",
        reason_code="missing_key",
        secret=str(secret.id),
    )


def mark(secret: Secret, *, readable: bool) -> bool:
    """Note on the row whether it opens; True when that is news."""
    if readable == (secret.unreadable_since is None):
        return False
    since = None if readable else clock.now()
    return bool(Secret.objects.filter(id=secret.id).update(unreadable_since=since))


def count_encryptions(kid: str, count: int) -> None:
    """Book encryptions under a key, in the transaction that makes them.

    One conditional UPDATE: it also keeps a retired key from ever encrypting again.
    Raises: KeyExhausted, KeyRetired.
    """
    counted = Key.objects.filter(
        kid=kid, encryptions__lte=MOST_ENCRYPTIONS - count, retired_at=None
    ).update(encryptions=F("encryptions") + count)
    if counted:
        return
    if Key.objects.filter(kid=kid, retired_at__isnull=False).exists():
        raise KeyRetired(
            f"The key {kid} was rotated out. Put the new key first in "
            "POLAR_VAULT_KEYS and restart this process."
        )
    raise KeyExhausted(f"The key {kid} may not encrypt any more; rotate it.")
