"""Tells the vault where the secrets of extensions are used, and how they come back."""

from uuid import UUID

from django.urls import reverse

from apps.extensions.engine import connections
from apps.extensions.models import Connection, Extension, Lifecycle
from apps.vault import ports
from apps.vault import queries as vault
from apps.vault.ports import Place


def place_of_secret(purpose: str, secret_id: UUID) -> Place | None:
    """Find the extension that is given a secret, or whose connection it belongs to."""
    if purpose == ports.FOR_EXTENSIONS:
        return _stored(vault.get_secret(secret_id).name)
    if purpose == connections.PURPOSE:
        return _of_connection(vault.get_secret(secret_id).name)
    return None


def _stored(name: str) -> Place:
    users = [
        row.ext_id
        for row in Extension.objects.exclude(lifecycle=Lifecycle.REMOVED)
        if name in ((row.grants or {}).get("secrets") or {}).values()
    ]
    if not users:
        return Place(used_by="no extension")
    return Place(used_by=f"extension {', '.join(users)}", page=_page(users[0]))


def _of_connection(name: str) -> Place:
    """A token is issued, not known: whoever allowed it allows it again."""
    for row in Connection.objects.select_related("extension").order_by("id"):
        if name in {row.secret_name(kind) for kind in connections.KINDS}:
            ext_id = row.extension.ext_id
            part = f" --part {row.part}" if row.part else ""
            return Place(
                used_by=f"the connection of extension {ext_id}",
                page=_page(ext_id),
                command=f"./polar extensions connect {ext_id} --as USER{part}",
                instead=f"An administrator connects {ext_id} again on its page.",
            )
    return Place(
        used_by="a connection that is gone",
        instead="Nothing needs it: remove it for good.",
    )


def _page(ext_id: str) -> str:
    return reverse("extensions:detail", args=[ext_id])
