"""A JSONL file that outlives the database: appended under a lock, then fsynced.

A crash may leave a torn last line. It is never cut off (the file may carry the
append-only attribute): a newline closes it and readers pass over it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.audit.errors import WitnessBusy
from apps.common import clock

_TAIL_BYTES = 4096
#: Nobody holds the lock for long; who stands still with it does not stop the others.
PATIENCE_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock against other processes and threads.

    Raises: WitnessBusy when somebody else keeps it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> None:
    until, pause = clock.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if clock.monotonic() > until:
                raise WitnessBusy from None
        clock.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def append(path: Path, lines: Sequence[str]) -> None:
    """Add whole lines and wait until they are on the disk. Needs the lock."""
    if not lines:
        return
    fresh = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        start = "\n" if _is_torn(handle) else ""
        _write_all(handle, (start + "\n".join(lines) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    if fresh:
        sync_folder(path.parent)


def last(path: Path) -> dict[str, Any] | None:
    """Return the last whole record, or None."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        want = _TAIL_BYTES
        while True:
            start = max(0, end - want)
            file.seek(start)
            lines = file.read(end - start).split(b"\n")
            whole = lines if start == 0 else lines[1:]
            for line in reversed(whole):
                record = parse(line)
                if record is not None:
                    return record
            if start == 0:
                return None
            want *= 4


def parse(line: bytes) -> dict[str, Any] | None:
    """Read one line; None for a torn one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def sync_folder(folder: Path) -> None:
    """Make a new file's name durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_torn(handle: int) -> bool:
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
