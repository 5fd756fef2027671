"""What this process has seen of the log, so that an older store is refused.

Hides: the largest head per process.
Invariant: what is known outside the store is read before the store is. The store only
grows, so whatever others seal between the two readings is never taken for a loss.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.audit.engine import opened, tiles, witness
from apps.audit.errors import StoreRolledBack
from apps.audit.models import Event, Head


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest head that this process has seen."""

    size: int
    root: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Known:
    """What stands outside the store: read it first, then the store's head."""

    seen: Seen | None
    #: Whether there is a witness, and the last line of its journal.
    has_witness: bool = False
    line: dict[str, Any] | None = None


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


def seen() -> Seen | None:
    """Return the largest head so far; read it before the head it is compared with."""
    return _seen


def known(where: Path | None) -> Known:
    """Read what this process and the witness know, before the store is read."""
    if where is None:
        return Known(_seen)
    return Known(_seen, has_witness=True, line=witness.last_line(where))


def check_quickly(head: Head, seen: Seen) -> None:
    """Compare sizes, and roots where the sizes are equal. Asks nothing more.

    Raises: StoreRolledBack.
    """
    if seen.epoch != head.epoch or head.size > seen.size:
        return
    if (head.size, head.root) != (seen.size, seen.root):
        raise StoreRolledBack(
            f"This process saw {seen.size} events, the database has {head.size}",
            seen_size=seen.size,
            size=head.size,
        )


def check(head: Head, known: Known) -> None:
    """Refuse a store that lacks what was seen here or by the witness.

    Raises: StoreRolledBack.
    """
    opened.check_file()
    if known.has_witness:
        witness.check(known.line, head)
    seen = known.seen
    if seen is None:
        return
    if seen.epoch != head.epoch:
        # A witness that was asked above knows the new epoch.
        if not known.has_witness and not _succeeds(head.epoch, seen.epoch):
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
