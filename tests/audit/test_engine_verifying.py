"""The mutation loop: whatever is altered, verification names the first bad event."""

from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from apps.audit import services
from apps.audit.checks import check_triggers
from apps.audit.engine import body, merkle, triggers, verifying
from apps.audit.models import Event, Head, Tile
from apps.common import ids
from apps.common.actor import SYSTEM, Actor
from tests.audit.conftest import Recorder

VICTIM = 4
#: Each column with a value of another event's shape.
LIES = {
    "id": "'" + "0" * 32 + "'",
    "gseq": "900",
    "type": "'drill.refused'",
    "actor_kind": "'agent'",
    "actor_id": "'rob'",
    "actor_label": "'Rob'",
    "workspace_id": "'" + "1" * 32 + "'",
    "trace_id": "'feed'",
    "run_id": "'" + "2" * 32 + "'",
    "run_seq": "70",
    "subject_kind": "'secret'",
    "subject_id": "'9'",
    "decision": "'allow'",
    "reason": "'because'",
    "epoch": "'" + "3" * 32 + "'",
    "occurred_at": "'2020-01-01 00:00:00'",
    "payload_digest": "'" + "4" * 64 + "'",
    "body": "replace(body, 'drill', 'thrill')",
    "digest": "'" + "5" * 64 + "'",
}


def sql(statement: str, *values: Any) -> None:
    """Write as somebody who took the triggers away."""
    triggers.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
    triggers.install(connection)


@pytest.fixture
def log(record: Recorder) -> list[Event]:
    events = record(
        10,
        run_id=ids.new_id(),
        workspace_id=ids.new_id(),
        subject=("call", "7"),
        decision="deny",
        reason='a "quoted" line\nand \\ more — ünïcode',
        trace_id="c" * 32,
        payload={"text": "hello"},
    )
    services.checkpoint()
    return events


def test_verify_when_whole_then_ok(log: list[Event], record: Recorder) -> None:
    record(2)

    verdict = services.verify()

    assert (verdict.ok, verdict.size, verdict.unsealed) == (True, 10, 2)


def test_verify_when_empty_then_ok(db: None) -> None:
    assert services.verify().ok


def test_lies_when_counted_then_cover_every_column() -> None:
    assert set(LIES) == {field.column for field in Event._meta.concrete_fields}


@pytest.mark.parametrize("column", LIES)
def test_verify_when_a_column_is_altered_then_names_the_event(
    log: list[Event], column: str
) -> None:
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA defer_foreign_keys = ON")
    sql(f"UPDATE audit_event SET {column} = {LIES[column]} WHERE gseq = %s", VICTIM)

    verdict = services.verify()

    assert (verdict.ok, verdict.first_bad) == (False, VICTIM)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_payload")


@pytest.mark.parametrize("column", sorted(set(LIES) - {"gseq", "id", "run_seq"}))
def test_verify_when_an_unsealed_event_is_altered_then_names_it(
    record: Recorder, column: str
) -> None:
    (event,) = record(run_id=ids.new_id())
    sql(f"UPDATE audit_event SET {column} = {LIES[column]}")

    verdict = services.verify()

    assert (verdict.ok, verdict.first_bad_id) == (False, event.id.hex)


def test_verify_when_columns_trade_text_with_escapes_then_noticed(
    record: Recorder,
) -> None:
    record(reason="line\nbreak")
    services.seal()
    sql(r"UPDATE audit_event SET reason = 'line\nbreak'")

    assert services.verify().first_bad == 0


def test_verify_when_text_slips_between_columns_then_noticed(
    record: Recorder,
) -> None:
    record(trace_id='","type":"drill.happened')
    services.seal()
    sql("UPDATE audit_event SET trace_id = ''")

    assert services.verify().first_bad == 0


def forge(gseq: int) -> str:
    """Rewrite an event so that body, columns and digest agree."""
    event = Event.objects.get(gseq=gseq)
    text = event.body.replace('"type":"drill.happened"', '"type":"drill.refused"')
    digest = merkle.leaf_hash(text.encode()).hex()
    sql(
        "UPDATE audit_event SET body = %s, digest = %s, type = 'drill.refused'"
        " WHERE gseq = %s",
        text,
        digest,
        gseq,
    )
    return digest


def forge_tree() -> None:
    leaves = [
        bytes.fromhex(digest)
        for digest in Event.objects.order_by("gseq").values_list("digest", flat=True)
    ]
    frontier = merkle.Frontier()
    frontier.append(leaves)
    Tile.objects.update(hashes=b"".join(leaves))
    Head.objects.update(
        root=frontier.root().hex(), frontier=b"".join(frontier.hashes())
    )


def test_verify_when_an_event_is_forged_then_the_tile_names_it(
    log: list[Event],
) -> None:
    forge(VICTIM)

    assert services.verify().first_bad == VICTIM


def test_verify_when_the_tree_is_forged_too_then_the_journal_names_it(
    log: list[Event],
) -> None:
    forge(VICTIM)
    forge_tree()

    verdict = services.verify()

    assert verdict.first_bad == VICTIM
    assert "witness" in verdict.problem


def test_verify_when_the_journal_is_gone_too_then_the_checkpoint_refuses(
    log: list[Event], witness: Path
) -> None:
    forge(VICTIM)
    forge_tree()
    for path in witness.glob("journal-*"):
        path.unlink()

    assert "not the one signed" in services.verify().problem


def test_verify_when_a_checkpoint_is_not_ours_then_refused(log: list[Event]) -> None:
    sql("UPDATE audit_checkpoint SET note = replace(note, 'polar-audit', 'q')")

    assert "not signed by this key" in services.verify().problem


