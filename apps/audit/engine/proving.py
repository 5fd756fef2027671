"""Proofs that an event is in the tree, and that the tree only grew."""

from dataclasses import dataclass

from apps.audit import queries
from apps.audit.engine import merkle, tiles
from apps.audit.errors import SealedNotFound


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


def proof(gseq: int, *, size: int | None = None) -> Proof:
    """Prove that a sealed event is in the tree. Raises: SealedNotFound."""
    top = queries.head().size if size is None else size
    if not 0 <= gseq < top <= queries.head().size:
        raise SealedNotFound(f"Event {gseq} is not in the tree of {top}")
    reader = tiles.Reader()
    path = merkle.inclusion_path(gseq, top, reader.range_root)
    root = reader.range_root(0, top)
    return Proof(gseq, top, reader.leaf(gseq), root, tuple(path))


def consistency(old: int, new: int) -> list[bytes]:
    """Prove that the tree of `old` events is a prefix of that of `new`."""
    if not 0 <= old <= new <= queries.head().size:
        raise SealedNotFound(f"There are no trees of {old} and {new} events")
    return merkle.consistency_path(old, new, tiles.Reader().range_root)


def root_at(size: int) -> str:
    """Tell the root of the first `size` events, in hex."""
    return tiles.Reader().range_root(0, size).hex()
