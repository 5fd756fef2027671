"""A temporary Polar of real processes over a database of its own.

SQLite by default; where DATABASE_URL names PostgreSQL, each house gets a fresh
database copied from one migrated template, and a Redis database of its own.
"""

import fcntl
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.journeys.forks import Forked

ROOT = Path(__file__).resolve().parents[2]
ON_POSTGRES = os.environ.get("DATABASE_URL", "").startswith("postgres")

Process = subprocess.Popen[bytes] | Forked

_numbers = itertools.count(1)
_templates: dict[tuple[str, ...], str] = {}
#: One run of the suite, whose processes share what is costly to make.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))


class House:
    """Starts processes against one database, reads it from outside, and cleans up."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.url = database_url
        self.log = folder / "journey.log"
        self.log.touch()
        (folder / "witness").mkdir(exist_ok=True)
        self.env = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url(),
            "JOURNEY_LOG": str(self.log),
            "JOURNEY_WITNESS": str(folder / "witness"),
            "POLAR_WITNESS_DIR": str(folder / "witness"),
        }
        self.processes: list[Process] = []

    def start(self, *arguments: str, die: str = "") -> "Process":
        """Start a harness process; with `die` it kills itself there."""
        armed = ("--die", die) if die else ()
        out = self.folder / f"out{len(self.processes)}.txt"
        process = self._begin((*armed, *arguments), out)
        self.processes.append(process)
        return process

    def _begin(self, words: tuple[str, ...], out: Path) -> "Process":
        """A fork of a warm process; one with another broker starts from nothing."""
        if self.env["REDIS_URL"] == redis_url() and _is_ours(self.url):
            return Forked(words, self.env, out)
        command = [sys.executable, "-m", "tests.journeys.harness", *words]
        with out.open("wb") as printed:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=printed, stderr=printed
            )

    def do(self, *arguments: str, die: str = "") -> int:
        """Run a harness process to its end and return its exit code."""
        return self.start(*arguments, die=die).wait(timeout=90)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read the database from outside."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self._file(), timeout=10)) as db:
                return db.execute(sql).fetchall()
        with psycopg.connect(self.url) as db:
            return db.execute(sql).fetchall()  # type: ignore[call-overload,no-any-return]

    def write(self, sql: str) -> None:
        """Change the database from outside."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self._file(), timeout=10)) as db:
                db.execute(sql)
                db.commit()
            return
        with psycopg.connect(self.url) as db:
            db.execute(sql)  # type: ignore[call-overload]

    def takes_writers(self) -> bool:
        """Tell whether nobody has the SQLite file to itself; PostgreSQL has rows."""
        if not self.url.startswith("sqlite"):
            return True
        with closing(sqlite3.connect(self._file(), timeout=0.5)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def states(self) -> dict[str, int]:
        """Shape: how many runs are in each state."""
        return dict(self.rows("SELECT state, count(*) FROM runs_run GROUP BY state"))

    def working(self) -> bool:
        """Tell whether some worker has begun to beat."""
        return bool(self.rows("SELECT 1 FROM runs_workerbeat"))

    def hurry(self) -> None:
        """Let the leases of the dead lapse now rather than in half a minute."""
        self.write(
            "UPDATE runs_run SET lease_until = '2000-01-01 00:00:00' "
            "WHERE state = 'running'"
        )

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

    def _file(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))


@contextmanager
def house(folder: Path, *prepare: str) -> Iterator[House]:
    """Set up a house; `prepare` names harness commands that fill its template.

    Leaves no process and no database behind.
    """
    built = House(folder, _copy(_template(prepare), folder))
    try:
        yield built
    finally:
        built.stop_all()
        if ON_POSTGRES:
            _on_server(f'DROP DATABASE "{_name(built.url)}" WITH (FORCE)')


def eventually(true: Callable[[], bool], within: float = 60.0) -> bool:
    """Wait until something holds, at most so many seconds."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.05)
    return False


def _is_ours(url: str) -> bool:
    """Tell whether a store differs from the suite's in its name only."""
    ours = os.environ.get("DATABASE_URL", "")
    if not ON_POSTGRES:
        return url.startswith("sqlite")
    return url.rpartition("/")[0] == ours.rpartition("/")[0]


def redis_url() -> str:
    """Return a Redis database of this test process's own, or "" without Redis."""
    given = os.environ.get("REDIS_URL", "")
    if not given:
        return ""
    return urlunsplit(urlsplit(given)._replace(path=f"/{1 + os.getpid() % 15}"))


def _template(prepare: tuple[str, ...]) -> str:
    """Return the URL of a migrated database, made once for all test processes."""
    if prepare in _templates:
        return _templates[prepare]
    folder = _shared_folder() / ("-".join(prepare) or "bare")
    url = _new_url(folder, f"journey_{_RUN}_{folder.name}")
    with _alone(folder):
        if not (folder / "made").exists():
            _make(url, folder, prepare)
            (folder / "made").touch()
    _templates[prepare] = url
    return url


def _make(url: str, folder: Path, prepare: tuple[str, ...]) -> None:
    if prepare:
        _copy_to(_template(()), url, folder)
    elif ON_POSTGRES:
        _on_server(f'CREATE DATABASE "{_name(url)}"')
    maker = House(folder, url)
    for command in prepare or ("migrate",):
        assert maker.do(command) == 0, maker.output()
    if not ON_POSTGRES:
        # From here on nobody opens it: the file alone is the whole of it.
        with closing(sqlite3.connect(folder / "polar.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _shared_folder() -> Path:
    """Where the processes of one run of the suite keep what they share."""
    backend = "postgres" if ON_POSTGRES else "sqlite"
    return Path(tempfile.gettempdir()) / f"polar-templates-{_RUN}-{backend}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(template: str, folder: Path) -> str:
    url = _new_url(folder, f"journey_{os.getpid()}_{next(_numbers)}")
    _copy_to(template, url, folder)
    return url


def _copy_to(template: str, url: str, folder: Path) -> None:
    if ON_POSTGRES:
        _on_server(f'CREATE DATABASE "{_name(url)}" TEMPLATE "{_name(template)}"')
        return
    shutil.copy(template.removeprefix("sqlite:///"), folder / "polar.db")


def _new_url(folder: Path, name: str) -> str:
    if not ON_POSTGRES:
        return f"sqlite:///{folder}/polar.db"
    parts = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(parts._replace(path=f"/{name}"))


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def _on_server(sql: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
        db.execute(sql)  # type: ignore[call-overload]
