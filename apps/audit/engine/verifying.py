"""Recomputing the whole log: events, columns, tree, checkpoints, witness, payloads.

Reads events in blocks of raw columns (a million in seconds). The first thing wrong
stops it and is named. Order: each event against its body, its columns, its leaf in
the tiles and its journal line; each checkpoint as its size is passed; the head and
the witness; then events not yet sealed, runs with gaps, payloads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.db import connection

from apps.audit.engine import body, comparing, merkle
from apps.audit.engine.comparing import Broken
from apps.audit.models import Event, Head, Tile

#: Events asked for together, and those compared together: so few stay in the
#: processor's nearest memory, where comparing takes half the time.
BLOCK = 16 * 256
HANDFUL = 2 * 256
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the log is whole; if not, what is wrong first, and where."""

    ok: bool
    size: int
    root: str
    unsealed: int = 0
    first_bad: int | None = None
    first_bad_id: str = ""
    problem: str = ""


def verify(progress: Progress | None = None) -> Verdict:
    """Recompute everything from the events. Reads only.

    Others may seal meanwhile: what states the log is read before its head, and what
    comes after the head is for the next time.
    """
    checkpoints, journal = comparing.Checkpoints(), comparing.Journal()
    head = Head.objects.filter(id=1).first() or Head(size=0)
    size, root = head.size, head.root or merkle.EMPTY_ROOT.hex()
    try:
        _check_tree(head, checkpoints, journal, progress)
        unsealed = _check_unsealed()
        comparing.check_runs()
        comparing.check_payloads()
    except Broken as found:
        return Verdict(
            ok=False,
            size=size,
            root=root,
            first_bad=found.gseq,
            first_bad_id=found.event_id,
            problem=found.problem,
        )
    return Verdict(ok=True, size=size, root=root, unsealed=unsealed)


def _check_tree(
    head: Head,
    checkpoints: comparing.Checkpoints,
    journal: comparing.Journal,
    progress: Progress | None,
) -> None:
    frontier = merkle.Frontier()
    while frontier.size < head.size:
        end = min(frontier.size + BLOCK, head.size)
        stored = _tiles(frontier.size, end)
        for rows in _block(frontier.size, end):
            start = frontier.size
            leaves = _check_rows(rows, start)
            place = start % BLOCK * 32
            _check_tiles(leaves, stored[place : place + HANDFUL * 32], start)
            journal.check(rows, start)
            checkpoints.follow(frontier, leaves)
        if frontier.size < end:
            raise Broken(frontier.size, "the event is missing")
        if progress is not None:
            progress(frontier.size, head.size)
    if head.size and frontier.root().hex() != head.root:
        raise Broken(None, "the head's root is not the root of the events")
    _check_nothing_beyond()
    checkpoints.finish(head.size)
    journal.finish(head.size)


def check_alone() -> None:
    """Check the store against itself: rows, leaves, root; no witness is asked.

    Raises: Broken.
    """
    head, frontier = Head.load(), merkle.Frontier()
    while frontier.size < head.size:
        leaves = check_slice(frontier.size, min(frontier.size + BLOCK, head.size))
        frontier.append(leaves)
    if head.size and frontier.root().hex() != head.root:
        raise Broken(None, "the head's root is not the root of the events")
    _check_nothing_beyond()


