"""Reads of what is stored, never of what is inside."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count

from apps.common.errors import NotFound
from apps.vault import policies, ports
from apps.vault.errors import BadKeyRing
from apps.vault.models import Key, SealState, Secret

#: Half of what a key may encrypt.
WARN_ENCRYPTIONS = 2**31


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key of the ring or of the record."""

    kid: str
    in_ring: bool
    first: bool
    encryptions: int

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
    counts = dict(Key.objects.order_by("kid").values_list("kid", "encryptions"))
    return tuple(
        KeyStatus(kid, kid in kids, kid == kids[0] if kids else False, count)
        for kid, count in (dict.fromkeys(kids, 0) | counts).items()
    )
