"""The witness: files outside the database that remember what was sealed.

`journal-<day>.jsonl` holds one line per sealed event, `kept-<day>.jsonl` the whole
text of those that a lost future is told by, `checkpoints.jsonl` the signed notes,
`public-key` the verifier key. A `fork` line marks where an operator accepted a
recovery: what stands before it with that number or a higher one is the lost future.
The witness is appended only after the database has committed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet, Value
from django.db.models.functions import Concat

from apps.audit import ports
from apps.audit.engine import body, journal, keys
from apps.audit.errors import KeyMismatch, NoWitness, StoreRolledBack
from apps.audit.models import Event, Head
from apps.common import clock

CHUNK = 2000
#: How much of a file is looked through at once.
BLOCK_BYTES = 1 << 20


def is_here() -> bool:
    return str(settings.POLAR_WITNESS_DIR) not in ("", ".")


def folder() -> Path:
    """Return the witness directory, with the public key in it.

    Raises: NoWitness, KeyMismatch.
    """
    if not is_here():
        raise NoWitness
    where = Path(settings.POLAR_WITNESS_DIR)
    key_file = where / "public-key"
    mine = keys.signer().verifier_key
    if not key_file.exists():
        with journal.locked(where):
            if not key_file.exists():
                journal.append(key_file, [mine])
    known = key_file.read_text().strip()
    if known != mine:
        raise KeyMismatch(
            f"{key_file} holds another key than POLAR_AUDIT_KEY derives", known=known
        )
    return where


def last_line(where: Path) -> dict[str, Any] | None:
    """Return the journal's last whole line: an event or a fork."""
    for path in sorted(where.glob("journal-*.jsonl"), reverse=True):
        record = journal.last(path)
        if record is not None:
            return record
    return None


def next_gseq(record: dict[str, Any] | None) -> int:
    """Tell the number of the event that the journal expects next."""
    if record is None:
        return 0
    return int(record["fork"]) if "fork" in record else int(record["gseq"]) + 1


def check(record: dict[str, Any] | None, head: Head) -> int:
    """Refuse a store that lacks what the journal holds; tell what comes next.

    `record` is the journal's last line, read before the head: another process may
    seal in between. Raises: StoreRolledBack, naming both sides.
    """
    at = next_gseq(record)
    if record is None:
        return at
    known = record["epoch"]
    if known != head.epoch:
        raise StoreRolledBack(
            "The witness knows another epoch", witness_epoch=known, epoch=head.epoch
        )
    if at > head.size:
        raise StoreRolledBack(
            f"The witness holds {at} events, the database {head.size}",
            witness_size=at,
            size=head.size,
        )
    if "hash" in record and not _has(at - 1, record["hash"]):
        raise StoreRolledBack(f"Event {at - 1} is not the one the witness saw")
    return at


def catch_up(where: Path) -> int:
    """Append every committed event that the journal lacks, and fsync.

    Returns how many. Again: appends nothing.
    """
    added = 0
    with journal.locked(where):
        head = Head.load()
        at = check(last_line(where), head)  # nobody else writes it meanwhile
        path = where / f"journal-{clock.now():%Y%m%d}.jsonl"
        while at < head.size:
            upto = min(at + CHUNK, head.size)
            # Kept first: what the journal knows to be lost can then be told.
            kept = _kept_lines(at, upto)
            journal.append(where / path.name.replace("journal", "kept"), kept)
            lines = _lines(at, upto)
            journal.append(path, lines)
            at += len(lines)
            added += len(lines)
    return added


def mark_fork(where: Path, head: Head, previous: str, *, at: int) -> None:
    """Write where the accepted recovery leaves the history known before.

    Events from `at` on that the store has differently follow the mark; a second
    mark then says where the new epoch goes on.
    """
    mark = {"epoch": head.epoch, "previous": previous, "root": head.root}
    with journal.locked(where):
        path = where / f"journal-{clock.now():%Y%m%d}.jsonl"
        for fork in dict.fromkeys((at, head.epoch_size)):
            journal.append(path, [json.dumps({**mark, "fork": fork}, sort_keys=True)])
            for low in range(fork, head.epoch_size, CHUNK):
                upto = min(low + CHUNK, head.epoch_size)
                journal.append(path, _lines(low, upto))


def keep_note(where: Path, size: int, note: str) -> None:
    line = json.dumps({"note": note, "size": size}, ensure_ascii=False, sort_keys=True)
    with journal.locked(where):
        journal.append(where / "checkpoints.jsonl", [line])


def notes(where: Path) -> Iterator[tuple[int, str]]:
    """Shape: (size, note), oldest first."""
    path = where / "checkpoints.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            record = journal.parse(raw)
            if record is not None:
                yield int(record["size"]), str(record["note"])


def last_note(where: Path) -> tuple[int, str] | None:
    """Shape: (size, note) of the newest signed statement."""
    record = journal.last(where / "checkpoints.jsonl")
    return None if record is None else (int(record["size"]), str(record["note"]))


def kept(where: Path) -> Iterator[tuple[int, str]]:
    """Shape: (number, body) of the events kept whole, oldest first."""
    for path in sorted(where.glob("kept-*.jsonl")):
        with path.open("rb") as file:
            for raw in file:
                record = journal.parse(raw)
                if record is not None:
                    yield int(record["gseq"]), str(record["body"])


def lines(where: Path) -> Iterator[bytes]:
    for path in sorted(where.glob("journal-*.jsonl")):
        with path.open("rb") as file:
            yield from file


def lines_with(where: Path, mark: bytes) -> Iterator[bytes]:
    """Yield the lines that hold a mark, without taking every file apart."""
    for path in sorted(where.glob("journal-*.jsonl")):
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES) + file.readline():
                if mark in block:
                    yield from (x for x in block.splitlines(True) if mark in x)


class Text:
    """The journal's files read as one; no file stays open between reads."""

    def __init__(self, where: Path) -> None:
        self._paths = sorted(where.glob("journal-*.jsonl"))
        self._at = 0

    def read(self, count: int) -> bytes:
        """Return the next bytes; fewer at the end."""
        parts: list[bytes] = []
        while count and self._paths:
            with self._paths[0].open("rb") as file:
                file.seek(self._at)
                part = file.read(count)
            parts.append(part)
            self._at += len(part)
            count -= len(part)
            if count:
                self._paths.pop(0)
                self._at = 0
        return b"".join(parts)


def _lines(low: int, high: int) -> list[str]:
    line = body.line_sql(connection.vendor).replace("%", "%%")
    statement = f"SELECT {line} FROM audit_event"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            f"{statement} WHERE gseq >= %s AND gseq < %s ORDER BY gseq", [low, high]
        )
        return [row[0] for row in cursor.fetchall()]


def _kept_lines(low: int, high: int) -> list[str]:
    return [
        json.dumps({"body": text, "gseq": gseq}, sort_keys=True)
        for gseq, text in _kept_events(low, high).values_list("gseq", "body")
    ]


def _kept_events(low: int, high: int) -> QuerySet[Event]:
    # Not the bare column: SQLite would take the types' index, and read every event of
    # these types, however old, for a handful of new ones.
    found = Event.objects.annotate(kind=Concat("type", Value("")))
    found = found.filter(gseq__gte=low, gseq__lt=high, kind__in=ports.kept_whole())
    return found.order_by("gseq")


def _has(gseq: int, digest: str) -> bool:
    return Event.objects.filter(gseq=gseq, digest=digest).exists()
