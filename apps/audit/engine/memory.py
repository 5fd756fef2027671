"""What this process has seen of the log, so that an older store is refused.

Hides: the largest head per process, and the inode behind the SQLite file.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from apps.audit.engine import tiles, witness
from apps.audit.errors import StoreRolledBack
from apps.audit.models import Head


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest head that this process has seen."""

    size: int
    root: str
    epoch: str


_lock = threading.Lock()
_seen: Seen | None = None
_file: tuple[str, int, int] | None = None


def remember(head: Head) -> None:
    """Keep the head if it is the largest of its epoch."""
    global _seen
    with _lock:
        if _seen is None or _seen.epoch != head.epoch or _seen.size <= head.size:
            _seen = Seen(head.size, head.root, head.epoch)


def forget() -> None:
    """Start over, as a new process does. For tests and after a recovery."""
    global _seen, _file
    with _lock:
        _seen = _file = None


def check(head: Head, where: Path | None) -> None:
    """Refuse a store that lacks what was seen here or by the witness.

    Raises: StoreRolledBack.
    """
    _check_file()
    if where is not None:
        witness.check(where, head)
    seen = _seen
    if seen is None:
        return
    if seen.epoch != head.epoch:
        if where is None:
            raise StoreRolledBack("The store is in another epoch", epoch=head.epoch)
        return  # the witness, asked above, knows the new epoch
    if head.size < seen.size:
        raise StoreRolledBack(
            f"This process saw {seen.size} events, the database has {head.size}",
            seen_size=seen.size,
            size=head.size,
        )
    if _root_at(seen.size, head) != seen.root:
        raise StoreRolledBack(f"The tree at {seen.size} is not the one seen before")


def _root_at(size: int, head: Head) -> str:
    if size == head.size:
        return head.root
    try:
        return tiles.Reader().range_root(0, size).hex()
    except LookupError:
        return ""


def _check_file() -> None:
    """A renamed-over SQLite file leaves this process writing into the old inode."""
    global _file
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return
    try:
        status = os.stat(name)
    except FileNotFoundError as error:
        raise StoreRolledBack(f"The database file {name} is gone") from error
    found = (name, status.st_dev, status.st_ino)
    if _file is None or _file[0] != name:
        _file = found
    elif _file != found:
        raise StoreRolledBack(f"The database file {name} was replaced", path=name)
