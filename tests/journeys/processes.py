"""A temporary Polar of real processes over one SQLite file."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class House:
    """Starts processes against one database, reads it from outside, and cleans up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "journey.log"
        self.log.touch()
        self.env = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{folder}/polar.db",
            "JOURNEY_LOG": str(self.log),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, die: str = "") -> subprocess.Popen[bytes]:
        """Start a harness process; with `die` it kills itself there."""
        armed = ["--die", die] if die else []
        command = [sys.executable, "-m", "tests.journeys.harness", *armed, *arguments]
        with (self.folder / f"out{len(self.processes)}.txt").open("wb") as out:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=out, stderr=out
            )
        self.processes.append(process)
        return process

    def do(self, *arguments: str, die: str = "") -> int:
        """Run a harness process to its end and return its exit code."""
        return self.start(*arguments, die=die).wait(timeout=60)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the database from outside."""
        with closing(sqlite3.connect(self.folder / "polar.db", timeout=10)) as db:
            return db.execute(sql).fetchall()

    def states(self) -> dict[str, int]:
        """Shape: how many runs are in each state."""
        return dict(self.rows("SELECT state, count(*) FROM runs_run GROUP BY state"))

    def working(self) -> bool:
        """Tell whether some worker has begun to beat."""
        return bool(self.rows("SELECT 1 FROM runs_workerbeat"))

    def hurry(self) -> None:
        """Let the leases of the dead lapse now rather than in half a minute."""
        with closing(sqlite3.connect(self.folder / "polar.db", timeout=10)) as db:
            db.execute(
                "UPDATE runs_run SET lease_until = '2000-01-01 00:00:00' "
                "WHERE state = 'running'"
            )
            db.commit()

    def stop_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def carried(self) -> list[list[str]]:
        """Shape: [run id, fence, process id] for each time a handler got through."""
        return [line.split() for line in self.log.read_text().splitlines()]

    def output(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.folder.glob("out*.txt")))


@contextmanager
def house(folder: Path) -> Iterator[House]:
    """Set up a house with an empty database; leave no process behind."""
    built = House(folder)
    assert built.do("migrate", "--run-syncdb") == 0, built.output()
    try:
        yield built
    finally:
        built.stop_all()


def eventually(true: Callable[[], bool], within: float = 15.0) -> bool:
    """Wait until something holds, at most so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False
