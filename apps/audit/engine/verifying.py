"""Recomputing the whole log: events, columns, tree, checkpoints, witness, payloads.

Reads events in blocks of raw columns (a million in seconds). The first thing wrong
stops it and is named. Order: each event against its body, its columns, its leaf in
the tiles and its journal line; each checkpoint as its size is passed; the head and
the witness; then events not yet sealed, runs with gaps, payloads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.db import connection

from apps.audit.engine import body, comparing, merkle, witness
from apps.audit.engine.comparing import Broken
from apps.audit.models import Event, Head, Tile

BLOCK = 16 * 256
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
    """Recompute everything from the events. Reads only."""
    head = Head.objects.filter(id=1).first() or Head(size=0)
    size, root = head.size, head.root or merkle.EMPTY_ROOT.hex()
    try:
        _check_tree(head, progress)
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


def _check_tree(head: Head, progress: Progress | None) -> None:
    checkpoints = comparing.Checkpoints()
    journal = comparing.Journal()
    frontier = merkle.Frontier()
    while frontier.size < head.size:
        start = frontier.size
        rows = _block(start, min(start + BLOCK, head.size))
        leaves = _check_rows(rows, start)
        _check_tiles(leaves, start)
        journal.check(rows, start)
        if start + len(rows) < min(start + BLOCK, head.size):
            raise Broken(start + len(rows), "the event is missing")
        checkpoints.follow(frontier, leaves)
        if progress is not None:
            progress(frontier.size, head.size)
    if head.size and frontier.root().hex() != head.root:
        raise Broken(None, "the head's root is not the root of the events")
    _check_nothing_beyond(head.size)
    checkpoints.finish(head.size)
    if witness.is_here():
        journal.finish(head.size)


def _check_rows(rows: list[tuple[Any, ...]], start: int) -> list[bytes]:
    leaves: list[bytes] = []
    keep, matches = leaves.append, body.matches
    for at, row in enumerate(rows, start):
        text, digest = row[1], row[2]
        leaf = sha256(b"\x00" + text.encode("utf-8", "surrogatepass")).digest()
        if row[0] != at:
            raise Broken(at, "the event is missing")
        if leaf.hex() != digest:
            raise Broken(at, "the body is not what the digest says", _id(row))
        if not matches(text, row[3:]):
            raise Broken(at, "a column is not what the body says", _id(row))
        keep(leaf)
    return leaves


def _check_tiles(leaves: list[bytes], start: int) -> None:
    first = start // 256
    stored = b"".join(
        bytes(text)
        for text in Tile.objects.filter(
            level=0, index__gte=first, index__lt=first + BLOCK // 256
        )
        .order_by("index")
        .values_list("hashes", flat=True)
    )
    if stored == b"".join(leaves):
        return
    for at, leaf in enumerate(leaves):
        if stored[at * 32 : at * 32 + 32] != leaf:
            raise Broken(start + at, "the event is not the leaf that was sealed")
    if len(stored) > len(leaves) * 32:
        raise Broken(start + len(leaves), "the tree has a leaf without an event")


def _check_nothing_beyond(size: int) -> None:
    beyond = Event.objects.filter(gseq__gte=size).order_by("gseq").first()
    if beyond is not None:
        raise Broken(beyond.gseq, "the event is numbered beyond the head", beyond.id)


def _check_unsealed() -> int:
    count = 0
    with connection.cursor() as cursor:
        cursor.execute(f"{_select()} WHERE gseq IS NULL ORDER BY id")
        while rows := cursor.fetchmany(BLOCK):
            for row in rows:
                text = row[1]
                if merkle.leaf_hash(text.encode()).hex() != row[2] or not (
                    body.matches(text, row[3:])
                ):
                    problem = "an event not yet sealed was altered"
                    raise Broken(None, problem, _id(row))
            count += len(rows)
    return count


def _block(low: int, high: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"{_select()} WHERE gseq >= %s AND gseq < %s ORDER BY gseq", [low, high]
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _id(row: tuple[Any, ...]) -> str:
    return str(row[3 + body.COLUMNS.index("id")])


def _select() -> str:
    """Shape: gseq, body, digest, then body.COLUMNS as the body writes them."""
    wanted = ", ".join(_as_text(name) for name in body.COLUMNS)
    return f"SELECT gseq, body, digest, {wanted} FROM audit_event"  # noqa: S608 (names from COLUMNS)


def _as_text(name: str) -> str:
    if name == "occurred_at":
        return _TIME[connection.vendor]
    if connection.vendor == "postgresql" and name in ("id", "run_id", "workspace_id"):
        return f"replace({name}::text, '-', '')"
    return name


_TIME = {
    "sqlite": (
        "CASE length(occurred_at) WHEN 26 THEN replace(occurred_at, ' ', 'T') || 'Z'"
        " WHEN 19 THEN replace(occurred_at, ' ', 'T') || '.000000Z'"
        " ELSE occurred_at END"
    ),
    "postgresql": (
        "to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    ),
}
