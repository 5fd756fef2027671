"""A worker's own look at the database: what is due is claimed and handed on.

Hides: that SQLite tells by `PRAGMA data_version` that somebody committed, that
PostgreSQL is asked every second (sooner by a worker that was full), and that a
database file may be exchanged under a running process.
Invariants: never more runs than free slots; nothing is claimed while the store
is in doubt.
Source: https://sqlite.org/pragma.html#pragma_data_version
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.common import clock
from apps.common.loops import run_forever
from apps.runs.engine import guard
from apps.runs.engine.claim import Claimed, anything_due, claim
from apps.runs.engine.leases import LeaseKeeper
from apps.runs.engine.sweep import sweep

logger = logging.getLogger(__name__)

#: How often SQLite is asked whether anybody committed.
LOOK_SECONDS = 0.01
#: How often a worker that was full looks whether it has room again.
ROOM_SECONDS = 0.05
#: Without a sign of a commit: runs fall due by time alone.
SQLITE_POLL_SECONDS = 0.25
SERVER_POLL_SECONDS = 1.0
#: How soon a look that failed is tried again, at the latest.
RETRY_SECONDS = 5.0
SWEEP_SECONDS = 5.0
#: Runs taken in one claim.
MOST_AT_ONCE = 64


class CommitSign:
    """Tells whether another connection committed to the SQLite file."""

    def __init__(self) -> None:
        self._own: BaseDatabaseWrapper | None = None
        self._version = -1
        self._file = _file_identity()

    def changed(self) -> bool:
        raw: Any = self._raw()
        version = raw.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        return bool(before != version)

    def exchanged(self) -> bool:
        """Tell whether the path now names another file; then look at that one."""
        found = _file_identity()
        if found == self._file:
            return False
        self._file = found
        self.close()
        return True

    def close(self) -> None:
        if self._own is not None:
            self._own.close()
        self._own, self._version = None, -1

    def _raw(self) -> Any:
        if self._own is None:
            self._own = connections["default"].copy()
            self._own.inc_thread_sharing()
            self._own.ensure_connection()
        return self._own.connection


def _file_identity() -> tuple[int, int] | None:
    name = str(connections["default"].settings_dict["NAME"])
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Watch:
    """The thread that finds due runs and hands them to the pool."""

    def __init__(self, keeper: LeaseKeeper, hand: Callable[[Claimed], None]) -> None:
        self.keeper = keeper
        self._hand = hand
        self._stop = threading.Event()
        self._sign = CommitSign() if connection.vendor == "sqlite" else None
        self._poll_at = 0.0
        self._was_full = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads.append(guard.start(self._stop))
        interval = LOOK_SECONDS if self._sign else ROOM_SECONDS
        for name, step, every in (
            ("watch", self.look, interval),
            ("sweep", self._sweep, SWEEP_SECONDS),
        ):
            thread = threading.Thread(
                target=run_forever,
                args=(name, step),
                kwargs={
                    "interval": every,
                    "stop": self._stop,
                    "longest": RETRY_SECONDS,
                },
                name=name,
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Claim nothing more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2)
        if self._sign is not None:
            self._sign.close()

    def look(self) -> int:
        """Claim and hand on what is due, if there is a sign that something is."""
        if not self._worth_looking():
            return 0
        handed = 0
        while (free := self.keeper.free()) > 0 and anything_due(self.keeper.queues):
            taken = self._take(min(free, MOST_AT_ONCE))
            if not taken:
                break
            for claimed in taken:
                self._hand(claimed)
            handed += len(taken)
        self._was_full = self.keeper.free() == 0
        return handed

    def _take(self, limit: int) -> list[Claimed]:
        with self.keeper.claiming() as may:
            if not may:
                return []
            taken = claim(
                owner=self.keeper.owner, queues=self.keeper.queues, limit=limit
            )
            for claimed in taken:
                self.keeper.hold(claimed)
        return taken

    def _worth_looking(self) -> bool:
        moment = clock.monotonic()
        if self._sign is None:
            if moment < self._poll_at and not self._was_full:
                return False
            self._poll_at = moment + SERVER_POLL_SECONDS
            return True
        if self._sign.exchanged():
            connection.close()
            logger.error("database file exchanged", extra={"event": "store.exchanged"})
            raise RuntimeError("the database file was exchanged; looking again")
        if not self._sign.changed() and moment < self._poll_at:
            return False
        self._poll_at = moment + SQLITE_POLL_SECONDS
        return True

    def _sweep(self) -> None:
        try:
            if guard.may_go_on():
                sweep()
        finally:
            connection.close()
