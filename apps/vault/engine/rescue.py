"""The recovery recipient: a public key here, its private part kept outside.

A data key is encrypted to the public key by HPKE (RFC 9180, X25519, HKDF-SHA256,
AES-256-GCM), bound to the same place as every wrap. The private part is one line of
text, or 3 of 5 SLIP-39 shares; either may be read back, and says by its fingerprint
which recipient it belongs to.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from shamir_mnemonic import (  # type: ignore[import-untyped, unused-ignore]
    MnemonicError,
    combine_mnemonics,
    generate_mnemonics,
)

from apps.vault.engine.envelope import VERSION, Place
from apps.vault.errors import BadRecovery, SecretUnreadable

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
MARK = "polar-recovery-1"
NEEDED, SHARES = 3, 5
KEY_BYTES = 32
CHECK_CHARS = 8


@dataclass(frozen=True, slots=True)
class RescueKey:
    """The private part, for as long as an operator lends it."""

    private: bytes = field(repr=False)

    @property
    def public(self) -> str:
        raw = X25519PrivateKey.from_private_bytes(self.private).public_key()
        return base64.b64encode(raw.public_bytes_raw()).decode()

    @property
    def recipient(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.public)).hexdigest()
        return f"recovery:{digest[:16]}"

    def as_text(self) -> str:
        """Write the key on one line, with check characters against slips."""
        body = base64.b32encode(self.private).decode().rstrip("=").lower()
        return f"{MARK}-{body}-{_check(self.private)}"

    def as_shares(self) -> list[str]:
        """Split the key into five sentences, any three of which are enough."""
        (group,) = generate_mnemonics(1, [(NEEDED, SHARES)], self.private)
        return [str(share) for share in group]


def new_key() -> RescueKey:
    return RescueKey(X25519PrivateKey.generate().private_bytes_raw())


def read_key(text: str) -> RescueKey:
    """Read what an operator kept: the line, or three shares, one to a line.

    Raises: BadRecovery.
    """
    lines = [" ".join(line.split()).lower() for line in text.splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line))
    if len(lines) == 1 and lines[0].startswith(MARK):
        return RescueKey(_from_line(lines[0]))
    if len(lines) < NEEDED:
        raise BadRecovery(
            f"Give the line that starts with {MARK}, or {NEEDED} shares, each on "
            f"a line of its own; there are {len(lines)}."
        )
    try:
        private = combine_mnemonics(lines[:NEEDED])
    except MnemonicError as error:
        raise BadRecovery(f"These shares do not fit together: {error}") from error
    if len(private) != KEY_BYTES:
        raise BadRecovery("These shares belong to something else.")
    return RescueKey(private)


def wrap(data_key: bytes, *, place: Place, recipient: str, public: str) -> str:
    """Encrypt a data key for a recovery recipient. Needs no secret."""
    key = X25519PublicKey.from_public_bytes(base64.b64decode(public))
    sealed = SUITE.encrypt(data_key, key, place.wrap_data(recipient))
    return f"{VERSION}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"


def unwrap(text: str, *, place: Place, key: RescueKey) -> bytes:
    """Decrypt a data key. Raises: SecretUnreadable for a change of it or its place."""
    version, _, body = text.partition(".")
    private = X25519PrivateKey.from_private_bytes(key.private)
    try:
        if version != VERSION:
            raise ValueError(version)
        sealed = base64.b64decode(
            body.replace("-", "+").replace("_", "/") + "=" * (-len(body) % 4),
            validate=True,
        )
        return SUITE.decrypt(sealed, private, place.wrap_data(key.recipient))
    except (InvalidTag, ValueError) as error:
        raise SecretUnreadable(
            "This recovery wrap does not open: it was changed, moved or damaged."
        ) from error


def _from_line(line: str) -> bytes:
    body, _, check = line.removeprefix(f"{MARK}-").rpartition("-")
    try:
        private = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError) as error:
        raise BadRecovery("This recovery key is mistyped or cut short.") from error
    if len(private) != KEY_BYTES or check != _check(private):
        raise BadRecovery("This recovery key is mistyped or cut short.")
    return private


def _check(private: bytes) -> str:
    return hashlib.sha256(b"polar recovery check" + private).hexdigest()[:CHECK_CHARS]
