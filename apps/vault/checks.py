"""What `manage.py check` says of the vault.

Warnings, never errors: a vault without its key is sealed by name, and the rest of
the house stays up.
"""

from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.db import DatabaseError

from apps.vault import ports
from apps.vault.errors import BadKeyRing
from apps.vault.queries import status


def check_ring(
    *, app_configs: Sequence[Any] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Say whether the configured keys are keys. Reads the settings only."""
    try:
        ring = ports.configured_ring()
    except BadKeyRing as error:
        return [checks.Warning(error.detail, id="vault.W001")]
    if not ring.keys:
        hint = f"Set POLAR_VAULT_KEY. {ports.HOW}"
        return [checks.Warning("No vault key is set.", hint=hint, id="vault.W002")]
    return []


def check_store(
    *,
    app_configs: Sequence[Any] | None = None,
    databases: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[checks.CheckMessage]:
    """Say whether the keys open what is stored. Runs with `check --database`."""
    if not databases:
        return []
    try:
        found = status()
    except DatabaseError:
        return []  # no tables yet: `migrate` comes first
    messages: list[checks.CheckMessage] = []
    if found.state != "open":
        messages.append(checks.Warning(found.detail, id="vault.W003"))
    if found.unreadable:
        text = f"{found.unreadable} secrets do not open; store them again."
        messages.append(checks.Warning(text, id="vault.W004"))
    messages += [
        checks.Warning(f"The key {key.kid} is worn; rotate it.", id="vault.W005")
        for key in found.keys
        if key.worn
    ]
    return messages