def check_slice(low: int, high: int) -> list[bytes]:
    """Check sealed events against their bodies, columns and leaves; tell the leaves.

    Safe beside sealing: leaves are only ever added. Shape: `low` begins a tile.
    Raises: Broken.
    """
    leaves: list[bytes] = []
    for rows in _block(low, high):
        leaves += _check_rows(rows, low + len(leaves))
    if len(leaves) < high - low:
        raise Broken(low + len(leaves), "the event is missing")
    indexes = range(low // 256, -(-high // 256))
    tiles = _tiles_of(0, indexes)
    above = _tiles_of(
        1, range(low // 65536, -(-high // 65536))
    )  # read after its leaves
    for index in indexes:
        stored = tiles.get(index, b"")
        part = leaves[index * 256 - low : (index + 1) * 256 - low]
        for place, leaf in enumerate(part):
            if stored[place * 32 : place * 32 + 32] != leaf:
                at = index * 256 + place
                raise Broken(at, "the event is not the leaf that was sealed")
        if len(part) == 256:
            _check_parent(index, part, above.get(index // 256, b""))
    return leaves


def _tiles_of(level: int, indexes: range) -> dict[int, bytes]:
    rows = Tile.objects.filter(
        level=level, index__gte=indexes.start, index__lt=indexes.stop
    )
    found = rows.order_by("index").values_list("index", "hashes")
    return {index: bytes(hashes) for index, hashes in found}


def _check_parent(index: int, leaves: list[bytes], above: bytes) -> None:
    """Compare a full tile with its place in the tile above."""
    place = index % 256 * 32
    frontier = merkle.Frontier()
    frontier.append(leaves)
    if above[place : place + 32] != frontier.root():
        raise Broken(index * 256, "the leaves are not those the tree was grown from")


def _check_rows(rows: list[tuple[Any, ...]], start: int) -> list[bytes]:
    """Check a handful at once; one that looks wrong is gone through row by row."""
    gseqs, texts, digests, heads, tails, nulls, _ = zip(*rows, strict=True)
    leaves = [sha256(b"\x00" + each).digest() for each in _encoded(texts)]
    whole = (
        gseqs == tuple(range(start, start + len(rows)))
        and b"".join(leaves).hex() == "".join(digests)
        and body.all_stand_between(texts, heads, tails, sum(nulls))
    )
    if not whole:
        _check_each(rows, start)
    return leaves


def _encoded(texts: Sequence[str]) -> list[bytes]:
    """Half a character is rare, and asking for it each time is not free."""
    try:
        return list(map(str.encode, texts))
    except UnicodeEncodeError:
        return list(map(_bytes, texts))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _check_each(rows: list[tuple[Any, ...]], start: int) -> None:
    for at, (gseq, text, digest, head, tail, nulls, _) in enumerate(rows, start):
        if gseq != at:
            raise Broken(at, "the event is missing")
        if merkle.leaf_hash(_bytes(text)).hex() != digest:
            raise Broken(at, "the body is not what the digest says")
        if not body.all_stand_between((text,), (head,), (tail,), nulls):
            _check_closely(at)


def _check_closely(gseq: int) -> None:
    try:
        whole = body.repeats(Event.objects.get(gseq=gseq))
    except ValueError:  # a column that cannot even be read
        whole = False
    if not whole:
        raise Broken(gseq, "a column is not what the body says")


def _tiles(low: int, high: int) -> bytes:
    """Read the leaves that were sealed. Shape: `low` begins a tile."""
    tiles = Tile.objects.filter(
        level=0, index__gte=low // 256, index__lt=-(-high // 256)
    )
    hashes = tiles.order_by("index").values_list("hashes", flat=True)
    return b"".join(map(bytes, hashes))


def _check_tiles(leaves: list[bytes], stored: bytes, start: int) -> None:
    if stored == b"".join(leaves):
        return
    for at, leaf in enumerate(leaves):
        if stored[at * 32 : at * 32 + 32] != leaf:
            raise Broken(start + at, "the event is not the leaf that was sealed")
    if len(stored) > len(leaves) * 32 and start + len(stored) // 32 > _size_now():
        raise Broken(start + len(leaves), "the tree has a leaf without an event")


def _check_nothing_beyond() -> None:
    """Read the last number before the head, which was written with it."""
    last = Event.objects.filter(gseq__isnull=False).order_by("-gseq").first()
    size = _size_now()
    if last is None or last.gseq is None or last.gseq < size:
        return
    beyond = Event.objects.filter(gseq__gte=size).order_by("gseq").first() or last
    raise Broken(beyond.gseq, "the event is numbered beyond the head", beyond.id)


def _size_now() -> int:
    return Head.objects.filter(id=1).values_list("size", flat=True).first() or 0


def _check_unsealed() -> int:
    count = 0
    for event in Event.objects.all().unsealed().iterator(chunk_size=BLOCK):
        leaf = merkle.leaf_hash(event.body.encode("utf-8", "surrogatepass"))
        if leaf.hex() != event.digest or not body.repeats(event):
            raise Broken(None, "an event not yet sealed was altered", event.id)
        count += 1
    return count


def _block(low: int, high: int) -> Iterator[list[tuple[Any, ...]]]:
    """Read a block, a handful of rows at a time.

    Shape: gseq, body, digest, edges of the body and nulls in them, journal line.
    """
    edges, line = body.edges_sql(connection.vendor), body.line_sql(connection.vendor)
    statement = (
        f"SELECT gseq, body, digest, {edges}, {line} FROM audit_event"  # noqa: S608
    ).replace("%", "%%")
    with connection.cursor() as cursor:
        cursor.execute(
            f"{statement} WHERE gseq >= %s AND gseq < %s ORDER BY gseq", [low, high]
        )
        while rows := cursor.fetchmany(HANDFUL):
            yield rows
