"""What this process has seen of the log, so that an older store is refused.

Hides: the largest head per process.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from apps.audit.engine import opened, tiles, witness
from apps.audit.errors import StoreRolledBack
from apps.audit.models import Event, Head


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest head that this process has seen."""

    size: int
    root: str
    epoch: str


_lock = threading.Lock()
_seen: Seen | None = None


def remember(head: Head) -> None:
    """Keep the head if it is the largest of its epoch."""
    global _seen
    with _lock:
        if _seen is None or _seen.epoch != head.epoch or _seen.size <= head.size:
            _seen = Seen(head.size, head.root, head.epoch)


def forget() -> None:
    """Start over, as a new process does. For tests and after a recovery."""
    global _seen
    with _lock:
        _seen = None


def knows(epoch: str) -> bool:
    """Tell whether this process has seen a head of this epoch."""
    return _seen is not None and _seen.epoch == epoch


def check_quickly(head: Head) -> None:
    """Compare sizes, and roots where the sizes are equal. Asks nothing more.

    Raises: StoreRolledBack.
    """
    seen = _seen
    if seen is None or seen.epoch != head.epoch or head.size > seen.size:
        return
    if (head.size, head.root) != (seen.size, seen.root):
        raise StoreRolledBack(
            f"This process saw {seen.size} events, the database has {head.size}",
            seen_size=seen.size,
            size=head.size,
        )


def check(head: Head, where: Path | None) -> None:
    """Refuse a store that lacks what was seen here or by the witness.

    Raises: StoreRolledBack.
    """
    opened.check_file()
    if where is not None:
        witness.check(where, head)
    seen = _seen
    if seen is None:
        return
    if seen.epoch != head.epoch:
        # A witness that was asked above knows the new epoch.
        if where is None and not _succeeds(head.epoch, seen.epoch):
            raise StoreRolledBack("The store is in another epoch", epoch=head.epoch)
        return
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


def _succeeds(epoch: str, before: str) -> bool:
    """Tell whether the store itself says that `epoch` was accepted after `before`."""
    begun = Event.objects.filter(type="audit.epoch_begun", epoch=epoch).first()
    return begun is not None and f'"before":"{before}"' in begun.body
