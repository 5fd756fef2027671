"""A temporary Polar of real processes over a database of its own.

SQLite by default; where DATABASE_URL names PostgreSQL, each house gets a fresh
database copied from one migrated template, and a Redis database of its own.
"""

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

ROOT = Path(__file__).resolve().parents[2]
ON_POSTGRES = os.environ.get("DATABASE_URL", "").startswith("postgres")

_numbers = itertools.count(1)
_templates: dict[str, str] = {}


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


def redis_url() -> str:
    """Return a Redis database of this test process's own, or "" without Redis."""
    given = os.environ.get("REDIS_URL", "")
    if not given:
        return ""
    return urlunsplit(urlsplit(given)._replace(path=f"/{1 + os.getpid() % 15}"))


def _template(prepare: tuple[str, ...]) -> str:
    """Return the URL of a migrated database, made once per test process."""
    key = " ".join(prepare)
    if key not in _templates:
        folder = Path(tempfile.mkdtemp(prefix="polar-template-"))
        url = _new_url(folder)
        if ON_POSTGRES:
            _on_server(f'CREATE DATABASE "{_name(url)}"')
        maker = House(folder, url)
        for command in ("migrate", *prepare):
            assert maker.do(command) == 0, maker.output()
        _templates[key] = url
    return _templates[key]


def _copy(template: str, folder: Path) -> str:
    url = _new_url(folder)
    if ON_POSTGRES:
        _on_server(f'CREATE DATABASE "{_name(url)}" TEMPLATE "{_name(template)}"')
        return url
    source = Path(template.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(source)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(source, folder / "polar.db")
    return url


def _new_url(folder: Path) -> str:
    if not ON_POSTGRES:
        return f"sqlite:///{folder}/polar.db"
    parts = urlsplit(os.environ["DATABASE_URL"])
    name = f"journey_{os.getpid()}_{next(_numbers)}"
    return urlunsplit(parts._replace(path=f"/{name}"))


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def _on_server(sql: str) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
        db.execute(sql)  # type: ignore[call-overload]
