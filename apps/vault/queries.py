"""Reads of what is stored, never of what is inside."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, QuerySet

from apps.common.errors import NotFound
from apps.vault import policies, ports
from apps.vault.errors import BadKeyRing
from apps.vault.models import Key, Recovery, SealState, Secret, Wrap

#: Half of what a key may encrypt.
WARN_ENCRYPTIONS = 2**31


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key of the ring or of the record."""

    kid: str
    in_ring: bool
    first: bool
    encryptions: int
    is_retired: bool = False
    backup_proved_at: datetime | None = None

    @property
    def worn(self) -> bool:
        """Past half of what a key may encrypt: time to rotate."""
        return self.encryptions >= WARN_ENCRYPTIONS


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the vault opens, and if not, why and what helps."""

    state: str
    reason: str
    detail: str
    seal_epoch: int
    keys: tuple[KeyStatus, ...]
    secrets: int
    unreadable: int


def get_secret(secret_id: UUID) -> Secret:
    """Return a secret's row. Raises: NotFound."""
    found = Secret.objects.filter(id=secret_id).first()
    if found is None:
        raise NotFound("There is no such secret.")
    return found


def find_secret(name: str) -> Secret | None:
    """Return the secret of this name, or None."""
    return Secret.objects.filter(name=name).first()


def status() -> Status:
    """Tell whether the vault opens, and name what is wrong. Reads only."""
    verdict = policies.judge()
    seal_state = SealState.objects.first()
    counts = Secret.objects.aggregate(
        stored=Count("id"), unreadable=Count("unreadable_since")
    )
    return Status(
        state="open" if verdict.is_open else "sealed",
        reason=str(verdict.why),
        detail=verdict.detail,
        seal_epoch=seal_state.seal_epoch if seal_state else 0,
        keys=_key_statuses(),
        secrets=counts["stored"],
        unreadable=counts["unreadable"],
    )


def _key_statuses() -> tuple[KeyStatus, ...]:
    try:
        kids = ports.configured_ring().kids
    except BadKeyRing:
        kids = []
    known = {key.kid: key for key in Key.objects.order_by("kid")}
    return tuple(
        _key_status(kid, kids, known.get(kid)) for kid in dict.fromkeys([*kids, *known])
    )


def _key_status(kid: str, kids: list[str], known: Key | None) -> KeyStatus:
    is_first = bool(kids) and kid == kids[0]
    if known is None:
        return KeyStatus(kid, kid in kids, is_first, 0)
    return KeyStatus(
        kid,
        kid in kids,
        is_first,
        known.encryptions,
        known.retired_at is not None,
        known.backup_proved_at,
    )


def kits() -> list[Recovery]:
    """Return the recovery kits in use, newest first."""
    return list(Recovery.objects.filter(dropped_at=None).order_by("-id"))


def get_kit(recipient: str) -> Recovery:
    """Return a kit by its recipient. Raises: NotFound."""
    found = Recovery.objects.filter(recipient=recipient).first()
    if found is None:
        raise NotFound("There is no such recovery kit.")
    return found


def wraps_by_recipient() -> dict[str, int]:
    """Count the secrets under each key and kit."""
    counted = Wrap.objects.values("recipient").annotate(rows=Count("id"))
    return {row["recipient"]: row["rows"] for row in counted.order_by("recipient")}


def secrets() -> QuerySet[Secret]:
    """Every secret by name and fingerprint; for administrators."""
    return Secret.objects.defer("ciphertext")
