"""Where keys come in, and where others hear that the vault opens again.

Keys come from the environment at each use and are kept nowhere, so a seal leaves
nothing behind in a process. One key never serves two purposes: each use has its own
subkey, derived by HKDF-SHA256 with a label.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings

from apps.vault.errors import BadKeyRing

_unsealed: list[Callable[[], object]] = []
_places: "list[Callable[[str, UUID], Place | None]]" = []

#: What a secret is for that an extension is given, and no other part of Polar uses.
FOR_EXTENSIONS = "secret of extensions"
#: Units: bytes.
KEY_BYTES = 32
#: A random key repeats few of its bytes; fewer distinct ones than this is no key.
FEWEST_DISTINCT_BYTES = 8
KID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")
HOW = (
    "Make one with: "
    "python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"
)


@dataclass(frozen=True, slots=True)
class Tested:
    """What the place that uses a secret says of it."""

    ok: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret is used, where it is entered, and how it is tried out.

    `test` may reach outside; it is called with no transaction open. None: nothing
    can say whether the value is the right one. `instead`: what a person does where
    nobody knows the value to type it, such as connecting again.
    """

    used_by: str
    page: str = ""
    command: str = ""
    test: Callable[[], Tested] | None = None
    instead: str = ""


@dataclass(frozen=True, slots=True)
class RingKey:
    """One key-encryption key and its subkeys."""

    kid: str
    material: bytes = field(repr=False)

    @property
    def recipient(self) -> str:
        return f"key:{self.kid}"

    def subkey(self, label: str) -> bytes:
        """Derive the key for one purpose: HKDF-SHA256, no salt, one block.

        Source: RFC 5869 sections 2.2 and 2.3; a test compares it with a library.
        """
        extracted = hmac.digest(bytes(32), self.material, hashlib.sha256)
        return hmac.digest(extracted, label.encode() + b"\x01", hashlib.sha256)

    @property
    def kcv(self) -> str:
        """The key check value: tells a wrong key before anything is decrypted."""
        return hmac.digest(self.subkey("vault/kcv"), b"pv1", hashlib.sha256).hex()

    @property
    def check_code(self) -> str:
        """Sixteen hex digits to write beside a backup; they prove which key it is."""
        keyed = self.subkey("vault/check-code")
        return hmac.digest(keyed, b"pv1", hashlib.sha256).hex()[:16]

    def fingerprint(self, value: str) -> str:
        """Name a value without giving it away. Units: 64 bits as hex."""
        keyed = self.subkey("vault/fingerprint")
        return hmac.digest(keyed, value.encode(), hashlib.sha256).hex()[:16]


@dataclass(frozen=True, slots=True)
class Ring:
    """The configured keys; the first encrypts, all decrypt."""

    keys: tuple[RingKey, ...]

    @property
    def primary(self) -> RingKey:
        return self.keys[0]

    @property
    def kids(self) -> list[str]:
        return [key.kid for key in self.keys]


def configured_ring() -> Ring:
    """Read the ring from the settings. Raises: BadKeyRing."""
    return parse_ring(settings.POLAR_VAULT_KEYS, settings.POLAR_VAULT_KEY)


def parse_ring(keys: str, key: str = "") -> Ring:
    """Read "kid2:base64,kid1:base64", then the single key, which names itself.

    Raises: BadKeyRing for a passphrase, a wrong length or a kid given twice.
    """
    entries = [part.strip() for part in keys.split(",") if part.strip()]
    ring = [_entry(entry) for entry in entries]
    if key.strip():
        single = _self_named(_material(key.strip(), "POLAR_VAULT_KEY"))
        ring += [] if any(k.material == single.material for k in ring) else [single]
    kids = [entry.kid for entry in ring]
    if len(set(kids)) != len(kids):
        raise BadKeyRing("POLAR_VAULT_KEYS names one kid twice.")
    return Ring(tuple(ring))


def _entry(text: str) -> RingKey:
    kid, separator, material = text.partition(":")
    if not separator or not KID.match(kid):
        raise BadKeyRing(
            'POLAR_VAULT_KEYS is written "kid2:base64,kid1:base64"; a kid is up to '
            "40 letters, digits, dots, dashes."
        )
    return RingKey(kid, _material(material, f"The key {kid} of POLAR_VAULT_KEYS"))


def _self_named(material: bytes) -> RingKey:
    unnamed = RingKey("", material)
    return RingKey(f"k{unnamed.subkey('vault/kid').hex()[:12]}", material)


def _material(text: str, whose: str) -> bytes:
    plain = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        material = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadKeyRing(
            f"{whose} is not base64. A passphrase is not a key. {HOW}"
        ) from error
    if len(material) != KEY_BYTES:
        raise BadKeyRing(
            f"{whose} has {len(material)} bytes; a key has {KEY_BYTES} random bytes, "
            f"and a passphrase is not a key. {HOW}"
        )
    if len(set(material)) < FEWEST_DISTINCT_BYTES:
        raise BadKeyRing(f"{whose} is not random. {HOW}")
    return material


def plug_unsealed(callback: Callable[[], object]) -> None:
    """Call `callback` in the transaction that unseals. Again: called once."""
    if callback not in _unsealed:
        _unsealed.append(callback)


def ring_unsealed() -> None:
    """Tell everybody who plugged in."""
    for callback in _unsealed:
        callback()


def plug_places(find: "Callable[[str, UUID], Place | None]") -> None:
    """Let a higher app say, from purpose and id, where a secret is used."""
    if find not in _places:
        _places.append(find)


def place_of(purpose: str, secret_id: UUID) -> Place:
    """Ask who uses a secret; nobody may know."""
    for find in _places:
        found = find(purpose, secret_id)
        if found is not None:
            return found
    return Place(used_by=purpose)


def parse_key(text: str) -> RingKey:
    """Read one key as it stands in a backup: base64, or "kid:base64".

    Raises: BadKeyRing.
    """
    kid, separator, _ = text.strip().partition(":")
    if separator and KID.match(kid):
        return _entry(text.strip())
    return _self_named(_material(text.strip(), "This"))
