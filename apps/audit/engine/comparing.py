"""What the recomputed log is compared with: checkpoints, journal, runs, payloads."""

import json
from collections.abc import Iterator
from typing import Any

from django.db import connection

from apps.audit.engine import body, journal, keys, merkle, sealing, witness
from apps.audit.models import Checkpoint, Event, Payload
from apps.common.errors import Invalid


class Broken(Exception):
    """The first thing found wrong."""

    def __init__(self, gseq: int | None, problem: str, event_id: object = "") -> None:
        self.gseq = gseq
        self.problem = problem
        self.event_id = str(event_id or "").replace("-", "")
        if gseq is not None and not self.event_id:
            known = Event.objects.filter(gseq=gseq).values_list("id", flat=True).first()
            self.event_id = known.hex if known else ""
        super().__init__(problem)


class Checkpoints:
    """Every signed statement, compared with the root when its size is passed.

    Made before the head is read: what is signed meanwhile states a longer log.
    """

    def __init__(self) -> None:
        stated = {(size, note) for size, note in _stored_notes()}
        if witness.is_here():
            stated.update(witness.notes(witness.folder()))
        self._stated = sorted(stated)
        self._ends = _ends_of_epochs()
        self._key = keys.signer().verifier_key
        self._next = 0

    def follow(self, frontier: merkle.Frontier, leaves: list[bytes]) -> None:
        """Extend the frontier by the leaves, stopping at each stated size."""
        at = 0
        for size, root, note in self._until(frontier.size + len(leaves)):
            part = leaves[at : at + size - frontier.size]
            frontier.append(part)
            at += len(part)
            if frontier.root() != root:
                problem = f"the tree of {size} events is not the one signed: {note}"
                raise Broken(None, problem)
        frontier.append(leaves[at:])

    def finish(self, size: int) -> None:
        """Refuse a log shorter than a signed statement of the present epoch."""
        for stated, _, _ in self._until(2**63):
            if stated > size:
                raise Broken(size, f"a checkpoint states {stated} events")

    def _until(self, size: int) -> Iterator[tuple[int, bytes, str]]:
        while self._next < len(self._stated) and self._stated[self._next][0] <= size:
            stated, note = self._stated[self._next]
            self._next += 1
            said, root, origin = _read(note, self._key)
            if said != stated:
                raise Broken(None, f"a checkpoint states {said}, its row {stated}")
            if stated <= self._ends.get(origin, stated):
                yield stated, root, origin


class Journal:
    """The witness's lines, compared block by block, or one by one once they differ.

    Made before the head is read: what is sealed meanwhile makes the log only longer.
    """

    def __init__(self) -> None:
        where = witness.folder() if witness.is_here() else None
        self._text = None if where is None else witness.Text(where)
        self._next = 0 if where is None else witness.next_gseq(witness.last_line(where))
        self._known: dict[int, str] | None = None

    def check(self, rows: list[tuple[Any, ...]], start: int) -> None:
        """Compare a block's rows, whose last column is the journal line."""
        if self._text is None:
            return
        if self._known is None:
            expected = "\n".join([row[-1] for row in rows]).encode() + b"\n"
            if self._text.read(len(expected)) == expected:
                return
            self._known = known_hashes()
        for at, row in enumerate(rows, start):
            if self._known.get(at, row[2]) != row[2]:
                raise Broken(at, "the event is not the one the witness saw")

    def finish(self, size: int) -> None:
        if self._next > size:
            problem = f"the witness holds {self._next} events, the database {size}"
            raise Broken(size, problem)


def known_hashes() -> dict[int, str]:
    """Read the whole journal; a fork drops the lost future before it."""
    known: dict[int, str] = {}
    for raw in witness.lines(witness.folder()):
        record = journal.parse(raw)
        if record is None:
            continue
        if "fork" in record:
            fork = int(record["fork"])
            known = {at: hash_ for at, hash_ in known.items() if at < fork}
        else:
            known[int(record["gseq"])] = str(record["hash"])
    return known


def check_runs() -> None:
    """Find a run whose events do not count from one without a gap."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT e.run_id, count(*), max(e.run_seq), max(h.last_seq)"
            " FROM audit_event e LEFT JOIN audit_runhead h ON h.run_id = e.run_id"
            " WHERE e.run_id IS NOT NULL GROUP BY e.run_id"
            " HAVING count(*) <> max(e.run_seq)"
            " OR coalesce(max(h.last_seq), 0) <> count(*)"
        )
        row = cursor.fetchone()
    if row is not None:
        run_id, count, top, last = row
        raise Broken(
            None, f"run {run_id} has {count} events, the last numbered {last or top}"
        )


def check_payloads() -> None:
    """Compare every payload with its commitment; a lack needs an erasure event."""
    rows = Payload.objects.values_list(
        "event__gseq", "event_id", "event__payload_digest", "salt", "text"
    )
    for gseq, event_id, digest, salt, text in rows.iterator(chunk_size=2000):
        if body.payload_digest(salt, text) != digest:
            raise Broken(gseq, "the payload is not what the event commits to", event_id)
    erased = _erased()
    gone = (
        Event.objects.exclude(payload_digest="")
        .filter(payload__isnull=True)
        .values_list("gseq", "id")
    )
    for gseq, event_id in gone.iterator(chunk_size=2000):
        if event_id.hex not in erased and event_id.hex not in (erased := _erased()):
            raise Broken(gseq, "the payload is gone without an erasure", event_id)


def _erased() -> set[str]:
    found: set[str] = set()
    texts = Event.objects.filter(type="audit.payloads_erased").values_list(
        "body", flat=True
    )
    for text in texts.iterator(chunk_size=500):
        found.update(json.loads(text)["data"]["events"])
    return found


def _stored_notes() -> Iterator[tuple[int, str]]:
    rows = Checkpoint.objects.values_list("size", "note")
    return rows.iterator(chunk_size=2000)


def _read(note: str, key: str) -> tuple[int, bytes, str]:
    try:
        text = keys.open_note(note, key)
        return sealing.read_checkpoint(text)
    except Invalid as error:
        raise Broken(
            None, f"a checkpoint is not signed by this key: {error}"
        ) from error


def _ends_of_epochs() -> dict[str, int]:
    """Shape: origin to the size up to which its statements still bind.

    An accepted recovery gives up what an earlier epoch held beyond the fork.
    """
    ends: dict[str, int] = {}
    if not witness.is_here():
        return ends
    for raw in witness.lines_with(witness.folder(), b'"fork"'):
        record = journal.parse(raw)
        if record is not None and "fork" in record:
            fork = int(record["fork"])
            ends.setdefault(sealing.origin(record["previous"]), fork)
            ends = {origin: min(end, fork) for origin, end in ends.items()}
    return ends
