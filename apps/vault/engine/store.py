"""The vault's rows: values in, values out, keys counted. The caller holds the
transaction and writes the event.
"""

import hmac
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import F

from apps.common import clock, ids
from apps.vault.engine import envelope
from apps.vault.engine.envelope import Place
from apps.vault.errors import KeyExhausted, SecretUnreadable
from apps.vault.models import Install, Key, Secret, Wrap
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

    Writes: Secret, Wrap, Key.encryptions.   Raises: KeyExhausted.
    """
    key = verdict.ring.primary
    before = Secret.objects.select_for_update().filter(name=new.name).first()
    secret_id = before.id if before else ids.new_id()
    place = Place(Install.load().install_id, secret_id, new.purpose)
    data_key = envelope.new_data_key()
    _count_encryption(key.kid)
    secret, _ = Secret.objects.update_or_create(
        id=secret_id,
        defaults={
            "name": new.name,
            "purpose": new.purpose,
            "workspace_id": new.workspace_id,
            "ciphertext": envelope.seal(new.value, place=place, data_key=data_key),
            "fingerprint": key.fingerprint(new.value),
            "stored_at": clock.now(),
            "unreadable_since": None,
        },
    )
    Wrap.objects.filter(secret=secret).delete()
    Wrap.objects.create(
        secret=secret,
        recipient=key.recipient,
        wrapped_dek=envelope.wrap(data_key, place=place, key=key),
    )
    return secret


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
    place = Place(Install.load().install_id, secret.id, secret.purpose)
    wraps = {wrap.recipient: wrap for wrap in secret.wraps.all()}
    for key in verdict.ring.keys:
        wrap = wraps.get(key.recipient)
        if wrap is not None and key.kid in verdict.checked:
            data_key = envelope.unwrap(wrap.wrapped_dek, place=place, key=key)
            return envelope.open_value(
                secret.ciphertext, place=place, data_key=data_key
            )
    kids = ", ".join(sorted(wraps)) or "no key"
    raise SecretUnreadable(
        f"{secret.name} is stored under {kids}, which the ring does not hold.",
        secret=str(secret.id),
    )


def mark(secret: Secret, *, readable: bool) -> bool:
    """Note on the row whether it opens; True when that is news."""
    if readable == (secret.unreadable_since is None):
        return False
    since = None if readable else clock.now()
    return bool(Secret.objects.filter(id=secret.id).update(unreadable_since=since))


def _count_encryption(kid: str) -> None:
    counted = Key.objects.filter(kid=kid, encryptions__lt=MOST_ENCRYPTIONS).update(
        encryptions=F("encryptions") + 1
    )
    if not counted:
        raise KeyExhausted(f"The key {kid} may not encrypt any more; rotate it.")
