"""Snapshots: whole copies of the store, each with a signed manifest.

A snapshot is a folder `<time>-<events>` of POLAR_SNAPSHOT_DIR with `store`, the copy,
and `manifest.json`, which says what it holds. It appears under its name only when it
is whole and on the disk; half a snapshot is removed. SQLite is copied by its backup
API while everything runs, PostgreSQL by pg_dump.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.common import canonical, clock
from apps.common.errors import NotFound
from apps.reliability import ports
from apps.reliability.errors import SnapshotBroken, SnapshotFailed
from apps.runs import queries as runs

COPY, MANIFEST, VERIFIED = "store", "manifest.json", "verified.json"
KEEP = 28
#: The disk keeps so much free beyond a copy. Units: bytes.
HEADROOM_BYTES = 64 * 1024 * 1024
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a manifest says of its copy, and when it was last proved."""

    name: str
    vendor: str
    taken_at: datetime
    events: int
    root: str
    epoch: str
    schema: str
    bytes: int
    sha256: str
    verified_at: datetime | None = None


def folder() -> Path:
    """Raises: SnapshotFailed where no folder is set."""
    where = settings.POLAR_SNAPSHOT_DIR
    if str(where) in ("", "."):
        raise SnapshotFailed("POLAR_SNAPSHOT_DIR is not set.")
    return Path(where)


def vendor() -> str:
    """Which database the store is of."""
    return connection.vendor


def create() -> Snapshot:
    """Take a snapshot. Raises: SnapshotFailed, and then nothing is left behind."""
    where = folder()
    with _told(), _draft(where) as draft:
        copy = draft / COPY
        # The head is read first: the copy holds at least so much.
        head, schema = audit_queries.head(), runs.schema_version()
        _copy_store(copy)
        if connection.vendor == "sqlite":
            head = _head_of(copy)
        taken = clock.now()
        name = f"{taken:%Y%m%dT%H%M%S%f}-{head.size}"
        made = Snapshot(
            name=name,
            vendor=connection.vendor,
            taken_at=taken,
            events=head.size,
            root=head.root,
            epoch=head.epoch,
            schema=schema,
            bytes=copy.stat().st_size,
            sha256=_digest(copy),
        )
        _write(draft / MANIFEST, _signed(made))
        _sync(copy)
        os.rename(draft, where / name)
        _sync(where)
    return made


def every() -> list[Snapshot]:
    """List the snapshots, newest first; what cannot be read is left out."""
    return list(_each())


def newest() -> Snapshot | None:
    """Return the newest that can be read; no other is opened."""
    return next(_each(), None)


def _each() -> Iterator[Snapshot]:
    where = Path(settings.POLAR_SNAPSHOT_DIR)
    if str(where) in ("", ".") or not where.is_dir():
        return
    for path in sorted(where.iterdir(), reverse=True):
        if (path / MANIFEST).is_file() and not path.name.startswith("."):
            with contextlib.suppress(SnapshotBroken):
                yield read(path.name)


