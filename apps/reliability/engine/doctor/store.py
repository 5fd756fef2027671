"""Checks of the database: its version, its settings, its file, its guards."""

import sqlite3
import stat
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from apps.audit import services as audit
from apps.audit.errors import StoreInDoubt
from apps.common import clock
from apps.reliability.engine.doctor.check import (
    Found,
    check,
    fail,
    ok,
    unused,
    warn,
)
from apps.reliability.queries import FIXED_SQLITE

#: Where a lock of the file system is not one that SQLite may trust.
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs"})
OLDEST_POSTGRES = 140_000
NOT_SQLITE = unused("the store is a PostgreSQL server")
NOT_POSTGRES = unused("the store is an SQLite file")


def is_sqlite() -> bool:
    return connection.vendor == "sqlite"


def ask(statement: str) -> Any:
    """Return the one value that a statement answers with."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    return row[0] if row else None


def file_of_store() -> Path | None:
    """Return the SQLite file; None where there is none."""
    path = Path(str(connection.settings_dict["NAME"]))
    return path if is_sqlite() and path.is_file() else None


@check(
    "store-answers",
    "The database answers",
    mend="Start it, or correct DATABASE_URL in .env.",
)
def answers() -> Found:
    try:
        ask("SELECT 1")
    except DatabaseError as error:
        return fail(str(error))
    return ok(connection.vendor)


@check(
    "store-migrations",
    "The tables are those of this version",
    mend="Run: ./polar migrate",
)
def migrations() -> Found:
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not waiting:
        return ok("all applied")
    named = ", ".join(f"{m.app_label}.{m.name}" for m, _ in waiting[:3])
    return fail(f"{len(waiting)} wait: {named}")


@check(
    "store-guards",
    "The log can only be added to",
    mend="Run: ./polar migrate (it reinstalls the triggers), then ./polar audit verify",
)
def guards() -> Found:
    missing = audit.triggers_missing()
    return fail(f"missing: {', '.join(missing)}") if missing else ok("all stand")


@check(
    "store-trusted",
    "Nothing that the witness knows contradicts the store",
    mend="Open the page Store, or follow docs/runbooks/a-swapped-store.md",
)
def trusted() -> Found:
    standing = audit.standing_alarm()
    if standing is not None:
        return fail(standing.problem)
    try:
        audit.check_here()
    except StoreInDoubt as error:
        return fail(error.detail)
    return ok("no alarm stands")


@check(
    "store-sqlite-library",
    "The SQLite library has no bug that loses what is committed",
    mend="Install a wheel of pysqlite3 of 3.51.3 or newer: docs/decisions/0003",
)
def sqlite_library() -> Found:
    if not is_sqlite():
        return NOT_SQLITE
    fixed = sqlite3.sqlite_version_info >= (3, 51, 3) or (
        sqlite3.sqlite_version_info[:3] in FIXED_SQLITE
    )
    return (ok if fixed else fail)(sqlite3.sqlite_version)


#: What each pragma must say.
PRAGMAS: dict[str, tuple[Any, ...]] = {
    "journal_mode": ("wal", "memory"),
    "synchronous": (2, 3),
    "foreign_keys": (1,),
    "mmap_size": (0, None),
}


@check(
    "store-sqlite-settings",
    "A commit is on the disk, and keys hold",
    mend="Set nothing by hand; restart Polar, which sets WAL, FULL and foreign keys.",
)
def sqlite_settings() -> Found:
    if not is_sqlite():
        return NOT_SQLITE
    wrong = []
    for name, allowed in PRAGMAS.items():
        said = ask(f"PRAGMA {name}")
        if said not in allowed:
            wrong.append(f"{name} = {said}")
    return fail(", ".join(wrong)) if wrong else ok(", ".join(PRAGMAS))


def file_system_of(path: Path, mounts: str) -> str:
    """Return the type of the file system that holds a path.

    Source: proc(5), /proc/self/mounts
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        place = point.replace("\\040", " ").rstrip("/")
        inside = str(path) == place or str(path).startswith(place + "/")
        if inside and len(place) >= len(best):
            best, kind = place, found
    return kind


@check(
    "store-sqlite-disk",
    "The file lies on a disk of this machine",
    mend="Move the file to a local disk, or use PostgreSQL: SQLite's locks do not"
    " hold over a network.",
)
def sqlite_disk() -> Found:
    path = file_of_store()
    if path is None:
        return NOT_SQLITE if not is_sqlite() else unused("the store is in memory")
    kind = file_system_of(path.resolve(), Path("/proc/self/mounts").read_text())
    return fail(kind) if kind in REMOTE else ok(kind or "unnamed")


@check(
    "store-sqlite-private",
    "Nobody else on this machine reads the store",
    mend="Run: chmod 600 on the database file.",
)
def sqlite_private() -> Found:
    path = file_of_store()
    if path is None:
        return NOT_SQLITE if not is_sqlite() else unused("the store is in memory")
    mode = stat.S_IMODE(path.stat().st_mode)
    others = mode & stat.S_IRWXO
    return warn(f"{path.name} has mode {mode:o}") if others else ok(f"{mode:o}")


@check(
    "store-sqlite-whole",
    "The file's pages and indexes are whole",
    mend="Restore a snapshot: ./polar restore --help",
    slow=True,
)
def sqlite_whole() -> Found:
    if not is_sqlite():
        return NOT_SQLITE
    said = ask("PRAGMA quick_check(1)")
    return ok() if said == "ok" else fail(str(said))


@check(
    "store-postgres-version",
    "The PostgreSQL server is one that is still mended",
    mend="Upgrade the server to 14 or newer.",
)
def postgres_version() -> Found:
    if is_sqlite():
        return NOT_POSTGRES
    number = int(ask("SHOW server_version_num"))
    said = str(ask("SHOW server_version"))
    return ok(said) if number >= OLDEST_POSTGRES else fail(said)


@check(
    "store-postgres-durable",
    "A commit is on the server's disk",
    mend="Set fsync, full_page_writes and synchronous_commit to on.",
)
def postgres_durable() -> Found:
    if is_sqlite():
        return NOT_POSTGRES
    wrong = [
        f"{name} = {said}"
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if (said := ask(f"SHOW {name}")) == "off"
    ]
    return fail(", ".join(wrong)) if wrong else ok("fsync, full pages, commit")


@check(
    "store-postgres-checksums",
    "A page that the disk changed is noticed",
    mend="Stop the server and run: pg_checksums --enable",
)
def postgres_checksums() -> Found:
    if is_sqlite():
        return NOT_POSTGRES
    return ok("on") if ask("SHOW data_checksums") == "on" else warn("off")


@check(
    "store-postgres-timeouts",
    "No statement, lock or idle transaction lasts for ever",
    mend="Leave the options of the connection as settings.py sets them.",
)
def postgres_timeouts() -> Found:
    if is_sqlite():
        return NOT_POSTGRES
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    endless = [name for name in names if ask(f"SHOW {name}") in ("0", 0)]
    return warn(f"no {', '.join(endless)}") if endless else ok(", ".join(names))


@check(
    "store-postgres-clock",
    "This machine and the server agree on the time",
    mend="Set the clocks of both: `timedatectl set-ntp true`.",
)
def postgres_clock() -> Found:
    if is_sqlite():
        return NOT_POSTGRES
    apart = abs(clock.offset_seconds())
    said = f"{apart:.1f} s apart"
    return ok(said) if apart < 2 else warn(said)
