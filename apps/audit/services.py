"""The verbs of the log: record, seal, sign, verify, erase, export, push.

`record` is called last inside every change's transaction. `seal` is a service, not
a process: the clock calls it every 200 ms, and an effect that must not be forgotten
calls it at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from django.db import connection, transaction

from apps.audit import ports, queries
from apps.audit.engine import (
    alarm,
    anchoring,
    exporting,
    keys,
    proving,
    pushing,
    recording,
    sealing,
    triggers,
    verifying,
    witness,
)
from apps.audit.engine.alarm import Alarm as Alarm
from apps.audit.engine.anchoring import LostFuture as LostFuture
from apps.audit.engine.anchoring import LostRun as LostRun
from apps.audit.engine.comparing import Broken
from apps.audit.engine.telling import Told as Told
from apps.audit.engine.telling import told as told
from apps.audit.engine.verifying import Progress, Verdict
from apps.audit.errors import SealedNotFound, SinkRefused, StoreDamaged
from apps.audit.models import Checkpoint, Event, Head, Payload
from apps.common import ids
from apps.common.actor import Actor
from apps.common.errors import Invalid

SEAL_LIMIT = 500
ERASE_LIMIT = 500
PUSH_BATCHES = 20
#: So many events fit into one file of the desk.
MOST_ZIPPED = 50_000


def record(  # noqa: PLR0913 (one event, one call: every app writes this line)
    *,
    type: str,
    actor: Actor,
    subject: tuple[str, str] = ("", ""),
    workspace_id: UUID | None = None,
    run_id: UUID | None = None,
    trace_id: str | None = None,
    decision: str = "",
    reason: str = "",
    data: dict[str, Any] | None = None,
    payload: dict[str, Any] | None = None,
    fence: int = 0,
) -> Event:
    """Write one event in the transaction of the change it describes.

    `fence`: of whoever carries the run; 0 for everybody else.
    Writes: Event, Payload, RunHead (one row lock per run, none that is global).
    Raises: OutsideTransaction; Invalid for an undeclared type or a float; Fenced when
    the run was carried by somebody else since, who has written.
    Again: another event; an event is a fact, not a state.
    """
    draft = recording.Draft(
        type=type,
        actor=actor,
        subject=(subject[0], str(subject[1])),
        workspace_id=workspace_id,
        run_id=run_id,
        trace_id=ids.current_trace_id() if trace_id is None else trace_id,
        decision=decision,
        reason=reason,
        data=data or {},
        payload=payload,
        fence=fence,
    )
    return recording.insert(draft)


def seal(*, limit: int = SEAL_LIMIT) -> int:
    """Number the next events, grow the tree, tell the witness.

    Writes: Event.gseq, Tile, Head, Checkpoint; the witness directory.
    Raises: NoWitness, KeyMismatch, StoreRolledBack. Again: seals what came since.
    """
    if not 1 <= limit <= SEAL_LIMIT:
        raise Invalid(f"A batch has 1 to {SEAL_LIMIT} events")
    return sealing.seal(limit)


def seal_all() -> int:
    """Seal until nothing waits. Returns how many."""
    total = 0
    while sealed := seal():
        total += sealed
    return total


def checkpoint() -> Checkpoint:
    """Seal everything and sign the head now."""
    seal_all()
    return sealing.sign_checkpoint(witness.folder(), Head.load())


def epoch() -> str:
    """Return the epoch of the store, beginning the first at first use."""
    return recording.current_epoch()


def begin_epoch(*, by: Actor, reason: str) -> str:
    """Accept the store as it is after a recovery: begin a new epoch, end the alarm.

    Writes: Head, an event, a fork mark in the witness; each sink is told by its push.
    Raises: Invalid without a reason; StoreDamaged when the store contradicts itself,
    for such a history cannot be accepted.
    Source: docs/runbooks/a-swapped-store.md
    """
    if not reason.strip():
        raise Invalid("Say why this history is accepted")
    where = witness.folder()
    check_whole()
    lost = anchoring.lost_future(where)
    with transaction.atomic():
        head, before = sealing.begin_epoch()
        fork = min(lost.fork, head.size)
        record(
            type="audit.epoch_begun",
            actor=by,
            reason=reason,
            data={
                "before": before,
                "epoch": head.epoch,
                "size": head.size,
                "fork": fork,
                "given_up": lost.events,
            },
        )
    witness.mark_fork(where, head, before, at=fork)
    anchoring.end(where, how=f"accepted by {by.label}: {reason}")
    return head.epoch


def check_whole() -> None:
    """Refuse a store that contradicts itself, whatever a witness says.

    Raises: StoreDamaged, naming the first event that is wrong.
    """
    try:
        verifying.check_alone()
    except Broken as found:
        place = "" if found.gseq is None else f"event {found.gseq}: "
        raise StoreDamaged(
            f"{place}{found.problem}. Restore a snapshot instead", gseq=found.gseq
        ) from found


def sign(data: bytes) -> bytes:
    """Sign evidence with the audit key (Ed25519)."""
    return keys.signer().sign(data)


def public_key() -> str:
    """Return the verifier key. Shape: C2SP vkey, `name+hash+base64`."""
    return keys.signer().verifier_key


def is_signed(data: bytes, signature: bytes) -> bool:
    """Tell whether `sign` made this signature."""
    return keys.is_signed(data, signature, keys.signer().public)


def fingerprint(value: str) -> str:
    """Name a secret value without disclosing it (HMAC), so equality can be found."""
    return keys.signer().fingerprint(value.encode())


def verify(*, progress: Progress | None = None) -> Verdict:
    """Recompute the log from its events and compare it with all witnesses."""
    return verifying.verify(progress)


@transaction.atomic
def erase(*, by: Actor, event_ids: Sequence[UUID], reason: str) -> int:
    """Delete payloads and their salts; the events and their commitments stay.

    Writes: one `audit.payloads_erased` event naming them. Returns how many.
    Raises: Invalid without a reason or for more than 500; SealedNotFound for
    an unknown event. Again: erases nothing and records nothing.
    """
    if not reason.strip() or len(event_ids) > ERASE_LIMIT:
        raise Invalid(f"Erase up to {ERASE_LIMIT} payloads, with a reason")
    if Event.objects.filter(id__in=event_ids).count() != len(set(event_ids)):
        raise SealedNotFound("One of these events does not exist")
    rows = Payload.objects.filter(event_id__in=event_ids)
    found = sorted(row.hex for row in rows.values_list("event_id", flat=True))
    if not found:
        return 0
    record(
        type="audit.payloads_erased", actor=by, reason=reason, data={"events": found}
    )
    rows.delete()
    return len(found)


def push_sinks() -> int:
    """Send sealed events to every sink. Returns how many went out."""
    return sum(push_sink(name) for name in ports.sinks())


def push_sink(name: str) -> int:
    """Send sealed events to one sink, so that a slow one delays no other."""
    return pushing.push(name, ports.sinks()[name], batches=PUSH_BATCHES)


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """How far a sink is, and how it keeps what it has, read back from it."""

    name: str
    last_seq: int
    is_immutable: bool
    keeping: str
    problem: str


def sinks() -> list[SinkFacts]:
    """Ask every sink that is on. One that does not answer says why."""
    known = {row.name: row for row in queries.sink_cursors()}
    found = []
    for name, sink in sorted(ports.sinks().items()):
        if not sink.is_on():
            continue
        row = known.get(name)
        last, problem = (row.last_seq, row.problem) if row else (-1, "")
        try:
            keeping = sink.keeping()
        except (OSError, SinkRefused) as error:
            keeping, problem = ports.Keeping(False, "not told"), str(error)[:300]
        found.append(
            SinkFacts(name, last, keeping.is_immutable, keeping.detail, problem)
        )
    return found


def export(out_dir: Path, *, by: Actor, from_: int = 0, to: int | None = None) -> Path:
    """Write sealed events [from_, to) as a signed bundle for `polar-verify`.

    Raises: Invalid for an impossible range or a folder that is not empty.
    """
    bundle = exporting.export(out_dir, from_, to)
    with transaction.atomic():
        record(type="audit.exported", actor=by, data=bundle.as_data())
    return out_dir


def export_zipped(*, by: Actor, from_: int, to: int) -> IO[bytes]:
    """Give sealed events [from_, to) as a signed bundle in one zip file.

    Raises: Invalid for an impossible range, or one of more than MOST_ZIPPED.
    """
    if to - from_ > MOST_ZIPPED:
        raise Invalid(
            f"At most {MOST_ZIPPED:,} events at once here; "
            f"./polar audit export takes any range."
        )
    file, bundle = exporting.zipped(from_, to)
    with transaction.atomic():
        record(type="audit.exported", actor=by, data=bundle.as_data())
    return file


def export_ocsf(path: Path, *, by: Actor, from_: int = 0, to: int | None = None) -> int:
    """Write sealed events [from_, to) as OCSF lines, as the sinks get them.

    Returns how many.   Raises: Invalid where the file exists already.
    """
    count = exporting.write_ocsf(path, from_, to)
    with transaction.atomic():
        data = {"from": from_, "events": count, "form": "ocsf"}
        record(type="audit.exported", actor=by, data=data)
    return count


def proof(*, gseq: int, size: int | None = None) -> proving.Proof:
    """Prove that a sealed event is in the tree (of `size`). Raises: SealedNotFound."""
    return proving.proof(gseq, size=size)


def consistency(*, old: int, new: int) -> list[bytes]:
    """Prove that the tree of `old` events is a prefix of that of `new`."""
    return proving.consistency(old, new)


def can_seal() -> bool:
    """Tell whether this host has a witness directory."""
    return witness.is_here()


def check_claim() -> None:
    """Refuse to claim from a store in doubt: two looks at files and one row.

    Raises: StoreInDoubt and its kin, KeyMismatch.
    """
    anchoring.check_claim()


def check_here() -> None:
    """Refuse to go on under an alarm or with an exchanged file; asks no table.

    Raises: StoreInDoubt, StoreExchanged.
    """
    anchoring.check_here()


def check_store() -> Alarm | None:
    """Compare the store with the witness; ring or end the alarm accordingly.

    Returns the standing alarm.   Raises: KeyMismatch; DatabaseError while the store
    is away.   Again: each call looks at the next slice of the older events.
    """
    return anchoring.check_store()


def announce_restore(*, by: Actor, source: str, reason: str) -> Alarm:
    """Say, signed and beside the witness, that an operator restores the store.

    Until it ends nothing is claimed; what the restore gives up is no alarm.
    Raises: NoWitness, KeyMismatch.
    """
    return anchoring.announce(witness.folder(), by=by, source=source, reason=reason)


def what_contradicts() -> str:
    """Tell what of the store the witness contradicts; "" when nothing."""
    return anchoring.what_contradicts(witness.folder())


def end_restore(*, how: str) -> None:
    """End an announced restore whose store the witness knows."""
    anchoring.end(witness.folder(), how=how)


def standing_alarm() -> Alarm | None:
    """Return what stands against the store. Asks no table."""
    return alarm.current()


def lost_future() -> LostFuture:
    """Tell what the witness knows and the store lacks. Reads both wholly."""
    return anchoring.lost_future(witness.folder())


def triggers_missing() -> list[str]:
    return triggers.missing(connection)


def triggers_present() -> bool:
    return not triggers_missing()
