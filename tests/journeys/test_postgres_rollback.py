"""A PostgreSQL store goes back: none of its own counters would tell, the witness does.

Each case is a whole cluster's life, so only `make chaos` plays them
(POLAR_STORE_STORMS=1).
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.journeys.alarmed import seen_at_start, seen_while_running
from tests.journeys.cluster import Cluster
from tests.journeys.processes import ON_POSTGRES, House
from tests.journeys.resident import Resident

pytestmark = [
    pytest.mark.journey,
    pytest.mark.postgres,
    pytest.mark.skipif(
        not (ON_POSTGRES and os.environ.get("POLAR_STORE_STORMS")),
        reason="make chaos plays it",
    ),
]

CONCERNED = "SELECT id::text, state, reason FROM runs_run"
WENT_BACK = {
    "a": "conflicted_history",
    "b": "stale",
    "c": "lost_by_rollback",
    "d": "lost_by_rollback",
}


@dataclass
class World:
    """As in test_store_rollback: `a` and `b` before the copies, `c` and `d` after."""

    cluster: Cluster
    resident: Resident
    folder: Path
    newest: Path
    base: Path
    older: Path
    runs: dict[str, str]

    def begin(self, folder: Path) -> "Case":
        """The newest store and its witness, running."""
        self.cluster.put_back(self.newest)
        self.cluster.start()
        folder.mkdir()
        shutil.copytree(self.folder / "witness", folder / "witness")
        return Case(self, folder)


@dataclass
class Case:
    world: World
    folder: Path

    def do(self, *words: str) -> Any:
        url = self.world.cluster.url
        return self.world.resident.do(*words, folder=self.folder, url=url)

    def flagged(self) -> dict[str, str]:
        of_id = {ident: name for name, ident in self.world.runs.items()}
        with psycopg.connect(self.world.cluster.url) as db:
            rows = db.execute(CONCERNED).fetchall()
        return {
            of_id[ident]: reason or state
            for ident, state, reason in rows
            if ident in of_id
        }


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="polar-cluster-") as home:
        Path(home).chmod(0o755)
        cluster = Cluster(Path(home) / "pg")
        folder = Path(home) / "house"
        folder.mkdir()
        built = House(folder, cluster.url)
        try:
            made = history(built, cluster)
            yield made
            made.resident.close()
        finally:
            built.stop_all()
            cluster.stop()


def history(built: House, cluster: Cluster) -> World:
    assert built.do("migrate") == 0, built.output()
    resident = Resident(built)
    a, b = resident.do("live", "2")["said"]
    resident.do("sign-in")
    base, older = cluster.back_up(), cluster.dump()
    shutil.copytree(built.folder / "witness", built.folder / "witness-older")
    cluster.sql("SELECT pg_create_restore_point('before')", "SELECT pg_switch_wal()")
    c, d = resident.do("live", "2")["said"]
    assert resident.do("work", a, c)["said"] == 2
    cluster.sql("SELECT pg_switch_wal()")
    cluster.stop()
    newest = cluster.keep("newest")
    runs = dict(zip("abcd", (a, b, c, d), strict=True))
    return World(cluster, resident, built.folder, newest, base, older, runs)


def base_backup(case: Case) -> None:
    """Started plainly: the same identifier and timeline, a lower LSN."""
    case.world.cluster.put_back(case.world.base)
    case.world.cluster.start()


def point_in_time(case: Case) -> None:
    """Recovered to a point and promoted: another timeline."""
    cluster = case.world.cluster
    cluster.put_back(case.world.base)
    (cluster.data / "recovery.signal").touch()
    with (cluster.data / "postgresql.auto.conf").open("a") as conf:
        conf.write(
            f"restore_command = 'cp {cluster.archive}/%f %p'\n"
            "recovery_target_name = 'before'\n"
            "recovery_target_action = 'promote'\n"
        )
    cluster.own(cluster.data)
    cluster.start()


def pg_restore_clean(case: Case) -> None:
    """Into the same cluster: the same identifier and timeline, a higher LSN."""
    case.world.cluster.load(case.world.older)


def catches_up(case: Case) -> None:
    """Restored, then used elsewhere until it is longer than the anchor."""
    pg_restore_clean(case)
    witness = case.folder / "witness"
    witness.rename(case.folder / "aside")
    shutil.copytree(case.world.folder / "witness-older", witness)
    case.do("live", "8")
    shutil.rmtree(witness)
    (case.folder / "aside").rename(witness)


def note(name: str, seen: Any) -> None:
    sys.stdout.write(f"{name}: seen {seen['seconds']:.3f} s after the look began\n")


@pytest.mark.parametrize(
    "swap", [base_backup, point_in_time, pg_restore_clean, catches_up]
)
def test_store_when_it_went_back_then_seen_and_exactly_its_runs_are_flagged(
    world: World, tmp_path: Path, swap: Callable[[Case], None]
) -> None:
    case = world.begin(tmp_path / "case")
    assert case.do("store", "check")["code"] == 0
    swap(case)

    seen = case.do("store", "check", "--json")

    assert seen["code"] == 1, seen
    assert case.flagged() == WENT_BACK
    answers = case.do("answers", "/boards/", "/healthz", "/store/")["said"]
    assert set(answers.values()) == {200}
    assert case.do("work")["said"] == 0
    accepted = case.do("store", "accept", "--reason", "as it is")
    assert accepted["code"] == 0, accepted
    assert case.do("audit", "verify")["code"] == 0
    assert case.do("store", "check")["code"] == 0
    note(swap.__name__, seen)


def delete_and_insert(case: Case) -> None:
    its_events = f"run_id = '{case.world.runs['b']}' AND gseq IS NOT NULL"
    case.world.cluster.sql(
        "SET session_replication_role = replica",
        f"CREATE TEMP TABLE kept AS SELECT * FROM audit_event WHERE {its_events}",
        f"DELETE FROM audit_event WHERE {its_events}",
        "UPDATE kept SET reason = 'another'",
        "INSERT INTO audit_event SELECT * FROM kept",
    )


def test_store_when_an_event_was_deleted_and_put_in_again_then_its_run_is_flagged(
    world: World, tmp_path: Path
) -> None:
    case = world.begin(tmp_path / "case")
    delete_and_insert(case)

    seen = case.do("store", "check", "--json")
    refused = case.do("store", "accept", "--reason", "as it is")

    assert seen["code"] == 1, seen
    assert case.flagged()["b"] == "conflicted_history"
    assert refused["code"] == 2
    note("delete_and_insert", seen)


@pytest.mark.parametrize(
    "swap", [base_backup, point_in_time, pg_restore_clean, delete_and_insert]
)
def test_store_when_it_changes_under_live_processes_then_they_see_it(
    world: World, tmp_path: Path, swap: Callable[[Case], None]
) -> None:
    case = world.begin(tmp_path / "case")
    url = world.cluster.url

    carried = seen_while_running(swap.__name__, case.folder, url, lambda: swap(case))

    assert world.runs["a"] not in carried


def test_store_when_it_went_back_before_a_start_then_seen_and_nothing_is_carried(
    world: World, tmp_path: Path
) -> None:
    case = world.begin(tmp_path / "case")
    catches_up(case)

    seen_at_start("catches_up", case.folder, world.cluster.url)


def test_store_when_the_witness_went_back_too_then_nothing_is_seen(
    world: World, tmp_path: Path
) -> None:
    """The negative control."""
    case = world.begin(tmp_path / "case")
    pg_restore_clean(case)
    shutil.rmtree(case.folder / "witness")
    shutil.copytree(world.folder / "witness-older", case.folder / "witness")

    assert case.do("store", "check")["code"] == 0
