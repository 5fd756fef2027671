"""The clone that a drill is rehearsed in: definitions, no history, no secret.

Invariants: the real store is read through SQLite's own backup and never written;
a clone holds no secret, no token, no password, no conversation and no event of the
install; its keys, witness, sink and log are its own and begin with it.
"""

import base64
import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from django.db import connection

from apps.reliability.ports import DISK, Scenery

STORE = "store.db"
WITNESS = "witness"
EXPORT = "export"
JOURNAL = "journal.json"
PROGRESS = "progress.jsonl"
FACTS = "facts.json"

#: Definitions. Every other table of the copy is emptied.
KEPT = frozenset(
    {
        "django_migrations",
        "django_content_type",
        "auth_permission",
        "auth_group",
        "access_workspace",
        "access_user",
        "access_membership",
        "access_principal",
        "gateway_grant",
        "gateway_setting",
        "agents_agentprofile",
        "agents_profileversion",
        "boards_board",
        "extensions_extension",
        "extensions_capability",
        "extensions_version",
        "extensions_review",
    }
)


#: How many doubles a drill may play.
MOST_DOUBLES = 4


def make(folder: Path, places: list[str], scenery: Scenery) -> str:
    """Make the clone's folder with its store and its environment.

    Returns what the store was made from. On PostgreSQL, or without a file, the
    clone is a fresh install; the evidence says which.
    Shape: places are the host:port of its doubles; the first is its broker's or its
    log host's, where it has one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("", WITNESS, "snapshots", "extensions", "tmp", DISK):
        (folder / name).mkdir(parents=True, mode=0o700)
    said = environment(folder, places, scenery)
    (folder / "env").write_text("".join(f"{k}={v}\n" for k, v in said.items()))
    source = Path(str(connection.settings_dict["NAME"]))
    if connection.vendor != "sqlite" or not source.is_file():
        return "a fresh install (the store is not an SQLite file)"
    connection.close()
    target = folder / STORE
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=20)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
    empty(target)
    return "a copy of the store's definitions"


def environment(folder: Path, places: list[str], scenery: Scenery) -> dict[str, str]:
    """Nothing of the install's own environment; keys that die with the clone."""
    home = folder / DISK if scenery.disk_bytes else folder
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "POLAR_VAULT_KEY": _key(),
        "POLAR_AUDIT_KEY": _key(),
        "DATABASE_URL": f"sqlite:///{home / STORE}",
        "REDIS_URL": f"redis://{places[0]}/0" if scenery.has_broker else "",
        "POLAR_CLONE_REACHES": ",".join(places),
        "POLAR_HOSTS": "localhost,127.0.0.1",
        "POLAR_SINK_HTTP_URL": f"http://{places[0]}/" if scenery.has_log_host else "",
        "POLAR_SINK_LOCAL": places[0] if scenery.has_log_host else "",
        "POLAR_WITNESS_DIR": str(folder / WITNESS),
        "POLAR_SNAPSHOT_DIR": str(folder / "snapshots"),
        "POLAR_SINK_FILE": str(folder / "sink.jsonl"),
        "POLAR_EXTENSIONS_DIR": str(folder / "extensions"),
        "OLLAMA_HOST": "",
        "LOG_LEVEL": "ERROR",
    }


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def move_in(folder: Path) -> None:
    """Inside a clone with a disk of its own: bring the definitions there."""
    store = Path(str(connection.settings_dict["NAME"]))
    made = folder / STORE
    if store != made and made.is_file() and not store.exists():
        shutil.copyfile(made, store)


def empty(store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys=OFF")
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("BEGIN IMMEDIATE")
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            " AND name NOT LIKE 'sqlite_%'"
        ).fetchall():
            if name not in KEPT:
                db.execute(f'DELETE FROM "{name}"')  # noqa: S608 (its own catalogue)
        db.execute("UPDATE access_user SET password = '!', email = ''")
        db.execute("UPDATE agents_agentprofile SET pinned_model_id = NULL")
        while broken := db.execute("PRAGMA foreign_key_check").fetchall():
            for table, rowid, *_ in broken:
                db.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (rowid,))  # noqa: S608
        db.execute("COMMIT")
        db.execute("VACUUM")
