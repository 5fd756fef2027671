"""The RFC 6962 Merkle tree as pure functions over hashes.

Leaves are hashed with 0x00 in front, nodes with 0x01. A `Frontier` holds one hash
per set bit of the size and grows by whole batches, level by level; paths are made
from any function that can tell the root of leaves [lo, hi).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

#: The root of leaves [lo, hi), where lo is aligned as RFC 6962 splits.
RangeRoot = Callable[[int, int], bytes]

EMPTY_ROOT = sha256(b"").digest()
LEAF = b"\x00"
NODE = b"\x01"


def leaf_hash(data: bytes) -> bytes:
    return sha256(LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(NODE + left + right).digest()


def split_at(count: int) -> int:
    """Tell the largest power of two smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1


class Frontier:
    """The right edge of a tree: enough to extend it and to tell its root."""

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        given = iter(hashes)
        self.size = size
        self._pending: list[bytes | None] = [
            next(given) if size >> level & 1 else None
            for level in range(size.bit_length())
        ]

    def hashes(self) -> list[bytes]:
        """Return one hash per set bit of the size, lowest level first."""
        return [node for node in self._pending if node is not None]

    def copy(self) -> "Frontier":
        return Frontier(self.size, self.hashes())

    def extend(self, leaves: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
        """Append leaf hashes; yield every level's new complete nodes.

        Shape: (level, nodes) from the leaves up. Exhaust it, or use `append`.
        """
        nodes = list(leaves)
        self.size += len(nodes)
        level = 0
        while nodes:
            yield level, nodes
            if level == len(self._pending):
                self._pending.append(None)
            left = self._pending[level]
            row = nodes if left is None else [left, *nodes]
            self._pending[level] = row[-1] if len(row) % 2 else None
            pairs = iter(row)
            nodes = [
                sha256(NODE + a + b).digest()
                for a, b in zip(pairs, pairs, strict=False)
            ]
            level += 1

    def append(self, leaves: Sequence[bytes]) -> None:
        for _ in self.extend(leaves):
            pass

    def root(self) -> bytes:
        found: bytes | None = None
        for node in self._pending:
            if node is not None:
                found = node if found is None else node_hash(node, found)
        return EMPTY_ROOT if found is None else found


def inclusion_path(index: int, size: int, root_of: RangeRoot) -> list[bytes]:
    """Prove that leaf `index` is in the tree of `size`.

    Source: RFC 6962 section 2.1.1.
    """
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + split_at(high - low)
        if index < middle:
            path.append(root_of(middle, high))
            high = middle
        else:
            path.append(root_of(low, middle))
            low = middle
    return path[::-1]


def consistency_path(old: int, size: int, root_of: RangeRoot) -> list[bytes]:
    """Prove that the tree of `old` leaves is a prefix of the tree of `size`.

    Source: RFC 6962 section 2.1.2.
    """
    if old in (0, size):
        return []
    path: list[bytes] = []
    low, high, whole = 0, size, True
    while old != high:
        middle = low + split_at(high - low)
        if old <= middle:
            path.append(root_of(middle, high))
            high = middle
        else:
            path.append(root_of(low, middle))
            low, whole = middle, False
    if not whole:
        path.append(root_of(low, high))
    return path[::-1]


def root_from_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes]
) -> bytes | None:
    """Compute the root an inclusion path leads to; None for an impossible path.

    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size:
        return None
    node, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            found = node_hash(step, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, step)
        node, last = node >> 1, last >> 1
    return found if last == 0 else None


def is_consistent(
    old: tuple[int, bytes], new: tuple[int, bytes], path: Sequence[bytes]
) -> bool:
    """Check that the old tree is a prefix of the new one. Shape: (size, root) each.

    Source: RFC 9162 section 2.1.4.2.
    """
    (old_size, old_root), (size, root) = old, new
    if old_size in (0, size):
        return not path and (old_size == 0 or old_root == root)
    if not 0 < old_size < size:
        return False
    steps = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not steps:
        return False
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(step, first), node_hash(step, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, step)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == root
