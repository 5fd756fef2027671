"""Reading the log: the head, events of a trace or run, proofs, and its guards."""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from apps.audit.engine import memory, merkle, tiles, triggers, witness
from apps.audit.errors import SealedNotFound
from apps.audit.models import Checkpoint, Event, EventQuerySet, Head, SinkCursor


@dataclass(frozen=True, slots=True)
class Proof:
    """That one event is in the tree of `size` with this root."""

    gseq: int
    size: int
    leaf: bytes
    root: bytes
    path: tuple[bytes, ...]

    def holds(self) -> bool:
        found = merkle.root_from_inclusion(self.leaf, self.gseq, self.size, self.path)
        return found == self.root


def head() -> Head:
    """Return the chain head; an empty one before the first event."""
    return Head.objects.filter(id=1).first() or Head(
        size=0, root=merkle.EMPTY_ROOT.hex()
    )


def events() -> EventQuerySet:
    return Event.objects.order_by("-id")


def events_of_trace(trace_id: str) -> EventQuerySet:
    return Event.objects.all().of_trace(trace_id)


def events_of_run(run_id: Any) -> EventQuerySet:
    return Event.objects.all().of_run(run_id)


def events_about(kind: str, subject_id: str) -> EventQuerySet:
    return Event.objects.all().about(kind, subject_id)


def count_unsealed() -> int:
    return Event.objects.all().unsealed().count()


def is_sealed(event_id: Any) -> bool:
    return Event.objects.all().sealed().filter(id=event_id).exists()


def latest_checkpoint() -> Checkpoint | None:
    return Checkpoint.objects.order_by("-size", "-id").first()


def proof(gseq: int, *, size: int | None = None) -> Proof:
    """Prove that a sealed event is in the tree. Raises: SealedNotFound."""
    top = head().size if size is None else size
    if not 0 <= gseq < top <= head().size:
        raise SealedNotFound(f"Event {gseq} is not in the tree of {top}")
    reader = tiles.Reader()
    path = merkle.inclusion_path(gseq, top, reader.range_root)
    root = reader.range_root(0, top)
    return Proof(gseq, top, reader.leaf(gseq), root, tuple(path))


def consistency(old: int, new: int) -> list[bytes]:
    """Prove that the tree of `old` events is a prefix of that of `new`."""
    if not 0 <= old <= new <= head().size:
        raise SealedNotFound(f"There are no trees of {old} and {new} events")
    return merkle.consistency_path(old, new, tiles.Reader().range_root)


def root_at(size: int) -> str:
    """Tell the root of the first `size` events, in hex."""
    return tiles.Reader().range_root(0, size).hex()


def can_seal() -> bool:
    """Tell whether this host has a witness directory."""
    return witness.is_here()


def check_anchor() -> None:
    """Refuse a store that lacks what this process or the witness has seen.

    Raises: StoreRolledBack, KeyMismatch. Cheap enough for every claim.
    """
    memory.check(head(), witness.folder() if witness.is_here() else None)


def triggers_missing() -> list[str]:
    return triggers.missing(connection)


def triggers_present() -> bool:
    return not triggers_missing()


def sink_cursors() -> list[SinkCursor]:
    return list(SinkCursor.objects.order_by("name"))
