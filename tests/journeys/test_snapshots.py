"""The store is lost and a snapshot brings it back: by the real programs, measured."""

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.journeys.processes import ON_POSTGRES, House, _name, _on_server, house
from tests.journeys.resident import Resident

pytestmark = pytest.mark.journey

LOST = "SELECT count(*) FROM runs_run WHERE reason = 'lost_by_rollback'"
UNDER_WAY = "SELECT count(*) FROM runs_run WHERE state = 'queued'"
MEASURED = (
    "SELECT kind, ok, took_ms, age_seconds, events_lost FROM reliability_recovery"
    " ORDER BY created_at"
)


@pytest.fixture(scope="module")
def polar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("snapshots")) as built:
        yield built


@pytest.fixture(scope="module")
def resident(polar: House) -> Iterator[Resident]:
    started = Resident(polar)
    yield started
    started.close()


def lose(polar: House) -> None:
    """The disk of the store dies; an empty one takes its place."""
    if ON_POSTGRES:
        _on_server(f'DROP DATABASE "{_name(polar.url)}" WITH (FORCE)')
        _on_server(f'CREATE DATABASE "{_name(polar.url)}"')
        return
    for end in ("", "-wal", "-shm"):
        (polar.folder / f"polar.db{end}").unlink(missing_ok=True)


def test_store_when_lost_then_a_snapshot_brings_it_back_and_the_figures_are_kept(
    polar: House, resident: Resident
) -> None:
    resident.do("live", "3")
    ((kept,),) = polar.rows(UNDER_WAY)
    made = resident.do("snapshot", "create", "--json")
    assert made["code"] == 0, made
    proof = resident.do("snapshot", "rehearse", "--json")
    assert proof["code"] == 0, proof
    resident.do("live", "2")
    lose(polar)
    assert resident.do("store", "check")["code"] != 0

    restored = resident.do(
        "restore", made["said"]["name"], "--reason", "the disk died", "--json"
    )

    assert restored["code"] == 0, restored
    told = restored["said"]
    assert (told["lost_by_rollback"], told["stale"]) == (2, kept)
    assert resident.do("store", "check")["code"] == 0
    assert resident.do("audit", "verify")["code"] == 0
    kind, ok, took_ms, age, events_lost = polar.rows(MEASURED)[-1]
    assert (kind, bool(ok)) == ("restored", True)
    assert took_ms > 0
    assert events_lost == told["events_lost"] > 0
    resident.do("store", "resume", "--reason", "looked")
    assert resident.do("work")["said"] == kept
    sys.stdout.write(
        f"RTO {took_ms} ms, RPO {age} s and {events_lost} events; rehearsed in "
        f"{proof['said']['took_ms']} ms\n"
    )


@pytest.mark.skipif(ON_POSTGRES, reason="copies SQLite files")
def test_store_when_the_newer_file_is_put_back_then_nothing_is_lost(
    polar: House, resident: Resident
) -> None:
    store, newer = polar.folder / "polar.db", polar.folder / "newer.db"
    older = polar.folder / "older.db"
    resident.do("live", "1")
    flush(store)
    shutil.copy(store, older)
    resident.do("live", "2")
    flush(store)
    shutil.copy(store, newer)
    (count,) = polar.rows("SELECT count(*) FROM runs_run")
    lose(polar)
    shutil.copy(older, store)
    assert resident.do("store", "check")["code"] == 1

    beside = polar.folder / "beside.db"
    looked = resident.do("restore", str(newer), "--beside", str(beside))
    again = resident.do("restore", str(newer), "--beside", str(beside))
    back = resident.do("restore", str(newer), "--reason", "back", "--json")

    assert (looked["code"], again["code"]) == (0, 2)
    assert "name a new file" in again["said"]
    assert back["said"]["events_lost"] == 0, back
    assert Path(back["said"]["former_store"]).exists()
    assert resident.do("store", "check")["code"] == 0
    assert polar.rows("SELECT count(*) FROM runs_run") == [count]
    with closing(sqlite3.connect(beside)) as db:
        assert db.execute("SELECT count(*) FROM runs_run").fetchone() == count


def flush(store: Path) -> None:
    with closing(sqlite3.connect(store)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
