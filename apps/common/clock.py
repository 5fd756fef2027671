"""The one place that reads the time.

A wall clock may jump; leases must not. The time given out never runs
backwards within a process: it is the larger of the wall clock and the time at
boot plus the monotonic clock. On PostgreSQL the wall clock is the database's,
measured every few seconds and carried on by the monotonic clock in between, so that
all hosts agree on leases and a jump of this host's wall clock moves none.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from django.db import connection

#: Seconds between two measurements of the database's clock.
MEASURE_EVERY_SECONDS = 5.0
#: The wall clock went so far apart from the monotonic one: it jumped, or this host
#: slept, which the monotonic clock does not count. Units: seconds.
JUMP_SECONDS = 1.0

_lock = threading.Lock()
_boot_wall = time.time()
_boot_monotonic = time.monotonic()
#: The database's time when the monotonic clock was zero; None before it was measured.
_database_zero: float | None = None
_measured_at = (0.0, 0.0)  # wall, monotonic
_frozen: datetime | None = None


def now() -> datetime:
    """Tell the time in UTC, never earlier than it was told before boot drift."""
    if _frozen is not None:
        return _frozen
    zero = _measured_zero()
    if zero is not None:
        return datetime.fromtimestamp(zero + time.monotonic(), UTC)
    steady = _boot_wall + (time.monotonic() - _boot_monotonic)
    return datetime.fromtimestamp(max(time.time(), steady), UTC)


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
    zero = _measured_zero()
    return 0.0 if zero is None else zero + time.monotonic() - time.time()


def _measured_zero() -> float | None:
    global _database_zero, _measured_at
    if connection.vendor != "postgresql":
        return None
    if _is_due() and _connection_is_open() and _lock.acquire(blocking=False):
        try:
            _database_zero = _measure()
            _measured_at = time.time(), time.monotonic()
        finally:
            _lock.release()
    return _database_zero


def _is_due() -> bool:
    if _database_zero is None:
        return True
    wall, steady = time.time() - _measured_at[0], time.monotonic() - _measured_at[1]
    return steady > MEASURE_EVERY_SECONDS or abs(wall - steady) > JUMP_SECONDS


def _connection_is_open() -> bool:
    """A broken transaction, or no connection yet, keeps the last measurement."""
    return connection.connection is not None and not connection.needs_rollback


def _measure() -> float:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())")
        return float(cursor.fetchone()[0]) - time.monotonic()
