"""The store's alarm: a file beside the witness, where the store cannot undo it.

While `alarm.json` stands, nothing is claimed and no effect starts, in any process
that sees the witness; hosts that do not see it read the same from `Head.alarm`. The
first alarm stays until the store passes a whole verification again.
"""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from django.conf import settings

from apps.audit.engine import journal
from apps.common import clock, ids

#: What an alarm is about.
ROLLED_BACK, RESTORING = "rolled_back", "restoring"
_FILE = "alarm.json"
_lock = threading.Lock()
_read: tuple[tuple[int, int, int], "Alarm"] | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """What was found wrong with the store, when, and both sides of it."""

    id: str
    kind: str
    problem: str
    detected_at: str
    witness_size: int = 0
    witness_head: str = ""
    store_size: int = 0
    store_head: str = ""


def current() -> Alarm | None:
    """Return the standing alarm. Costs one `stat` while nothing changes."""
    where = _path()
    return None if where is None else _load(where)


def ring(where: Path, alarm: Alarm) -> Alarm:
    """Let the alarm stand. Again: the first one stays."""
    with journal.locked(where):
        standing = _load(where / _FILE)
        if standing is not None:
            return standing
        _write(where / _FILE, asdict(alarm))
    return alarm


def end(where: Path, *, how: str) -> Alarm | None:
    """Take the alarm down and keep it with how it ended."""
    with journal.locked(where):
        standing = _load(where / _FILE)
        if standing is None:
            return None
        ended = {**asdict(standing), "ended_at": clock.now().isoformat(), "how": how}
        _write(where / f"alarm-{standing.id}.json", ended)
        (where / _FILE).unlink()
        journal.sync_folder(where)
    return standing


def new(kind: str, problem: str, **sides: int | str) -> Alarm:
    at = clock.now().isoformat()
    return Alarm(ids.new_id().hex, kind, problem[:500], at, **sides)  # type: ignore[arg-type]


def _path() -> Path | None:
    where = settings.POLAR_WITNESS_DIR
    return None if str(where) in ("", ".") else Path(where) / _FILE


def _load(path: Path) -> Alarm | None:
    global _read
    try:
        status = os.stat(path)
    except OSError:
        return None
    mark = (status.st_ino, status.st_mtime_ns, status.st_size)
    with _lock:
        if _read is not None and _read[0] == mark:
            return _read[1]
    try:
        alarm = Alarm(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        # Somebody meddled with it: it stands, whatever it says.
        return Alarm("unreadable", ROLLED_BACK, f"{path} cannot be read: {error}", "")
    with _lock:
        _read = (mark, alarm)
    return alarm


def _write(path: Path, said: dict[str, object]) -> None:
    """Write all of it or nothing, and wait until it is on the disk."""
    draft = path.with_suffix(".tmp")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, json.dumps(said, sort_keys=True).encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(draft, path)
    journal.sync_folder(path.parent)
