"""Which file each open SQLite connection has open.

A file renamed over the database leaves a connection writing into the old inode,
without an error. PostgreSQL has no such file, so there nothing is remembered.
"""

import os
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit.errors import StoreExchanged

_opened: WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, int] | None] = (
    WeakKeyDictionary()
)


def note_opened(opened: BaseDatabaseWrapper) -> None:
    """Remember which file a new SQLite connection has open."""
    _opened[opened] = identity(opened)


def check_file() -> None:
    """Refuse a connection whose file no longer bears its name.

    A renamed-over SQLite file leaves it writing into the old inode.
    Raises: StoreExchanged, after closing the connection where that is possible.
    """
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.connection is None or _opened.get(wrapper) is None:
        return
    if identity(wrapper) != _opened[wrapper]:
        if not wrapper.in_atomic_block:
            wrapper.close()
        raise StoreExchanged(path=str(wrapper.settings_dict["NAME"]))


def identity(wrapper: BaseDatabaseWrapper) -> tuple[int, int] | None:
    """Name the file behind the path, or None where there is none to name."""
    name = str(wrapper.settings_dict["NAME"])
    if wrapper.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return None
    try:
        status = os.stat(name)
    except OSError:
        return None
    return status.st_dev, status.st_ino
