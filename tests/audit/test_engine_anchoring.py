"""A store that is not the one the witness knows: seen, told, and ended."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from apps.audit import queries, services
from apps.audit.engine import memory, triggers
from apps.audit.errors import StoreDamaged, StoreInDoubt
from apps.audit.models import Event, Head
from apps.common import ids
from apps.common.actor import SYSTEM
from tests.audit.conftest import Recorder
from tests.audit.test_services import roll_back


def edit(gseq: int, **columns: str) -> None:
    """Change an event as somebody with the file would."""
    triggers.remove(connection)
    with connection.cursor() as cursor:
        for name, value in columns.items():
            cursor.execute(
                f"UPDATE audit_event SET {name} = %s WHERE gseq = %s", [value, gseq]
            )
    triggers.install(connection)


def test_store_when_nothing_happened_then_no_alarm(record: Recorder) -> None:
    for count in (1, 300, 20):
        record(count)
        services.seal_all()
        memory.forget()
        assert services.check_store() is None
    services.check_here()


def test_store_when_fresh_then_no_alarm(db: None) -> None:
    assert services.check_store() is None
    services.check_claim()


def test_store_when_it_went_back_then_alarm_stands_outside_it(
    record: Recorder, witness: Path
) -> None:
    record(9)
    services.seal()
    roll_back(4)
    memory.forget()

    found = services.check_store()

    assert found is not None
    assert (found.witness_size, found.store_size) == (9, 4)
    assert "holds 9 events, the database 4" in found.problem
    said = json.loads((witness / "alarm.json").read_text())
    assert said["id"] == found.id == Head.load().alarm
    with pytest.raises(StoreInDoubt):
        services.check_here()
    with pytest.raises(StoreInDoubt):
        services.check_claim()


def test_alarm_when_it_stands_then_the_first_one_stays(record: Recorder) -> None:
    record(9)
    services.seal()
    roll_back(4)
    memory.forget()

    first, second = services.check_store(), services.check_store()

    assert first == second


def test_alarm_when_hosts_do_not_see_the_witness_then_the_head_says_it(
    record: Recorder, settings: Any
) -> None:
    record(9)
    services.seal()
    roll_back(4)
    memory.forget()
    services.check_store()
    settings.POLAR_WITNESS_DIR = Path()
    memory.forget()

    with pytest.raises(StoreInDoubt, match="clock's host"):
        services.check_claim()


def test_alarm_when_the_newer_store_is_back_then_it_ends(
    record: Recorder, witness: Path
) -> None:
    record(9)
    services.seal_all()
    before = list(Head.objects.values())
    Head.objects.update(size=4, root="0" * 64)
    memory.forget()
    assert services.check_store() is not None

    Head.objects.update(**before[0])

    assert services.check_store() is None
    assert not (witness / "alarm.json").exists()
    (ended,) = witness.glob("alarm-*.json")
    assert "the newer store is back" in json.loads(ended.read_text())["how"]
    assert Event.objects.filter(type="store.alarm_ended").count() == 1
    services.check_claim()


@pytest.mark.parametrize("gseq", [0, 130, 299])
def test_store_when_an_event_was_edited_then_alarm_names_it(
    record: Recorder, gseq: int
) -> None:
    record(300)
    services.seal_all()
    edit(gseq, reason="nothing to see")

    found = services.check_store()

    assert found is not None
    assert f"Event {gseq}" in found.problem


def test_store_when_an_edited_event_is_put_right_then_alarm_ends(
    record: Recorder,
) -> None:
    record(30)
    services.seal_all()
    edit(7, reason="nothing to see")
    assert services.check_store() is not None

    edit(7, reason="")

    assert services.check_store() is None


def test_store_when_it_caught_up_past_the_anchor_then_alarm(
    record: Recorder, settings: Any, tmp_path: Path
) -> None:
    record(9)
    services.seal()
    known = settings.POLAR_WITNESS_DIR
    roll_back(4)
    settings.POLAR_WITNESS_DIR = tmp_path / "another"
    memory.forget()
    record(20)
    services.seal()
    settings.POLAR_WITNESS_DIR = known
    memory.forget()

    found = services.check_store()

    assert found is not None
    assert (found.witness_size, found.store_size) == (9, 24)


def test_store_when_the_witness_went_back_with_it_then_nothing_is_seen(
    record: Recorder, witness: Path
) -> None:
    """The negative control: it is the witness, and nothing else, that tells."""
    record(4)
    services.seal()
    saved = {path: path.read_bytes() for path in witness.glob("*.jsonl")}
    record(5)
    services.seal()
    roll_back(4)
    for path in witness.glob("*.jsonl"):
        path.unlink()
    for path, text in saved.items():
        path.write_bytes(text)
    memory.forget()

    assert services.check_store() is None


# --- what was lost ------------------------------------------------------------


def test_lost_future_when_rolled_back_then_names_runs_and_effects(
    record: Recorder,
) -> None:
    kept, longer, lost = ids.new_id(), ids.new_id(), ids.new_id()
    record(2, run_id=kept)
    record(2, run_id=longer)
    services.seal()
    record(1, run_id=longer)
    with transaction.atomic():
        services.record(
            type="call.started", actor=SYSTEM, run_id=lost, data={"key": "k1"}
        )
    services.seal()
    roll_back(4)

    found = services.lost_future()

    assert (found.fork, found.events) == (4, 2)
    sides = {run.run_id: (run.witness_seq, run.store_seq) for run in found.runs}
    assert sides == {longer.hex: (3, 2), lost.hex: (1, 0)}
    assert [json.loads(body)["data"]["key"] for body in found.kept] == ["k1"]


def test_accept_when_the_store_forked_then_its_own_events_count(
    record: Recorder, settings: Any, tmp_path: Path
) -> None:
    record(9)
    services.checkpoint()
    known = settings.POLAR_WITNESS_DIR
    roll_back(4)
    settings.POLAR_WITNESS_DIR = tmp_path / "another"
    memory.forget()
    record(20)
    services.checkpoint()
    settings.POLAR_WITNESS_DIR = known
    memory.forget()
    assert services.check_store() is not None

    services.begin_epoch(by=SYSTEM, reason="the copy went on elsewhere")
    record(3)
    services.seal_all()

    assert services.standing_alarm() is None
    assert services.check_store() is None
    assert services.verify().problem == ""
    assert queries.head().size == 28


def test_accept_when_an_event_was_edited_then_refused(record: Recorder) -> None:
    record(30)
    services.seal_all()
    edit(7, reason="nothing to see")
    services.check_store()

    with pytest.raises(StoreDamaged, match="event 7"):
        services.begin_epoch(by=SYSTEM, reason="never mind")
    assert services.standing_alarm() is not None
