"""Refusals of this app.

Unavailable
  VaultSealed         no key, a wrong key, or an operator's seal
Conflict
  SecretUnreadable    this one row cannot be opened; the others can
  KeyNotHeld          its key is not in the ring: work waits until it is
Invalid
  BadKeyRing          the configured keys are not keys
  BadRecovery         this is no recovery key and no set of shares
Denied
  KeyExhausted        the key has encrypted as often as is safe
  KeyRetired          the key was rotated out and encrypts no more
  NotVaultKeeper      the vault is kept by administrators
"""

from apps.common.errors import Conflict, Denied, Invalid, Unavailable


class VaultSealed(Unavailable):
    """A needed secret cannot be opened while the vault is sealed."""

    code = "POLAR_VAULT_SEALED"
    waits_as = "waiting_vault"


class SecretUnreadable(Conflict):
    """This secret cannot be opened; store it again."""

    code = "POLAR_SECRET_UNREADABLE"


class BadKeyRing(Invalid):
    """The configured vault keys are not 256-bit keys."""

    code = "POLAR_VAULT_BAD_KEYS"


class KeyExhausted(Denied):
    """This key has encrypted as often as is safe; rotate to a new one."""

    code = "POLAR_VAULT_KEY_EXHAUSTED"


class KeyNotHeld(VaultSealed, SecretUnreadable):
    """The ring does not hold the key of this secret; what needs it waits."""


class BadRecovery(Invalid):
    """This is no recovery key and no set of shares."""

    code = "POLAR_VAULT_BAD_RECOVERY"


class KeyRetired(Denied):
    """This key was rotated out; the first key of the ring must be the new one."""

    code = "POLAR_VAULT_KEY_RETIRED"


class NotVaultKeeper(Denied):
    """The vault is kept by administrators."""

    code = "POLAR_FORBIDDEN"
