"""Who may write next: among the threads of a process, and among processes.

Hides: SQLite's own waiting is not in order. A writer that is refused sleeps, longer
each time; a busy process takes the file again in between, so a worker at full load
lets a web process wait for seconds. Here a thread queues in its process, and the
process then takes two seats beside the file: NEXT, of which there is one, and WRITES.
Who sits on NEXT gets WRITES as soon as it is free, so nobody goes twice past another.
Invariants: the order is a courtesy and SQLite's lock the truth: where a seat cannot
be had (no such file system, a stopped process) the writer goes on and asks SQLite.
The kernel takes a dead process from its seats.
Source: docs/decisions/0013-turns-at-the-sqlite-file.md
"""

import fcntl
import os
import threading
from collections import deque

#: The seats: bytes of the file `<database>-turn`, locked for a process.
NEXT, WRITES = 0, 1
#: Longer than any transaction of ours. Units: seconds.
PATIENCE = 5.0
#: How often who waits looks again. Units: seconds.
LOOK_OUTSIDE, LOOK_NEXT = 0.002, 0.0005


class Turnstile:
    """A lock that is given to whoever has waited longest."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def enter(self, seconds: float) -> bool:
        """Wait for one's turn; False when it did not come in time."""
        with self._mutex:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=seconds):
            return True
        with self._mutex:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True  # it came at the last moment

    def leave(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class Seats:
    """Turns among the processes that write one file. One thread of each asks."""

    def __init__(self, path: str) -> None:
        self._file = -1
        self._path = f"{path}-turn"
        self._nap = threading.Event()
        #: Whether it was had the last time.
        self._has_seat = True

    def enter(self, seconds: float) -> bool:
        """Wait for this process's turn; False when it goes on without.

        Who waited in vain looks only once until a seat is had again: a process that
        was stopped on its seat holds nobody up for longer.
        """
        self._has_seat = self._sit(seconds if self._has_seat else 0.0)
        return self._has_seat

    def leave(self) -> None:
        self._give(WRITES)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _sit(self, seconds: float) -> bool:
        if not self._take(NEXT, seconds, LOOK_OUTSIDE):
            return False
        try:
            return self._take(WRITES, seconds, LOOK_NEXT)
        finally:
            self._give(NEXT)

    def _take(self, seat: int, seconds: float, look: float) -> bool:
        for _ in range(1 + int(seconds / look)):
            try:
                fcntl.lockf(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, seat)
            except (BlockingIOError, PermissionError):
                if self._file < 0:
                    return False
                self._nap.wait(look)
            except OSError:
                return False
            else:
                return True
        return False

    def _give(self, seat: int) -> None:
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, seat)

    def _open(self) -> int:
        """Open the file once: closing it anywhere in the process ends its locks."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        return self._file


class Turns:
    """The queue at one database file."""

    def __init__(self, path: str) -> None:
        self._threads = Turnstile()
        self._processes = Seats(path)

    def enter(self, seconds: float) -> bool:
        """Wait for the turn of this thread, then for that of its process."""
        if not self._threads.enter(seconds):
            return False
        try:
            self._processes.enter(min(seconds, PATIENCE))
        except BaseException:
            self._threads.leave()
            raise
        return True

    def leave(self) -> None:
        self._processes.leave()
        self._threads.leave()

    def forget(self) -> None:
        """In a fresh fork: the seats were the parent's, and stay so."""
        self._processes.close()
