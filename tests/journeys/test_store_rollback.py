"""A restore that was announced, and a copy put into place behind Polar's back."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.journeys.processes import ON_POSTGRES, House, house

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(ON_POSTGRES, reason="swaps SQLite files"),
]

LOST = "SELECT count(*) FROM runs_run WHERE reason = 'lost_by_rollback'"


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    """A house with two runs, a copy of its store, and three runs since."""
    with house(tmp_path) as built:
        assert built.do("live", "2") == 0, built.output()
        with closing(sqlite3.connect(store_of(built))) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(store_of(built), tmp_path / "older.db")
        assert built.do("live", "3") == 0, built.output()
        yield built


def store_of(polar: House) -> Path:
    return polar.folder / "polar.db"


def without_wal(polar: House) -> None:
    for end in ("-wal", "-shm"):
        store_of(polar).with_name(f"polar.db{end}").unlink(missing_ok=True)


def clean_swap(polar: House) -> None:
    without_wal(polar)
    shutil.copy(polar.folder / "older.db", store_of(polar))


def test_restore_when_announced_then_no_alarm_and_a_copy_behind_its_back_is_one(
    polar: House,
) -> None:
    assert polar.do("snapshot", "create") == 0, polar.output()
    (taken,) = (polar.folder / "snapshots").iterdir()
    assert polar.do("snapshot", "verify", taken.name) == 0, polar.output()
    assert polar.do("live", "2") == 0, polar.output()

    assert polar.do("restore", taken.name, "--reason", "try") == 0, polar.output()

    assert polar.do("store", "check") == 0, polar.output()
    assert polar.rows(LOST) == [(2,)]
    assert polar.do("audit", "verify") == 0, polar.output()
    clean_swap(polar)
    assert polar.do("store", "check") == 1, polar.output()
