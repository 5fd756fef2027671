"""The store's file is exchanged for an older one, in every way that we know.

`make chaos` plays every case under a live clock, and kills the writer 200 times.
"""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.journeys.alarmed import seen_at_start, seen_while_running
from tests.journeys.processes import ON_POSTGRES, House, house
from tests.journeys.resident import Resident

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(ON_POSTGRES, reason="swaps SQLite files"),
]

PAGES = ("/boards/", "/boards/{board}/", "/healthz", "/api/v1/store", "/store/")
#: What starts processes anew for every case is played by `make chaos` alone.
chaos = pytest.mark.skipif(
    not os.environ.get("POLAR_STORE_STORMS"), reason="make chaos plays it"
)
CONCERNED = "SELECT replace(id, '-', ''), state, reason FROM runs_run"


@dataclass
class World:
    """A store with a past, its present and the witness; cases work on copies.

    Before the older copy: runs `a` and `b`. After it: `a` was carried, `c`, `d` and
    `e` came, `c` was carried, and the last of it lies in the WAL alone.
    """

    polar: House
    resident: Resident
    kept: Path
    runs: dict[str, str]
    board: str

    def copy(self, to: Path) -> "Case":
        to.mkdir()
        for name in ("polar.db", "polar.db-wal"):
            shutil.copy(self.kept / name, to)
        shutil.copytree(self.kept / "witness", to / "witness")
        return Case(self, to)


@dataclass
class Case:
    world: World
    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "polar.db"

    @property
    def wal(self) -> Path:
        return self.folder / "polar.db-wal"

    def older(self) -> Path:
        return self.world.kept / "older.db"

    def do(self, *words: str) -> Any:
        return self.world.resident.do(*words, folder=self.folder)

    def answers(self) -> dict[str, int]:
        paths = [path.format(board=self.world.board) for path in PAGES]
        found = self.do("answers", *paths)
        assert not found["code"], found
        return dict(found["said"])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.store, timeout=10)) as db:
            return db.execute(sql).fetchall()

    def flagged(self) -> dict[str, str]:
        """Shape: name of each known run to how it is set aside."""
        of_id = {
            ident.replace("-", ""): name for name, ident in self.world.runs.items()
        }
        return {
            of_id[ident]: reason or state
            for ident, state, reason in self.rows(CONCERNED)
            if ident in of_id
        }

    def flush(self) -> None:
        flush(self.store)

    def drop_wal(self) -> None:
        for end in ("-wal", "-shm"):
            self.store.with_name(f"polar.db{end}").unlink(missing_ok=True)


def flush(store: Path) -> None:
    """Let the file itself hold everything."""
    with closing(sqlite3.connect(store)) as db:
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rollback")
    kept = folder / "kept"
    kept.mkdir()
    with house(folder) as polar:
        resident = Resident(polar)
        a, b = resident.do("live", "2")["said"]
        resident.do("tasks", a, b)
        resident.do("sign-in")
        ((board,),) = polar.rows("SELECT id FROM boards_board")
        flush(folder / "polar.db")
        shutil.copy(folder / "polar.db", kept / "older.db")
        shutil.copytree(folder / "witness", kept / "witness-older")
        # So many that their pages are not all written again after the flush.
        c, *_ = resident.do("live", "40")["said"]
        flush(folder / "polar.db")
        shutil.copytree(folder / "witness", kept / "witness-flushed")
        with closing(sqlite3.connect(folder / "polar.db")) as reader:
            # A connection that stays keeps what follows in the WAL.
            reader.execute("SELECT count(*) FROM runs_run").fetchone()
            assert resident.do("work", a, c)["said"] == 2
            d, e = resident.do("live", "2")["said"]
            for name in ("polar.db", "polar.db-wal"):
                shutil.copy(folder / name, kept)
        shutil.copytree(folder / "witness", kept / "witness")
        runs = dict(zip("abcde", (a, b, c, d, e), strict=True))
        yield World(polar, resident, kept, runs, str(UUID(str(board))))
        resident.close()


def clean_swap(case: Case) -> None:
    case.drop_wal()
    shutil.copy(case.older(), case.store)


def rename(case: Case) -> None:
    case.drop_wal()
    shutil.copy(case.older(), case.folder / "new.db")
    os.replace(case.folder / "new.db", case.store)


def copy_in_place(case: Case) -> None:
    case.flush()
    with case.store.open("r+b") as file:
        file.write(case.older().read_bytes())
        file.truncate()


def catches_up(case: Case) -> None:
    """The older copy lives on elsewhere until it is longer than the anchor."""
    clean_swap(case)
    witness = case.folder / "witness"
    witness.rename(case.folder / "aside")
    shutil.copytree(case.world.kept / "witness-older", witness)
    case.do("live", "8")
    shutil.rmtree(witness)
    (case.folder / "aside").rename(witness)


def lost_wal(case: Case) -> None:
    case.wal.unlink()


def new_wal(case: Case) -> None:
    """An older file beside the newer WAL."""
    shutil.copy(case.older(), case.store)


