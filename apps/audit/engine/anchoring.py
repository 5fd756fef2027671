"""Is this the store that the witness knows? Asked at start and every ten seconds.

1. The file, the epoch, the size, the event at the anchored size (`memory`, `witness`).
2. The root of the tree at the newest signed statement: O(log n) tiles.
3. The newest events, and a slice of the older ones, against body, columns and leaf;
   slices walk through the whole log, so that an edited event is met in its turn.
What fails rings the alarm; a whole verification that passes ends it.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from django.db import (
    DatabaseError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)

from apps.audit.engine import (
    alarm,
    comparing,
    journal,
    keys,
    memory,
    merkle,
    opened,
    recording,
    sealing,
    tiles,
    verifying,
    witness,
)
from apps.audit.errors import StoreInDoubt, StoreRolledBack
from apps.audit.models import Event, Head
from apps.common import canonical
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import Invalid
from apps.common.statements import Reading

logger = logging.getLogger(__name__)

#: Events looked at in each check: the newest, and a slice of the older ones.
TAIL_EVENTS = 2048
SLICE_EVENTS = 16 * 1024
#: What SQLite says of a file that is no longer a whole database of ours.
#: An I/O error that passes ends its alarm: the store then verifies whole.
_RUINED = (
    "malformed",
    "not a database",
    "no such table",
    "disk image",
    "disk I/O error",
)
_walked = 0


_HEAD = Reading(Head.objects.all, "WHERE id = 1")


def check_claim() -> None:
    """Refuse to claim from a store in doubt: two looks at files, one row read.

    Raises: StoreInDoubt and its kin.
    """
    check_here()
    seen = memory.seen()
    head = next(iter(_HEAD.fetch()), None)
    if head is None:
        return
    if head.alarm:
        raise StoreInDoubt("The clock's host found the store changed.")
    if seen is not None and seen.epoch == head.epoch:
        memory.check_quickly(head, seen)
    elif standing := check_store(walk=False):
        raise StoreInDoubt(standing.problem, alarm_id=standing.id)


def check_here() -> None:
    """The part that asks no table: a standing alarm, an exchanged file.

    Raises: StoreInDoubt, StoreExchanged.
    """
    opened.check_file()
    standing = alarm.current()
    if standing is not None:
        raise StoreInDoubt(standing.problem, alarm_id=standing.id)


def check_store(*, walk: bool = True) -> alarm.Alarm | None:
    """Compare the store with everything outside it; ring or end the alarm.

    Returns the standing alarm, if any.   Raises: what hinders the check itself.
    """
    if not connection.in_atomic_block:
        opened.open_anew()
    where = witness.folder() if witness.is_here() else None
    standing = alarm.current()
    if standing is not None and standing.kind == alarm.RESTORING:
        return standing
    problem = _problem(where, walk=walk)
    if problem:
        return _ring(where, problem)
    if standing is None or where is None:
        return standing
    verdict = verifying.verify()
    if not verdict.ok:
        return standing
    how = "the newer store is back: it passed a whole verification"
    with transaction.atomic():
        recording.insert(_ended(standing, how))
    end(where, how=how)
    return None


def _ended(standing: alarm.Alarm, how: str) -> recording.Draft:
    return recording.Draft(
        type="store.alarm_ended",
        actor=SYSTEM,
        subject=("alarm", standing.id),
        workspace_id=None,
        run_id=None,
        trace_id="",
        decision="withdrawn",
        reason=how,
        data={"problem": standing.problem, "detected_at": standing.detected_at},
    )


def end(where: Path, *, how: str) -> None:
    """Take the alarm down everywhere."""
    alarm.end(where, how=how)
    Head.objects.filter(id=1).exclude(alarm="").update(alarm="")
    memory.forget()


def announce(where: Path, *, by: Actor, source: str, reason: str) -> alarm.Alarm:
    """Write the signed announcement, then let it stand in place of any alarm."""
    words = f"{by.label} restores {source}: {reason}"
    standing = alarm.new(alarm.RESTORING, words, **_sides(where))
    said = {
        "actor": by.id,
        "alarm": standing.id,
        "at": standing.detected_at,
        "reason": reason,
        "source": source,
        "witness_head": standing.witness_head,
        "witness_size": standing.witness_size,
    }
    signature = keys.signer().sign(canonical.dumps(said).encode()).hex()
    line = json.dumps({**said, "signature": signature}, sort_keys=True)
    with journal.locked(where):
        journal.append(where / "restores.jsonl", [line])
    alarm.end(where, how=f"superseded by a restore: {words}")
    return alarm.ring(where, standing)


def what_contradicts(where: Path) -> str:
    """Tell what of the store the witness contradicts; "" when nothing."""
    memory.forget()
    opened.open_anew()
    if problem := _problem(where, walk=False):
        return problem
    verdict = verifying.verify()
    return "" if verdict.ok else verdict.problem


def _problem(where: Path | None, *, walk: bool) -> str:
    known = memory.known(where)
    stated = None if where is None else witness.last_note(where)
    try:
        head = Head.objects.filter(id=1).first()
        if head is None:
            return "The store holds no log, the witness does" if known.line else ""
        memory.check(head, known)
        _check_signed_root(stated, head)
        _walk(head.size, SLICE_EVENTS if walk else 0)
        memory.remember(head)
    except StoreRolledBack as found:
        return found.detail
    except comparing.Broken as found:
        place = "" if found.gseq is None else f"Event {found.gseq}: "
        return f"{place}{found.problem}"
    except DatabaseError as found:
        if not _is_ruined(found):
            raise
        if known.line is None:
            raise
        return f"The store cannot be read: {found}"
    return ""


def _is_ruined(error: DatabaseError) -> bool:
    """A store that is away or busy comes back; one that lacks its tables does not."""
    if connection.vendor == "sqlite":
        return any(word in str(error) for word in _RUINED)
    return isinstance(error, ProgrammingError) and not isinstance(
        error, OperationalError
    )


def _check_signed_root(stated: tuple[int, str] | None, head: Head) -> None:
    """Compare the tree with the newest signed statement of this epoch."""
    if stated is None:
        return
    try:
        text = keys.open_note(stated[1], keys.signer().verifier_key)
        size, root, origin = sealing.read_checkpoint(text)
    except Invalid as error:
        raise comparing.Broken(None, f"the newest checkpoint: {error}") from error
    if origin != sealing.origin(head.epoch):
        return
    if size > head.size:
        raise StoreRolledBack(
            f"A checkpoint states {size} events, the database {head.size}"
        )
    try:
        found = tiles.Reader().range_root(0, size)
    except LookupError:
        found = b""
    if found != root:
        raise comparing.Broken(None, f"the tree of {size} events is not the one signed")


def _walk(size: int, most: int) -> None:
    """Look at the newest events and at the next slice of the others."""
    global _walked
    tail = max(0, size - TAIL_EVENTS) // tiles.WIDTH * tiles.WIDTH
    verifying.check_slice(tail, size)
    if _walked >= tail:
        _walked = 0
    upto = min(tail, _walked + most)
    for low in range(_walked, upto, verifying.BLOCK):
        verifying.check_slice(low, min(low + verifying.BLOCK, upto))
    _walked = upto


def _ring(where: Path | None, problem: str) -> alarm.Alarm:
    found = alarm.new(alarm.ROLLED_BACK, problem, **_sides(where))
    if where is not None:
        found = alarm.ring(where, found)
    logger.critical(problem, extra={"event": "store.alarm", "alarm_id": found.id})
    try:
        Head.objects.filter(id=1, alarm="").update(alarm=found.id)
    except DatabaseError:
        logger.warning("the store cannot be told", extra={"event": "store.unreadable"})
    return found


def _sides(where: Path | None) -> dict[str, int | str]:
    sides: dict[str, int | str] = {}
    record = None if where is None else witness.last_line(where)
    if record is not None:
        sides["witness_size"] = witness.next_gseq(record)
        sides["witness_head"] = str(record.get("hash") or record.get("root") or "")
    try:
        head = Head.objects.filter(id=1).first()
    except DatabaseError:
        return sides
    if head is not None:
        last = Event.objects.filter(gseq=head.size - 1).values_list("digest", flat=True)
        sides |= {"store_size": head.size, "store_head": last.first() or ""}
    return sides


@dataclass(frozen=True, slots=True)
class LostRun:
    """A run of which the witness holds events that the store lacks."""

    run_id: str
    #: How many events of it the witness knows, and the newest one's hash.
    witness_seq: int
    witness_head: str
    #: The same of the store.
    store_seq: int
    store_head: str


@dataclass(frozen=True, slots=True)
class LostFuture:
    """What the witness knows and the store lacks or has differently."""

    #: The first number at which they differ; the store's size when they do not.
    fork: int
    events: int
    runs: tuple[LostRun, ...]
    #: The bodies of the events that are kept whole, oldest first.
    kept: tuple[str, ...]
    #: Whether the newest event that the witness knows is among them.
    is_behind: bool


def lost_future(where: Path) -> LostFuture:
    """Compare the whole journal with the whole store, event by event."""
    known = _journal(where)
    stored = dict(
        Event.objects.filter(gseq__isnull=False)
        .values_list("gseq", "digest")
        .iterator(chunk_size=5000)
    )
    lost = {at: line for at, line in known.items() if stored.get(at) != line[0]}
    runs: dict[str, tuple[int, str]] = {}
    for at in sorted(lost):
        digest, run_id, seq = lost[at]
        if run_id:
            runs[run_id] = max(runs.get(run_id, (0, "")), (seq, digest))
    kept = dict.fromkeys(
        text
        for at, text in witness.kept(where)
        if at in lost and merkle.leaf_hash(text.encode()).hex() == lost[at][0]
    )
    return LostFuture(
        fork=min(lost, default=len(stored)),
        events=len(lost),
        runs=tuple(_lost_run(run_id, *side) for run_id, side in sorted(runs.items())),
        kept=tuple(kept),
        is_behind=max(known, default=-1) in lost,
    )


def _journal(where: Path) -> dict[int, tuple[str, str, int]]:
    """Shape: number to (hash, run, place in the run), without what was given up."""
    known: dict[int, tuple[str, str, int]] = {}
    for raw in witness.lines(where):
        record = journal.parse(raw)
        if record is None:
            continue
        if "fork" in record:
            fork = int(record["fork"])
            known = {at: line for at, line in known.items() if at < fork}
        else:
            seq = int(record["run_seq"] or 0)
            line = (str(record["hash"]), str(record["run_id"] or ""), seq)
            known[int(record["gseq"])] = line
    return known


def _lost_run(run_id: str, seq: int, digest: str) -> LostRun:
    last = Event.objects.filter(run_id=run_id).order_by("-run_seq").first()
    return LostRun(
        run_id=run_id,
        witness_seq=seq,
        witness_head=digest,
        store_seq=0 if last is None else last.run_seq or 0,
        store_head="" if last is None else last.digest,
    )
