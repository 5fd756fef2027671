"""Recording, sealing, erasing, epochs, sinks."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from apps.audit import queries, services
from apps.audit.engine import (
    anchoring,
    journal,
    keys,
    memory,
    merkle,
    proving,
    recording,
    sealing,
    triggers,
)
from apps.audit.engine import (
    witness as the_witness,
)
from apps.audit.errors import (
    KeyMismatch,
    NoWitness,
    OutsideTransaction,
    SealedNotFound,
    StoreInDoubt,
    StoreRolledBack,
    WitnessBusy,
)
from apps.audit.models import (
    Checkpoint,
    Event,
    Head,
    Payload,
    RunHead,
    SinkCursor,
)
from apps.common import ids
from apps.common.actor import SYSTEM
from apps.common.errors import Fenced, Invalid
from apps.common.models import AppendOnlyError
from tests.audit.conftest import Recorder


def journal_lines(witness: Path) -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(witness.glob("journal-*"))]
    return [json.loads(line) for line in "".join(texts).splitlines()]


# --- record -----------------------------------------------------------------


@pytest.mark.django_db
def test_record_when_in_a_transaction_then_body_holds_everything() -> None:
    run = ids.new_id()
    with ids.use_trace("a" * 32), transaction.atomic():
        event = services.record(
            type="drill.happened",
            actor=SYSTEM,
            subject=("run", str(run)),
            run_id=run,
            decision="allow",
            reason='said "yes"\n',
            data={"big": 2**60, "flag": True, "list": [1, None]},
        )

    said = json.loads(Event.objects.get(id=event.id).body)
    assert said["data"] == {"big": str(2**60), "flag": True, "list": [1, None]}
    assert (said["run_seq"], said["trace_id"]) == (1, "a" * 32)
    assert event.digest == merkle.leaf_hash(event.body.encode()).hex()


def test_record_when_the_run_was_carried_by_another_since_then_refused(
    record: Recorder,
) -> None:
    run = ids.new_id()
    record(2, run_id=run, fence=1)
    record(run_id=run, fence=3)

    with pytest.raises(Fenced):
        record(run_id=run, fence=2)
    record(run_id=run)  # of nobody who carries it
    record(run_id=run, fence=3)

    mine = Event.objects.of_run(run).values_list("run_seq", flat=True)
    assert list(mine) == [1, 2, 3, 4, 5]
    assert RunHead.objects.get(run_id=run).fence == 3


def test_record_when_outside_a_transaction_then_refused(monkeypatch: Any) -> None:
    class Bare:
        in_atomic_block = False

    monkeypatch.setattr(transaction, "get_connection", Bare)

    with pytest.raises(OutsideTransaction):
        services.record(type="drill.happened", actor=SYSTEM)


def test_record_when_only_the_test_opened_a_transaction_then_refused(
    db: None,
) -> None:
    """Code of an app that forgot its own is found by any test that runs it."""
    words = "services.record(type='drill.happened', actor=SYSTEM)"
    code = compile(words, "/polar/apps/made_up/services.py", "exec")

    with pytest.raises(OutsideTransaction):
        exec(code)  # noqa: S102 (the words above)

    with transaction.atomic():
        exec(code)  # noqa: S102 (the words above)
    assert Event.objects.filter(type="drill.happened").count() == 1


@pytest.mark.parametrize(
    "said",
    [
        {"type": "drill.unheard"},
        {"data": {"price": 1.5}},
        {"data": {"deep": [{"x": 0.0}]}},
        {"data": {"when": object()}},
    ],
)
def test_record_when_said_wrongly_then_invalid(
    record: Recorder, said: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        record(**said)


def test_record_when_in_a_run_then_counted_from_one(record: Recorder) -> None:
    first, second = ids.new_id(), ids.new_id()

    record(3, run_id=first)
    record(2, run_id=second)
    record(1, run_id=first)

    assert [event.run_seq for event in queries.events_of_run(first)] == [1, 2, 3, 4]
    assert [event.run_seq for event in queries.events_of_run(second)] == [1, 2]


def test_record_when_run_is_known_then_at_most_two_queries(
    record: Recorder, django_assert_max_num_queries: Any
) -> None:
    run = ids.new_id()
    record(run_id=run)

    with transaction.atomic(), django_assert_max_num_queries(2):
        services.record(type="drill.happened", actor=SYSTEM, run_id=run)


def test_record_when_text_is_long_then_shortened(record: Recorder) -> None:
    (event,) = record(reason="x" * 900)

    assert len(event.reason) == 500
    assert event.reason.endswith("…")


def test_event_when_changed_in_python_then_refused(record: Recorder) -> None:
    (event,) = record()

    with pytest.raises(AppendOnlyError):
        event.save()
    with pytest.raises(AppendOnlyError):
        event.delete()
    with pytest.raises(AppendOnlyError):
        Event.objects.update(reason="")


# --- seal -------------------------------------------------------------------


def test_seal_when_events_wait_then_numbered_in_order(
    record: Recorder, witness: Path
) -> None:
    events = record(7)

    assert services.seal() == 7
    assert services.seal() == 0
    numbers = dict(Event.objects.values_list("id", "gseq"))
    assert [numbers[event.id] for event in events] == list(range(7))
    assert [line["hash"] for line in journal_lines(witness)] == [
        event.digest for event in events
    ]


def test_seal_when_many_then_tiles_prove_each(record: Recorder) -> None:
    events = record(700)
    services.seal(limit=300)
    services.seal_all()

    for gseq in (0, 255, 256, 299, 300, 511, 699):
        proof = services.proof(gseq=gseq)
        assert proof.holds()
        assert proof.leaf.hex() == events[gseq].digest
    assert services.proof(gseq=3, size=300).holds()


def test_consistency_when_grown_then_proven(record: Recorder) -> None:
    record(700)
    services.seal_all()

    for old in (1, 256, 300, 512, 699, 700):
        before = (old, bytes.fromhex(proving.root_at(old)))
        after = (700, bytes.fromhex(queries.head().root))
        assert merkle.is_consistent(
            before, after, services.consistency(old=old, new=700)
        )


def test_seal_when_another_keeps_the_witness_then_refused_and_later_made_good(
    record: Recorder, witness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(1)
    services.seal()
    record(3)
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0.05)

    with (witness / "lock").open("w") as stands_still:
        fcntl.flock(stands_still, fcntl.LOCK_EX)
        with pytest.raises(WitnessBusy):
            services.seal()
    assert len(journal_lines(witness)) == 1

    services.seal()
    assert len(journal_lines(witness)) == 4


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's planner")
def test_seal_when_much_waits_then_a_batch_reads_its_own_rows_only(db: None) -> None:
    text = sealing._WAITING.format(index=sealing._INDEX["sqlite"])

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {text}", [500])
        plan = str(cursor.fetchall())

    assert "event_unsealed" in plan
    assert "ORDER BY" not in plan, "all that wait are sorted for each batch"


def test_seal_when_the_log_is_long_then_the_witness_is_told_of_new_events_only(
    db: None,
) -> None:
    plan = the_witness._kept_events(1000, 1010).explain()

    if connection.vendor == "sqlite":
        assert "(gseq>? AND gseq<?)" in plan
    assert "event_by_type" not in plan


def test_seal_when_batch_is_too_large_then_invalid(record: Recorder) -> None:
    with pytest.raises(Invalid):
        services.seal(limit=501)


def test_seal_when_there_is_no_witness_then_refused(
    record: Recorder, settings: Any
) -> None:
    settings.POLAR_WITNESS_DIR = Path()
    record()

    assert not services.can_seal()
    with pytest.raises(NoWitness):
        services.seal()


def test_seal_when_the_key_changed_then_refused(
    record: Recorder, settings: Any
) -> None:
    record()
    services.seal()
    settings.POLAR_AUDIT_KEY = "A" * 43 + "="

    with pytest.raises(KeyMismatch):
        services.seal()


def test_proof_when_not_sealed_then_not_found(record: Recorder) -> None:
    record()

    with pytest.raises(SealedNotFound):
        services.proof(gseq=0)


# --- checkpoints and keys -----------------------------------------------------


def test_checkpoint_when_signed_then_a_c2sp_note(
    record: Recorder, witness: Path
) -> None:
    record(5)

    row = services.checkpoint()

    text = keys.open_note(row.note, services.public_key())
    origin, size, _, _ = text.split("\n")
    assert (size, origin.endswith(services.epoch())) == ("5", True)
    assert (witness / "public-key").read_text().strip() == services.public_key()


def test_checkpoint_when_a_hundred_events_came_then_one_by_itself(
    record: Recorder,
) -> None:
    for count in (1, 50, 60):
        record(count)
        services.seal()

    assert list(Checkpoint.objects.values_list("size", flat=True)) == [1, 111]


def test_open_note_when_a_byte_differs_then_invalid(record: Recorder) -> None:
    record()
    note = services.checkpoint().note

    for at in range(0, len(note), 3):
        changed = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
        with pytest.raises(Invalid):
            keys.open_note(changed, services.public_key())


@pytest.mark.parametrize("vkey", ["", "a+b", "a+00000000+AQ==", "a+b+!"])
def test_verifier_key_when_malformed_then_invalid(vkey: str) -> None:
    with pytest.raises(Invalid):
        keys.parse_verifier_key(vkey)


def test_sign_when_checked_then_only_the_same_bytes() -> None:
    signature = services.sign(b"evidence")

    assert services.is_signed(b"evidence", signature)
    assert not services.is_signed(b"evidencf", signature)


def test_fingerprint_when_equal_then_equal() -> None:
    assert services.fingerprint("a") == services.fingerprint("a")
    assert services.fingerprint("a") != services.fingerprint("b")


# --- the journal --------------------------------------------------------------


def test_journal_when_behind_then_refilled(record: Recorder, witness: Path) -> None:
    record(30)
    services.seal_all()
    (path,) = witness.glob("journal-*")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    record(1)

    services.seal()

    assert [line["gseq"] for line in journal_lines(witness)] == list(range(31))


@pytest.mark.parametrize("cut", [1, 2, 40, 120])
def test_journal_when_last_line_is_torn_then_survived(
    record: Recorder, witness: Path, cut: int
) -> None:
    record(5)
    services.seal_all()
    (path,) = witness.glob("journal-*")
    path.write_bytes(path.read_bytes()[:-cut])

    record(2)
    services.seal()

    assert services.verify().ok
    assert path.read_bytes().endswith(b"\n")


def test_journal_when_all_gone_then_written_anew(
    record: Recorder, witness: Path
) -> None:
    record(3)
    services.seal()
    for path in witness.glob("journal-*"):
        path.unlink()

    services.seal()

    assert len(journal_lines(witness)) == 3


# --- others seal meanwhile -------------------------------------------------------


class Others:
    """Another process, which records and seals right after this one has read."""

    def __init__(self, record: Recorder) -> None:
        self.record, self.came = record, 0

    def seal(self) -> None:
        """Once: what it seals itself is not met again."""
        if not self.came:
            self.came = 120
            self.record(self.came)
            services.seal()

    def after(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def both(*words: Any, **named: Any) -> Any:
            found = read(*words, **named)
            self.seal()
            return found

        return both


@pytest.fixture
def others(record: Recorder) -> Others:
    record(9)
    services.seal()
    return Others(record)


def test_seal_when_others_sealed_meanwhile_then_no_rollback_is_seen(
    others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = others.after(recording.ensure_head)
    monkeypatch.setattr(sealing.recording, "ensure_head", read)

    services.seal()

    assert queries.head().size == 9 + others.came


def test_claim_when_others_sealed_meanwhile_then_not_refused(
    others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = SimpleNamespace(fetch=others.after(anchoring._HEAD.fetch))
    monkeypatch.setattr(anchoring, "_HEAD", reading)

    services.check_claim()

    assert others.came


def test_check_when_others_sealed_meanwhile_then_no_alarm(
    others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = memory.check

    def late(head: Head, known: memory.Known) -> None:
        others.seal()
        check(head, known)

    monkeypatch.setattr(anchoring.memory, "check", late)

    assert services.check_store() is None
    assert others.came


def test_verify_when_others_sealed_meanwhile_then_whole_as_far_as_it_read(
    others: Others,
) -> None:
    verdict = services.verify(progress=lambda done, size: others.seal())

    assert (verdict.ok, verdict.problem, verdict.size) == (True, "", 9)
    assert services.verify().size == 9 + others.came


def test_verify_when_an_event_is_numbered_beyond_the_head_then_named(
    record: Recorder,
) -> None:
    record(9)
    services.seal()
    record(1)
    triggers.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE audit_event SET gseq = 12 WHERE gseq IS NULL")
    triggers.install(connection)

    verdict = services.verify()

    assert (verdict.ok, verdict.first_bad) == (False, 12)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's words")
def test_check_when_the_file_cannot_be_read_then_an_alarm_that_ends_by_itself(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(9)
    services.seal()

    def broken(head: Head, known: memory.Known) -> None:
        raise OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(anchoring.memory, "check", broken)
        alarm = services.check_store()
    assert alarm is not None
    assert alarm.problem == "The store cannot be read: disk I/O error"
    with pytest.raises(StoreInDoubt):
        services.check_claim()

    assert services.check_store() is None
    services.check_claim()


# --- a store that went back ----------------------------------------------------


def roll_back(to: int) -> None:
    """Make the store as it was when it held `to` events."""
    from apps.audit.models import Tile

    frontier = merkle.Frontier()
    events = Event.objects.filter(gseq__lt=to).order_by("gseq")
    leaves = [bytes.fromhex(event.digest) for event in events]
    frontier.append(leaves)
    triggers.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_event WHERE gseq >= %s", [to])
        cursor.execute("DELETE FROM audit_checkpoint WHERE size > %s", [to])
    triggers.install(connection)
    Tile.objects.all().update(hashes=b"".join(leaves))
    Head.objects.update(
        size=to, root=frontier.root().hex(), frontier=b"".join(frontier.hashes())
    )


def test_seal_when_store_went_back_then_refused(record: Recorder) -> None:
    record(9)
    services.seal()
    roll_back(4)
    memory.forget()

    with pytest.raises(StoreRolledBack, match="holds 9 events, the database 4"):
        services.seal()


def test_claim_when_store_went_back_and_no_witness_then_memory_refuses(
    record: Recorder, settings: Any
) -> None:
    record(9)
    services.seal()
    settings.POLAR_WITNESS_DIR = Path()
    services.check_claim()

    roll_back(4)

    with pytest.raises(StoreRolledBack, match="saw 9 events"):
        services.check_claim()


def test_claim_when_history_differs_at_the_same_size_then_refused(
    record: Recorder,
) -> None:
    record(4)
    services.seal()
    seen = queries.head()
    memory.forget()
    seen.root = "0" * 64
    memory.remember(seen)

    with pytest.raises(StoreRolledBack, match="saw 4 events"):
        services.check_claim()


def test_claim_when_all_is_well_then_one_query(
    record: Recorder, django_assert_num_queries: Any
) -> None:
    record(4)
    services.seal()
    services.check_store()

    with django_assert_num_queries(1):
        services.check_claim()


def test_begin_epoch_when_accepted_then_the_log_goes_on(record: Recorder) -> None:
    record(9)
    services.checkpoint()
    services.push_sinks()
    before = services.epoch()
    roll_back(4)

    services.begin_epoch(by=SYSTEM, reason="restored Monday's snapshot")
    record(3)
    services.seal_all()
    services.push_sinks()

    assert services.epoch() != before
    assert services.verify().problem == ""
    assert SinkCursor.objects.get(name="file").last_seq == 7
    event = Event.objects.get(type="audit.epoch_begun")
    assert event.epoch == services.epoch()


def test_begin_epoch_when_no_reason_then_invalid(db: None) -> None:
    with pytest.raises(Invalid):
        services.begin_epoch(by=SYSTEM, reason=" ")


# --- payloads -----------------------------------------------------------------


def test_erase_when_asked_then_payload_goes_and_proof_stays(record: Recorder) -> None:
    events = record(2, payload={"text": "private", "ratio": 0.5})
    services.seal()

    erased = services.erase(by=SYSTEM, event_ids=[events[0].id], reason="asked")

    assert erased == 1
    assert list(Payload.objects.values_list("event_id", flat=True)) == [events[1].id]
    assert Event.objects.filter(type="audit.payloads_erased").count() == 1
    assert services.verify().ok


def test_erase_when_nothing_is_there_then_no_event(record: Recorder) -> None:
    (event,) = record()

    assert services.erase(by=SYSTEM, event_ids=[event.id], reason="asked") == 0
    assert not Event.objects.filter(type="audit.payloads_erased").exists()


def test_erase_when_unknown_or_unreasoned_then_refused(record: Recorder) -> None:
    with pytest.raises(SealedNotFound):
        services.erase(by=SYSTEM, event_ids=[ids.new_id()], reason="asked")
    with pytest.raises(Invalid):
        services.erase(by=SYSTEM, event_ids=[], reason="")


# --- sinks --------------------------------------------------------------------


def test_push_when_sealed_then_acknowledged_without_gaps(
    record: Recorder, settings: Any
) -> None:
    record(600)
    services.seal_all()

    assert services.push_sinks() == 600
    assert services.push_sinks() == 0
    lines = Path(settings.POLAR_SINK_FILE).read_text().splitlines()
    sequence = [json.loads(line)["metadata"]["sequence"] for line in lines]
    assert sequence == list(range(600))
    assert SinkCursor.objects.get(name="file").last_seq == 599


def test_push_when_sink_lost_its_tail_then_sent_again(
    record: Recorder, settings: Any
) -> None:
    record(5)
    services.seal_all()
    services.push_sinks()
    path = Path(settings.POLAR_SINK_FILE)
    path.write_bytes(path.read_bytes()[:-30])

    assert services.push_sinks() == 1


def test_push_when_sink_is_broken_then_the_problem_shows(
    record: Recorder, settings: Any, tmp_path: Path
) -> None:
    record()
    services.seal_all()
    (tmp_path / "file").write_text("")
    settings.POLAR_SINK_FILE = str(tmp_path / "file" / "audit.jsonl")

    assert services.push_sinks() == 0
    assert "exists" in SinkCursor.objects.get(name="file").problem


def test_push_when_sink_is_ahead_then_the_problem_shows(record: Recorder) -> None:
    record(3)
    services.seal_all()
    services.push_sinks()
    roll_back(1)

    services.push_sinks()

    assert "ends at 1" in SinkCursor.objects.get(name="file").problem


def test_push_when_there_is_no_sink_then_nothing(
    record: Recorder, settings: Any
) -> None:
    settings.POLAR_SINK_FILE = ""
    record()
    services.seal_all()

    assert services.push_sinks() == 0
