"""The signer: Ed25519 and HMAC keys derived from POLAR_AUDIT_KEY.

The key material never leaves this module. A signed note is C2SP's text format.

Source: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from apps.common.errors import Invalid, Unavailable

KEY_BYTES = 32
_ED25519 = b"\x01"


@dataclass(frozen=True)
class Signer:
    """Signs with the install's audit key."""

    _ed25519: Ed25519PrivateKey
    _hmac: bytes

    @property
    def public(self) -> bytes:
        return self._ed25519.public_key().public_bytes_raw()

    @property
    def name(self) -> str:
        return "polar-audit-" + hashlib.sha256(self.public).hexdigest()[:8]

    @property
    def verifier_key(self) -> str:
        """Shape: C2SP vkey `name+hash+base64(0x01 ‖ key)`."""
        text = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{key_hash(self.name, self.public).hex()}+{text}"

    def sign(self, data: bytes) -> bytes:
        return self._ed25519.sign(data)

    def fingerprint(self, value: bytes) -> str:
        return hmac.new(self._hmac, value, hashlib.sha256).hexdigest()

    def note(self, text: str) -> str:
        """Sign text that ends with a newline, as a note."""
        blob = key_hash(self.name, self.public) + self.sign(text.encode())
        return f"{text}\n\u2014 {self.name} {base64.b64encode(blob).decode()}\n"


def signer() -> Signer:
    """Return the install's signer.

    Raises: Unavailable when POLAR_AUDIT_KEY is missing or not 32 bytes of base64.
    """
    return _derive(settings.POLAR_AUDIT_KEY)


def key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


@lru_cache(maxsize=16)
def parse_verifier_key(vkey: str) -> tuple[str, bytes]:
    """Shape: (name, public key). Raises: Invalid."""
    try:
        name, hashed, text = vkey.strip().split("+", 2)
        blob = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Invalid("This is not a verifier key") from error
    public = blob[1:]
    if blob[:1] != _ED25519 or key_hash(name, public).hex() != hashed:
        raise Invalid("This is not an Ed25519 verifier key")
    return name, public


def open_note(note: str, vkey: str) -> str:
    """Return the text of a note that this key has signed.

    Raises: Invalid for a note that it has not signed.
    """
    name, _ = parse_verifier_key(vkey)
    text, found, signatures = note.rpartition("\n\n")
    mark = f"\u2014 {name} "
    whole = found and signatures.endswith("\n")
    for line in signatures[:-1].split("\n") if whole else []:
        if line.startswith(mark) and _signed(text + "\n", line[len(mark) :], vkey):
            return text + "\n"
    raise Invalid(f"The note bears no valid signature of {name}")


def is_signed(data: bytes, signature: bytes, public: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _signed(text: str, encoded: str, vkey: str) -> bool:
    name, public = parse_verifier_key(vkey)
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return False
    if base64.b64encode(blob).decode() != encoded:
        return False
    right_key = blob[:4] == key_hash(name, public)
    return right_key and is_signed(text.encode(), blob[4:], public)


@lru_cache(maxsize=4)
def _derive(text: str) -> Signer:
    try:
        material = base64.b64decode(text, validate=True)
    except binascii.Error:
        material = b""
    if len(material) != KEY_BYTES:
        raise Unavailable("POLAR_AUDIT_KEY is not 32 bytes of base64; see .env.example")
    seed = _subkey(material, b"audit/ed25519")
    return Signer(
        Ed25519PrivateKey.from_private_bytes(seed), _subkey(material, b"audit/hmac")
    )


def _subkey(material: bytes, label: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=label).derive(material)
