"""May the vault be opened with the ring at hand? Judged before any decryption.

Reads only. A ring that does not check leaves the vault sealed by name: nothing is
decrypted, overwritten or adopted.
"""

import hmac
from dataclasses import dataclass
from typing import Any

from django.db import models

from apps.vault import ports
from apps.vault.errors import BadKeyRing, NotVaultKeeper, VaultSealed
from apps.vault.models import Key, SealState, Wrap
from apps.vault.ports import Ring


class Why(models.TextChoices):
    """Why the vault is sealed."""

    OPEN = ""
    BY_OPERATOR = "sealed_by_operator"
    NO_KEY = "no_key"
    BAD_KEY = "bad_key"
    WRONG_KEY = "wrong_key"
    MISSING_KEY = "missing_key"
    UNCHECKED_KEY = "unchecked_key"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be done now: `ring` is empty unless the vault is open.

    `checked` are the kids whose check value is on record; only they decrypt.
    """

    ring: Ring
    checked: frozenset[str] = frozenset()
    why: Why = Why.OPEN
    detail: str = ""

    @property
    def is_open(self) -> bool:
        return self.why == Why.OPEN

    def require_open(self) -> None:
        """Raises: VaultSealed with the reason."""
        if not self.is_open:
            raise VaultSealed(self.detail, reason_code=str(self.why))


NOTHING = Ring(())


def judge() -> Verdict:
    """Look at the operator's seal, then at the ring."""
    state = SealState.objects.first()
    if state is not None and state.sealed:
        detail = f"An operator sealed the vault: {state.reason}"
        return Verdict(NOTHING, why=Why.BY_OPERATOR, detail=detail)
    return judge_ring()


def judge_ring() -> Verdict:
    """Compare the configured ring with what is known of its keys."""
    try:
        ring = ports.configured_ring()
    except BadKeyRing as error:
        return Verdict(NOTHING, why=Why.BAD_KEY, detail=error.detail)
    if not ring.keys:
        detail = f"No vault key is configured: set POLAR_VAULT_KEY. {ports.HOW}"
        return Verdict(NOTHING, why=Why.NO_KEY, detail=detail)
    known = dict(Key.objects.filter(kid__in=ring.kids).values_list("kid", "kcv"))
    for key in ring.keys:
        if key.kid in known and not hmac.compare_digest(known[key.kid], key.kcv):
            detail = f"The key {key.kid} is not the key that encrypted under its name."
            return Verdict(NOTHING, why=Why.WRONG_KEY, detail=detail)
    if ring.primary.kid not in known:
        refused = _may_not_adopt(ring, set(known))
        if refused is not None:
            return refused
    return Verdict(ring, frozenset(known))


def _may_not_adopt(ring: Ring, known: set[str]) -> Verdict | None:
    """A new first key enters only if nothing would be left behind unreadable."""
    wraps = Wrap.objects.filter(recipient__startswith="key:")
    recipients = wraps.values_list("recipient", flat=True).distinct()
    given_up = Key.objects.filter(lost_at__isnull=False)
    held = {text.removeprefix("key:") for text in recipients}
    held -= set(given_up.values_list("kid", flat=True)) - set(ring.kids)
    absent = sorted(held - set(ring.kids))
    if absent:
        detail = (
            f"Secrets are stored under {', '.join(absent)}, but the ring holds "
            f"{', '.join(ring.kids)}. Nothing was changed; add the missing key."
        )
        return Verdict(NOTHING, why=Why.MISSING_KEY, detail=detail)
    if held - known:
        unchecked = ", ".join(sorted(held - known))
        detail = f"Secrets are stored under {unchecked}, whose check value is gone."
        return Verdict(NOTHING, why=Why.UNCHECKED_KEY, detail=detail)
    return None


def judge_rescue() -> Verdict:
    """May lost keys be replaced by the first of the ring? It must be a new name.

    As `judge`, but a key that is missing is what a rescue is for.
    """
    verdict = judge()
    if verdict.why != Why.MISSING_KEY:
        return verdict
    ring = ports.configured_ring()
    known = Key.objects.filter(kid__in=ring.kids).values_list("kid", flat=True)
    return Verdict(ring, frozenset(known) | {ring.primary.kid})


#: `vault` stands below `access`, so roles are read as data.


def check_keeper(user: Any) -> None:
    """Refuse a person who is not an administrator.   Raises: NotVaultKeeper."""
    if user.is_active and (
        user.is_superuser or user.memberships.filter(role="admin").exists()
    ):
        return
    raise NotVaultKeeper("The vault needs the role admin.", needed="admin")


def check_credential(auth: Any) -> None:
    """Refuse a credential of somebody who is no administrator.

    Raises: NotVaultKeeper.
    """
    if auth.principal.kind != "system":
        if auth.principal.user is None:
            raise NotVaultKeeper("The vault needs the role admin.", needed="admin")
        check_keeper(auth.principal.user)
