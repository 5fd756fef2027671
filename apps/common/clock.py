"""The one place that reads the time.

A wall clock may jump; leases must not. The time given out never runs
backwards within a process: it is the larger of the wall clock and the time at
boot plus the monotonic clock. On PostgreSQL the wall clock is the database's,
measured as an offset every few seconds, so that all hosts agree on leases.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from django.db import connection

#: Seconds between two measurements of the database's clock.
MEASURE_EVERY_SECONDS = 5.0

_lock = threading.Lock()
_boot_wall = time.time()
_boot_monotonic = time.monotonic()
_offset_seconds = 0.0
_measured_at: float | None = None
_frozen: datetime | None = None


def now() -> datetime:
    """Tell the time in UTC, never earlier than it was told before boot drift."""
    if _frozen is not None:
        return _frozen
    steady = _boot_wall + (time.monotonic() - _boot_monotonic)
    wall = max(time.time(), steady)
    return datetime.fromtimestamp(wall + _database_offset(), UTC)


def monotonic() -> float:
    """Tell seconds on a clock that only moves forward. For durations."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Wait. Here so that nothing else needs the time module."""
    time.sleep(seconds)


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Hold the clock at one moment, for tests and for replaying a series."""
    global _frozen
    before, _frozen = _frozen, at.astimezone(UTC)
    try:
        yield
    finally:
        _frozen = before


def advance(seconds: float) -> None:
    """Move a frozen clock on.

    Raises: RuntimeError when the clock is not frozen.
    """
    global _frozen
    if _frozen is None:
        raise RuntimeError("only a frozen clock can be moved")
    _frozen += timedelta(seconds=seconds)


def offset_seconds() -> float:
    """Tell how far the database's clock is ahead of this machine's."""
    return _database_offset()


def _database_offset() -> float:
    global _offset_seconds, _measured_at
    if connection.vendor != "postgresql":
        return 0.0
    due = _measured_at is None or monotonic() - _measured_at > MEASURE_EVERY_SECONDS
    if due and _connection_is_open() and _lock.acquire(blocking=False):
        try:
            _offset_seconds = _measure()
            _measured_at = monotonic()
        finally:
            _lock.release()
    return _offset_seconds


def _connection_is_open() -> bool:
    """A broken transaction, or no connection yet, keeps the last measurement."""
    return connection.connection is not None and not connection.needs_rollback


def _measure() -> float:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        return float(cursor.fetchone()[0]) - time.time()
