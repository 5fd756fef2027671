"""SQLite for many threads and processes: writers take turns, connections are kept.

Hides: which statements need the turn at writing; `turns` says whose it is. A closed
connection waits in a short list for the next thread: opening one, with its pragmas,
costs more than a statement.
Invariants: a turn lasts from before BEGIN until after the commit; a connection is
kept only outside a transaction, without an error, and while its path still names the
file it opened, with the write-ahead log it had: SQLite goes on in a log that was
deleted under it; no stranger on this machine may read the file.
Source: docs/decisions/0013-turns-at-the-sqlite-file.md
"""

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from polar_site.sqlite3.turns import Turns

#: So many closed connections wait for the next thread.
MOST_IDLE = 8
#: What needs no turn at writing.
READS = ("SELECT", "PRAGMA", "EXPLAIN", "BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")

#: Device and inode of the file, inode of its write-ahead log (0: none yet).
FileIdentity = tuple[int, int, int]


class Idle:
    """Open connections of this process that nobody uses, per file."""

    def __init__(self) -> None:
        self._kept: deque[tuple[str, FileIdentity, Any]] = deque()
        #: A fork's connections belong to its parent: neither used nor closed.
        self._of_the_parent: list[Any] = []

    def take(self, path: str) -> tuple[Any, FileIdentity] | None:
        while self._kept:
            try:
                name, identity, raw = self._kept.popleft()
            except IndexError:
                return None
            if name == path and is_same_file(identity, file_identity(path)):
                return raw, identity
            raw.close()
        return None

    def keep(self, path: str, identity: FileIdentity | None, raw: Any) -> bool:
        """Take a connection in, unless there are enough or it is not sound."""
        is_sound = identity is not None and is_same_file(identity, file_identity(path))
        if not is_sound or raw.in_transaction or len(self._kept) >= MOST_IDLE:
            return False
        assert identity is not None
        self._kept.append((path, identity, raw))
        return True

    def drop(self, path: str) -> None:
        """Close what is kept of one file, so that the next is opened anew."""
        for kept in [kept for kept in self._kept if kept[0] == path]:
            try:
                self._kept.remove(kept)
            except ValueError:
                continue  # another thread took it
            kept[2].close()

    def forget(self) -> None:
        """In a fresh fork: begin with none."""
        self._of_the_parent += [raw for _, _, raw in self._kept]
        self._kept.clear()


def file_identity(path: str) -> FileIdentity | None:
    """Tell which file a path names now."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    try:
        log = os.stat(f"{path}-wal").st_ino
    except OSError:
        log = 0
    return found.st_dev, found.st_ino, log


def make_private(path: str) -> None:
    """Let nobody but its owner read a new file, and no stranger an old one. SQLite
    gives the log beside it the file's own mode."""
    with contextlib.suppress(OSError):  # what cannot be opened, SQLite says itself
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(os.stat(name).st_mode)
            if mode & stat.S_IRWXO:
                os.chmod(name, mode & ~stat.S_IRWXO)


def is_same_file(opened: FileIdentity, now: FileIdentity | None) -> bool:
    """Tell whether a connection that opened the one may go on with the other."""
    return now is not None and opened[:2] == now[:2] and opened[2] in (0, now[2])


def queue_anew() -> None:
    """In a fresh fork: nobody of this process waits or writes."""
    for turns in _turns.values():
        turns.forget()
    _turns.clear()


idle = Idle()
_turns: dict[str, Turns] = {}
os.register_at_fork(after_in_child=idle.forget)
os.register_at_fork(after_in_child=queue_anew)


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's backend with turns at writing and kept connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn: Turns | None = None
        self._identity: FileIdentity | None = None
        self.execute_wrappers.append(self._write_in_turn)

    # --- connections

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        path = str(conn_params["database"])
        kept = None if self.is_in_memory_db() else idle.take(path)
        if kept is not None:
            raw, self._identity = kept
            return raw
        if not (self.is_in_memory_db() or path.startswith("file:")):
            make_private(path)
        raw = super().get_new_connection(conn_params)
        self._identity = file_identity(path)
        return raw

    def _close(self) -> None:
        path, raw = str(self.settings_dict["NAME"]), self.connection
        sound = not (self.in_atomic_block or self.errors_occurred)
        try:
            if not (sound and idle.keep(path, self._identity, raw)):
                super()._close()  # type: ignore[misc]
        finally:
            self._leave()

    def drop_idle(self) -> None:
        """Let the next connection be opened anew, with nothing of the file cached."""
        idle.drop(str(self.settings_dict["NAME"]))

    def execute_later(
        self, sql: str, params: Any, otherwise: Exception | None = None
    ) -> Callable[[], Any]:
        """Execute a statement now, for there is no trip to save; return its first
        row's reader.   Raises: `otherwise` when it did not meet one row."""
        with self.cursor() as cursor:
            cursor.execute(sql, params)
            if otherwise is not None and cursor.rowcount != 1:
                raise otherwise
            row = cursor.fetchone()
        return lambda: row

    # --- turns

    def _start_transaction_under_autocommit(self) -> None:
        self._enter()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._leave()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        self._leave()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._leave()

    def _write_in_turn(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, told: Any
    ) -> Any:
        """A statement outside a transaction is one of its own."""
        has_turn = self._turn is not None or self.in_atomic_block
        if has_turn or sql.lstrip()[:9].upper().startswith(READS):
            return execute(sql, params, many, told)
        self._enter()
        try:
            return execute(sql, params, many, told)
        finally:
            self._leave()

    def _enter(self) -> None:
        if self._turn is not None or self.is_in_memory_db():
            return
        path = str(self.settings_dict["NAME"])
        turns = _turns.get(path) or _turns.setdefault(path, Turns(path))
        if not turns.enter(float(self.settings_dict["OPTIONS"].get("timeout", 5))):
            raise OperationalError("database is locked: this process writes too much")
        self._turn = turns

    def _leave(self) -> None:
        if self._turn is not None:
            turn, self._turn = self._turn, None
            turn.leave()