def test_verify_when_a_checkpoint_row_lies_about_its_size_then_refused(
    log: list[Event],
) -> None:
    sql("UPDATE audit_checkpoint SET size = 3")

    assert "its row 3" in services.verify().problem


def test_verify_when_a_sealed_event_is_deleted_then_names_it(
    log: list[Event],
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_payload")
    sql("DELETE FROM audit_event WHERE gseq = %s", VICTIM)

    verdict = services.verify()

    assert (verdict.first_bad, verdict.problem) == (VICTIM, "the event is missing")


@pytest.mark.parametrize("gseq", [0, 9])
def test_verify_when_the_first_or_last_event_is_deleted_then_names_it(
    log: list[Event], gseq: int
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_payload")
    sql("DELETE FROM audit_event WHERE gseq = %s", gseq)

    assert services.verify().first_bad == gseq


def test_verify_when_two_events_trade_places_then_names_the_first(
    log: list[Event],
) -> None:
    for old, new in ((2, 900), (5, 2), (900, 5)):
        sql("UPDATE audit_event SET gseq = %s WHERE gseq = %s", new, old)

    assert services.verify().first_bad == 2


def test_verify_when_an_unsealed_run_event_is_deleted_then_the_run_is_named(
    record: Recorder,
) -> None:
    run = ids.new_id()
    events = record(3, run_id=run)
    sql("DELETE FROM audit_event WHERE id = %s", events[1].id.hex)

    problem = services.verify().problem.replace("-", "")
    assert f"run {run.hex} has 2 events" in problem


def test_verify_when_the_head_lies_then_refused(log: list[Event]) -> None:
    Head.objects.update(root="0" * 64)

    assert "head's root" in services.verify().problem


def test_verify_when_the_store_went_back_whole_then_the_witness_refuses(
    log: list[Event],
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_payload")
    sql("DELETE FROM audit_event")
    sql("DELETE FROM audit_checkpoint")
    Head.objects.update(size=0, root=merkle.EMPTY_ROOT.hex(), frontier=b"")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_runhead")

    assert "10 events" in services.verify().problem


def test_verify_when_the_tree_has_a_spare_leaf_then_refused(
    log: list[Event],
) -> None:
    tile = Tile.objects.get()
    tile.hashes = bytes(tile.hashes) + b"x" * 32
    tile.save()

    assert "leaf without an event" in services.verify().problem


def test_verify_when_a_payload_is_altered_then_names_its_event(
    log: list[Event],
) -> None:
    sql(
        "UPDATE audit_payload SET text = 'other' WHERE event_id = %s",
        log[VICTIM].id.hex,
    )

    verdict = services.verify()

    assert (verdict.first_bad, verdict.first_bad_id) == (VICTIM, log[VICTIM].id.hex)


def test_verify_when_a_payload_is_gone_unerased_then_names_its_event(
    log: list[Event],
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM audit_payload WHERE event_id = %s", [log[VICTIM].id.hex]
        )

    assert services.verify().first_bad == VICTIM


# --- the cheap check ------------------------------------------------------------


def test_verify_when_text_is_plain_then_nothing_is_parsed(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    record()
    record(run_id=ids.new_id())
    record(workspace_id=ids.new_id(), run_id=ids.new_id())
    services.seal()
    monkeypatch.setattr(body, "repeats", lambda event: False)

    assert services.verify().ok


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"data":{}}'])
def test_repeats_when_the_body_is_no_event_then_false(
    record: Recorder, text: str
) -> None:
    (event,) = record()
    event.body = text

    assert not body.repeats(event)


def test_verify_when_a_column_cannot_be_read_then_names_the_event(
    record: Recorder,
) -> None:
    record(3, run_id=ids.new_id())
    services.seal()
    if connection.vendor == "postgresql":
        pytest.skip("PostgreSQL refuses nonsense by type")
    sql("UPDATE audit_event SET run_id = 'nonsense' WHERE gseq = 1")

    assert services.verify().first_bad == 1


# --- triggers -------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET reason = 'x'",
        "UPDATE audit_event SET gseq = 99 WHERE gseq = 0",
        "UPDATE audit_event SET gseq = NULL WHERE gseq = 0",
        "UPDATE OR REPLACE audit_event SET gseq = 0 WHERE gseq IS NULL",
        "DELETE FROM audit_event",
        "INSERT OR REPLACE INTO audit_event SELECT * FROM audit_event",
        "UPDATE audit_payload SET text = 'x'",
        "UPDATE audit_checkpoint SET note = 'x'",
        "DELETE FROM audit_checkpoint",
        "TRUNCATE audit_checkpoint",
    ],
)
def test_triggers_when_rows_are_changed_then_refused(
    log: list[Event], record: Recorder, statement: str
) -> None:
    record()
    foreign = "TRUNCATE" if connection.vendor == "sqlite" else "OR REPLACE"
    if foreign in statement:
        pytest.skip("the other database's statement")

    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert services.verify().ok


def test_triggers_when_gone_then_said(db: None) -> None:
    assert services.triggers_present()
    assert check_triggers(None, ["default"]) == []

    triggers.remove(connection)

    assert not services.triggers_present()
    assert check_triggers(None, ["default"])[0].id == "audit.E001"
    triggers.install(connection)


def test_actor_when_label_is_hostile_then_still_verified(record: Recorder) -> None:
    record(actor=Actor("human", "u-1", 'x","data":{"a":1},"decision":"allow'))
    services.seal()

    assert services.verify().ok
    assert SYSTEM.kind == "system"


def test_store_that_knows_no_concat_writes_the_same_text(
    record: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(3)
    services.seal_all()
    quick = list(verifying._block(0, 3))

    monkeypatch.setattr(body, "HAS_CONCAT", False)

    assert list(verifying._block(0, 3)) == quick
    assert services.verify().ok