def read(name: str) -> Snapshot:
    """Read a manifest. Raises: NotFound, SnapshotBroken."""
    if not name or Path(name).name != name or name.startswith("."):
        raise NotFound(f"No snapshot {name!r}.")
    path = folder() / name
    try:
        said: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        signature = bytes.fromhex(said.pop("signature"))
        text = canonical.dumps(said)
        snapshot = Snapshot(
            **{**said, "taken_at": datetime.fromisoformat(said["taken_at"])}
        )
    except FileNotFoundError as error:
        raise NotFound(f"No snapshot {name!r}.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnapshotBroken(f"{name}: its manifest cannot be read: {error}") from error
    if not audit.is_signed(text.encode(), signature) or snapshot.name != name:
        raise SnapshotBroken(f"{name}: its manifest bears no signature of this install")
    return Snapshot(**{**asdict(snapshot), "verified_at": _verified_at(path)})


def verify(name: str) -> Snapshot:
    """Open a copy of the snapshot and recompute its log.

    Raises: NotFound, SnapshotBroken; SnapshotFailed when it cannot be tried.
    """
    snapshot = read(name)
    path = folder() / name
    if snapshot.vendor != connection.vendor:
        raise SnapshotBroken(f"{name} is of {snapshot.vendor}, not {connection.vendor}")
    if _digest(path / COPY) != snapshot.sha256:
        raise SnapshotBroken(f"{name}: the copy is not the one its manifest names")
    with _told(), _draft(folder()) as draft:
        trial = draft / COPY
        _check_room(draft, snapshot.bytes)
        shutil.copyfile(path / COPY, trial)
        verdict = ports.tools().verify(connection.settings_dict, trial)
    if not verdict.get("ok"):
        raise SnapshotBroken(f"{name}: {verdict.get('problem')}")
    held = (verdict.get("size"), verdict.get("root"))
    if connection.vendor == "sqlite" and held != (snapshot.events, snapshot.root):
        raise SnapshotBroken(f"{name}: it holds {held[0]} events, not those it names")
    with _told():
        _write(path / VERIFIED, {"at": clock.now().isoformat(), "size": held[0]})
    return read(name)


def prune(keep: int = KEEP) -> list[str]:
    """Remove all but the newest, and what a crash left half done. Returns names."""
    gone = []
    for snapshot in every()[max(1, keep) :]:
        shutil.rmtree(folder() / snapshot.name)
        gone.append(snapshot.name)
    return gone


def copy_of(source: str) -> Path:
    """Find what is to be restored: a snapshot, proved now, or a store's file.

    Raises: NotFound, SnapshotBroken, SnapshotFailed.
    """
    path = Path(source)
    if path.is_file() and connection.vendor == "sqlite":
        with _told(), _draft(path.resolve().parent) as draft:
            trial = draft / COPY
            _check_room(draft, path.stat().st_size)
            _backup(path, trial)
            verdict = ports.tools().verify(connection.settings_dict, trial)
        if not verdict.get("ok"):
            raise SnapshotBroken(f"{source}: {verdict.get('problem')}")
        return path
    return folder() / verify(source).name / COPY


def check_is_new(target: Path) -> None:
    """Raises: SnapshotFailed where there is a file already."""
    if target.exists():
        raise SnapshotFailed(f"{target} exists; name a new file.")


def put_beside(copy: Path, target: Path) -> None:
    """Write the copy to a new file. Raises: SnapshotFailed where there is one."""
    check_is_new(target)
    with _told():
        _check_room(target.resolve().parent, copy.stat().st_size)
        _copy_file(copy, target)


def put_into_place(copy: Path) -> Path | None:
    """Let the copy be the store. What was there is kept beside it, on SQLite.

    Returns where.   Raises: SnapshotFailed; then the store is as it was.
    """
    if connection.vendor != "sqlite":
        connection.close()
        ports.tools().load(connection.settings_dict, copy)
        return None
    store = Path(str(connection.settings_dict["NAME"]))
    connection.close()
    draft = store.with_name(f".{store.name}.restoring")
    kept = store.with_name(f"{store.name}.before-{clock.now():%Y%m%dT%H%M%S%f}")
    with _told():
        draft.unlink(missing_ok=True)
        _check_room(store.parent, copy.stat().st_size)
        _copy_file(copy, draft)
        for end in ("", "-wal", "-shm"):
            old = store.with_name(store.name + end)
            if old.exists():
                os.link(old, kept.with_name(kept.name + end))
        for end in ("-wal", "-shm"):
            store.with_name(store.name + end).unlink(missing_ok=True)
        os.replace(draft, store)
        _sync(store.parent)
    return kept


def bring_up_to_date() -> None:
    """Apply the migrations that came after the copy was taken. Again: nothing."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0)


def _copy_store(into: Path) -> None:
    if connection.vendor != "sqlite":
        ports.tools().dump(connection.settings_dict, into)
        return
    name = str(connection.settings_dict["NAME"])
    if not Path(name).is_file():
        raise SnapshotFailed("The store is in memory; there is no file to copy.")
    _check_room(into.parent, Path(name).stat().st_size)
    _backup(Path(name), into)
    with closing(sqlite3.connect(into)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        found = db.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise SnapshotBroken(f"The store itself is damaged: {found}")


def _backup(source: Path, into: Path) -> None:
    """SQLite's own copy of a database that is in use, with its WAL."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=20)) as old,
        closing(sqlite3.connect(into)) as new,
    ):
        old.backup(new)


def _copy_file(copy: Path, target: Path) -> None:
    """A file of a running or stopped SQLite is copied with what its WAL holds."""
    if connection.vendor == "sqlite":
        _backup(copy, target)
    else:
        shutil.copyfile(copy, target)
    os.chmod(target, 0o600)
    _sync(target)


def _head_of(copy: Path) -> Any:
    head = audit_queries.head()
    with closing(sqlite3.connect(copy)) as db:
        row = db.execute("SELECT size, root, epoch FROM audit_head").fetchone()
    if row is not None:
        head.size, head.root, head.epoch = row
    return head


def _signed(snapshot: Snapshot) -> dict[str, Any]:
    said = asdict(snapshot) | {"taken_at": snapshot.taken_at.isoformat()}
    del said["verified_at"]
    signature = audit.sign(canonical.dumps(said).encode()).hex()
    return {**said, "signature": signature}


def _verified_at(path: Path) -> datetime | None:
    try:
        said = json.loads((path / VERIFIED).read_text())
        return datetime.fromisoformat(said["at"])
    except (OSError, ValueError, KeyError):
        return None


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError as error:
        raise SnapshotBroken(f"{path.parent.name}: {error}") from error
    return found.hexdigest()


def _check_room(where: Path, wanted: int) -> None:
    free = shutil.disk_usage(where).free
    if free < wanted + HEADROOM_BYTES:
        raise SnapshotFailed(
            f"{where} has {free} bytes free; this needs {wanted + HEADROOM_BYTES}."
        )


@contextmanager
def _draft(where: Path) -> Iterator[Path]:
    """A folder on the same disk that is gone afterwards, unless it was renamed."""
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = where / f".draft-{os.getpid()}-{clock.now():%H%M%S%f}"
    draft.mkdir(mode=0o700)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _told() -> Iterator[None]:
    """Say in words what the disk or SQLite refused."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise SnapshotFailed(f"Not done: {error}") from error


def _write(path: Path, said: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(said, sort_keys=True))
    _sync(draft)
    os.replace(draft, path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