def truncation(case: Case) -> None:
    case.flush()
    case.drop_wal()
    os.truncate(case.store, case.store.stat().st_size // 2)


def edited_event(case: Case) -> None:
    with closing(sqlite3.connect(case.store)) as db:
        db.execute("DROP TRIGGER audit_keep_event_columns")
        db.execute(
            "UPDATE audit_event SET reason = 'nothing' WHERE run_id = ?"
            " AND gseq IS NOT NULL",
            [case.world.runs["b"].replace("-", "")],
        )
        db.commit()


AWAY = {"c": "lost_by_rollback", "d": "lost_by_rollback", "e": "lost_by_rollback"}
WENT_BACK = {**AWAY, "a": "conflicted_history", "b": "stale"}
#: What only the WAL held is gone: `c` is known, but not that it was carried.
LOST_WAL = {
    **WENT_BACK,
    "c": "conflicted_history",
}


@pytest.mark.parametrize(
    ("swap", "flagged"),
    [
        (clean_swap, WENT_BACK),
        (rename, WENT_BACK),
        (copy_in_place, WENT_BACK),
        (catches_up, WENT_BACK),
        (lost_wal, LOST_WAL),
    ],
)
def test_store_when_it_went_back_then_seen_and_exactly_its_runs_are_flagged(
    world: World,
    tmp_path: Path,
    swap: Callable[[Case], None],
    flagged: dict[str, str],
) -> None:
    case = world.copy(tmp_path / "case")
    swap(case)

    seen = case.do("store", "check", "--json")

    assert seen["code"] == 1, seen
    assert (case.folder / "witness" / "alarm.json").exists()
    assert case.flagged() == flagged
    assert set(case.answers().values()) == {200}
    assert case.do("work")["said"] == 0
    marks = dict(case.rows("SELECT status, count(*) FROM boards_task GROUP BY status"))
    assert marks == {"conflicted": 1, "stale": 1}
    note(swap.__name__, seen)


def test_store_when_left_alone_then_no_alarm_and_its_wal_is_read(
    world: World, tmp_path: Path
) -> None:
    case = world.copy(tmp_path / "case")

    assert case.do("store", "check")["code"] == 0
    assert case.flagged() == {
        "a": "succeeded",
        "b": "queued",
        "c": "succeeded",
        "d": "queued",
        "e": "queued",
    }
    assert set(case.answers().values()) == {200}


def test_store_when_the_rollback_is_accepted_then_nothing_is_done_twice(
    world: World, tmp_path: Path
) -> None:
    case = world.copy(tmp_path / "case")
    clean_swap(case)
    case.do("store", "check")

    accepted = case.do("store", "accept", "--reason", "Sunday's copy")
    assert accepted["code"] == 0, accepted
    case.do("store", "resume", "--reason", "looked")
    assert case.do("work")["said"] == 1

    assert case.do("store", "check")["code"] == 0
    assert case.do("audit", "verify")["code"] == 0
    assert case.flagged() == {**WENT_BACK, "b": "succeeded"}
    carried = [line[0] for line in world.polar.carried()]
    assert sorted(carried) == sorted(world.runs[name] for name in "abc")


@pytest.mark.parametrize("swap", [truncation, new_wal])
def test_store_when_it_is_ruined_then_an_alarm_stands_and_health_says_so(
    world: World, tmp_path: Path, swap: Callable[[Case], None]
) -> None:
    case = world.copy(tmp_path / "case")
    swap(case)

    seen = case.do("store", "check", "--json")

    assert seen["code"] != 0, seen
    assert (case.folder / "witness" / "alarm.json").exists(), seen
    assert set(case.answers().values()) <= {200, 503}
    assert case.do("work")["said"] == 0 or case.do("work")["code"]
    note(swap.__name__, seen)


def test_store_when_an_event_was_edited_then_its_run_is_flagged_and_none_accepts_it(
    world: World, tmp_path: Path
) -> None:
    case = world.copy(tmp_path / "case")
    edited_event(case)

    seen = case.do("store", "check", "--json")
    refused = case.do("store", "accept", "--reason", "as it is")

    assert seen["code"] == 1, seen
    assert case.flagged()["b"] == "conflicted_history"
    assert set(case.answers().values()) == {200}
    assert refused["code"] == 2
    assert "Restore a snapshot instead" in refused["said"]
    note("edited_event", seen)


@pytest.mark.parametrize("swap", [clean_swap, rename, copy_in_place])
def test_store_when_the_witness_went_back_too_then_nothing_is_seen(
    world: World, tmp_path: Path, swap: Callable[[Case], None]
) -> None:
    """The negative control."""
    case = world.copy(tmp_path / "case")
    swap(case)
    shutil.rmtree(case.folder / "witness")
    shutil.copytree(world.kept / "witness-older", case.folder / "witness")

    assert case.do("store", "check")["code"] == 0


@chaos
@pytest.mark.parametrize(
    "swap", [rename, copy_in_place, lost_wal, truncation, edited_event]
)
def test_store_when_it_changes_under_live_processes_then_they_see_it(
    world: World, tmp_path: Path, swap: Callable[[Case], None]
) -> None:
    case = world.copy(tmp_path / "case")
    url = f"sqlite:///{case.store}"

    carried = seen_while_running(swap.__name__, case.folder, url, lambda: swap(case))

    done_before = {world.runs[name] for name in "ac"}
    assert not done_before & set(carried)


@chaos
@pytest.mark.parametrize("swap", [clean_swap, lost_wal, catches_up, edited_event])
def test_store_when_it_went_back_before_a_start_then_seen_and_nothing_is_carried(
    world: World, tmp_path: Path, swap: Callable[[Case], None]
) -> None:
    case = world.copy(tmp_path / "case")
    swap(case)

    seen_at_start(swap.__name__, case.folder, f"sqlite:///{case.store}")


def note(name: str, seen: Any) -> None:
    """Leave the figure for whoever runs this with -s; timings are not judged."""
    sys.stdout.write(f"{name}: seen {seen['seconds']:.3f} s after the look began\n")
