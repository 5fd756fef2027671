"""Reads of what is stored, never of what is inside."""

from uuid import UUID

from apps.common.errors import NotFound
from apps.vault.models import Secret


def get_secret(secret_id: UUID) -> Secret:
    """Return a secret's row. Raises: NotFound."""
    found = Secret.objects.filter(id=secret_id).first()
    if found is None:
        raise NotFound("There is no such secret.")
    return found


def find_secret(name: str) -> Secret | None:
    """Return the secret of this name, or None."""
    return Secret.objects.filter(name=name).first()


def count_unreadable() -> int:
    """Count the secrets that did not open when last tried."""
    return Secret.objects.filter(unreadable_since__isnull=False).count()
