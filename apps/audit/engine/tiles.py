"""Where the tree's nodes are kept: tiles of 256 hashes at every eighth level.

Extending reads at most the last tile of a level; any proof reads O(log n) tiles.
"""

from apps.audit.engine import merkle
from apps.audit.models import Tile

HEIGHT = 8
WIDTH = 1 << HEIGHT
HASH_BYTES = 32


def append(level: int, start: int, nodes: list[bytes]) -> None:
    """Store new nodes of a tile level, the first at `start`."""
    fresh: list[Tile] = []
    at = 0
    while at < len(nodes):
        index, used = divmod(start + at, WIDTH)
        part = nodes[at : at + WIDTH - used]
        at += len(part)
        if not used:
            fresh.append(Tile(level=level, index=index, hashes=b"".join(part)))
            continue
        tile = Tile.objects.get(level=level, index=index)
        known = bytes(tile.hashes)[: used * HASH_BYTES]
        tile.hashes = known + b"".join(part)
        tile.save(update_fields=["hashes"])
    Tile.objects.bulk_create(fresh)


class Reader:
    """Tells the root of any range of leaves; remembers the tiles it has read."""

    def __init__(self) -> None:
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def range_root(self, low: int, high: int) -> bytes:
        """Return the root of leaves [low, high) as RFC 6962 splits them."""
        count = high - low
        if count == 0:
            return merkle.EMPTY_ROOT
        if count & (count - 1) == 0:
            return self._node(count.bit_length() - 1, low)
        middle = low + merkle.split_at(count)
        left = self.range_root(low, middle)
        return merkle.node_hash(left, self.range_root(middle, high))

    def leaf(self, index: int) -> bytes:
        return self._node(0, index)

    def _node(self, height: int, first_leaf: int) -> bytes:
        level, rest = divmod(height, HEIGHT)
        index, offset = divmod(first_leaf >> level * HEIGHT, WIDTH)
        nodes = self._hashes(level, index)[offset : offset + (1 << rest)]
        if len(nodes) != 1 << rest:
            raise LookupError(f"tile {level}/{index} is short")
        while len(nodes) > 1:
            pairs = iter(nodes)
            nodes = [merkle.node_hash(a, b) for a, b in zip(pairs, pairs, strict=True)]
        return nodes[0]

    def _hashes(self, level: int, index: int) -> list[bytes]:
        key = (level, index)
        if key not in self._tiles:
            row = Tile.objects.filter(level=level, index=index).first()
            text = b"" if row is None else bytes(row.hashes)
            self._tiles[key] = [
                text[at : at + HASH_BYTES] for at in range(0, len(text), HASH_BYTES)
            ]
        return self._tiles[key]
