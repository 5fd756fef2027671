"""Which file each open SQLite connection has open.

A file renamed over the database leaves a connection writing into the old inode,
without an error; so does a write-ahead log deleted under it. PostgreSQL has no such
file, so there nothing is remembered.
"""

import os
from weakref import WeakKeyDictionary

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.audit.errors import StoreExchanged

_opened: WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, int, int] | None] = (
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
    if not _is_same(_opened[wrapper], identity(wrapper)):
        if not wrapper.in_atomic_block:
            wrapper.close()
        raise StoreExchanged(path=str(wrapper.settings_dict["NAME"]))


def open_anew() -> None:
    """Let the next statement open the file anew: a connection that stays open, or
    is kept for the next thread, may see pages of a file that is no longer there."""
    wrapper = connections[DEFAULT_DB_ALIAS]
    wrapper.close()
    drop_idle = getattr(wrapper, "drop_idle", None)
    if drop_idle is not None:
        drop_idle()


def _is_same(
    opened: tuple[int, int, int] | None, now: tuple[int, int, int] | None
) -> bool:
    if opened is None or now is None:
        return opened == now
    return opened[:2] == now[:2] and opened[2] in (0, now[2])


def identity(wrapper: BaseDatabaseWrapper) -> tuple[int, int, int] | None:
    """Name the file behind the path and its log (0: none yet); None where there is
    none to name."""
    name = str(wrapper.settings_dict["NAME"])
    if wrapper.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return None
    try:
        status = os.stat(name)
    except OSError:
        return None
    try:
        log = os.stat(f"{name}-wal").st_ino
    except OSError:
        log = 0
    return status.st_dev, status.st_ino, log
