"""The envelope: a value under its own data key, that key under a ring key.

Text form: "pv1.<nonce>.<ciphertext and tag>", base64url. AES-256-GCM with a random
96-bit nonce. The associated data binds the value to install, row and purpose, and
the wrap to install, row and recipient; neither names a key id or a row version, so
rotation leaves ciphertext untouched. Nothing but pv1 is ever read.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.common import canonical
from apps.vault.errors import SecretUnreadable
from apps.vault.ports import RingKey

VERSION = "pv1"
#: Units: bytes.
NONCE_BYTES = 12
TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ciphertext belongs; anywhere else it does not open."""

    install_id: UUID
    secret_id: UUID
    purpose: str

    @property
    def value_data(self) -> bytes:
        return self._data(purpose=self.purpose)

    def wrap_data(self, recipient: str) -> bytes:
        return self._data(recipient=recipient)

    def _data(self, **rest: str) -> bytes:
        facts = {"install": str(self.install_id), "secret": str(self.secret_id), **rest}
        return canonical.dumps(facts).encode()


def new_data_key() -> bytes:
    """Make the data key of one stored value."""
    return AESGCM.generate_key(256)


def seal(value: str, *, place: Place, data_key: bytes) -> str:
    """Encrypt a value for its place."""
    return _encrypt(data_key, value.encode(), place.value_data)


def open_value(text: str, *, place: Place, data_key: bytes) -> str:
    """Decrypt a value. Raises: SecretUnreadable for any change of it or its place."""
    return _decrypt(data_key, text, place.value_data).decode()


def wrap(data_key: bytes, *, place: Place, key: RingKey) -> str:
    """Encrypt a data key for one ring key."""
    return _encrypt(key.subkey("vault/wrap"), data_key, place.wrap_data(key.recipient))


def unwrap(text: str, *, place: Place, key: RingKey) -> bytes:
    """Decrypt a data key. Raises: SecretUnreadable."""
    return _decrypt(key.subkey("vault/wrap"), text, place.wrap_data(key.recipient))


def _encrypt(key: bytes, plain: bytes, data: bytes) -> str:
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain, data)
    return f"{VERSION}.{_to_text(nonce)}.{_to_text(sealed)}"


def _decrypt(key: bytes, text: str, data: bytes) -> bytes:
    nonce, sealed = _parts(text)
    try:
        return AESGCM(key).decrypt(nonce, sealed, data)
    except (InvalidTag, ValueError) as error:
        raise SecretUnreadable(
            "This secret does not open: it was changed, moved or damaged."
        ) from error


def _parts(text: str) -> tuple[bytes, bytes]:
    version, *rest = text.split(".")
    if version != VERSION or len(rest) != 2:
        raise SecretUnreadable(f"Unknown envelope {version[:8]!r}; only pv1 is read.")
    try:
        nonce, sealed = (_from_text(part) for part in rest)
    except (binascii.Error, ValueError) as error:
        raise SecretUnreadable("This envelope is damaged.") from error
    if len(nonce) != NONCE_BYTES or len(sealed) < TAG_BYTES:
        raise SecretUnreadable("This envelope is damaged.")
    return nonce, sealed


def _to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _from_text(text: str) -> bytes:
    plain = text.replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
