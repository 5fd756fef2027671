"""Refusals of this app.

Unavailable
  VaultSealed         no key, a wrong key, or an operator's seal
Conflict
  SecretUnreadable    this one row cannot be opened; the others can
Invalid
  BadKeyRing          the configured keys are not keys
Denied
  KeyExhausted        the key has encrypted as often as is safe
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
