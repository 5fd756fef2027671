"""Triggers that keep the log append-only against everything but their removal.

Installed after every migration, because SQLite drops a table's triggers whenever
it rebuilds the table. What they let through: inserting an event without a gseq,
giving it one once, inserting and deleting payloads, inserting checkpoints.
"""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper

PREFIX = "audit_keep_"
EVENT, PAYLOAD, CHECKPOINT = "audit_event", "audit_payload", "audit_checkpoint"
_FUNCTION = "audit_refuse"
_TAKEN = "EXISTS (SELECT 1 FROM audit_event AS other WHERE {})"


def install(connection: BaseDatabaseWrapper) -> None:
    """Put every trigger in place. Again: replaces them."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger AS $$"
                " BEGIN RAISE EXCEPTION 'the audit log is append-only'"
                " USING ERRCODE = 'restrict_violation'; END $$ LANGUAGE plpgsql"
            )
        for name, table, create in _wanted(connection.vendor):
            cursor.execute(_drop(connection.vendor, name, table))
            cursor.execute(create)


def remove(connection: BaseDatabaseWrapper) -> None:
    """Take every trigger away, as a restore or an attacker would."""
    with connection.cursor() as cursor:
        for name, table, _ in _wanted(connection.vendor):
            cursor.execute(_drop(connection.vendor, name, table))


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """List the triggers that should stand and do not."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT tgname FROM pg_trigger"
                " WHERE tgname LIKE 'audit_keep_%%' AND tgenabled IN ('O', 'A')",
                [],
            )
        else:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        present = {row[0] for row in cursor.fetchall()}
    names = [name for name, _, _ in _wanted(connection.vendor)]
    return [name for name in names if name not in present]


def _wanted(vendor: str) -> Iterator[tuple[str, str, str]]:
    """Shape: (name, table, statement)."""
    for name, table, event, when in _rules():
        yield name, table, _create(vendor, name, (table, event, when))
    if vendor == "postgresql":
        for table in (EVENT, PAYLOAD, CHECKPOINT):
            name = f"{PREFIX}{table}_truncate"
            yield (
                name,
                table,
                (
                    f"CREATE TRIGGER {name} BEFORE TRUNCATE ON {table}"
                    f" FOR EACH STATEMENT EXECUTE FUNCTION {_FUNCTION}()"
                ),
            )


def _rules() -> Iterator[tuple[str, str, str, str]]:
    """Shape: (name, table, event, condition under which it is refused)."""
    others = _event_columns(without="gseq")
    yield f"{PREFIX}event_columns", EVENT, f"UPDATE OF {others}", ""
    numbered = _TAKEN.format("other.gseq = NEW.gseq")
    yield (
        f"{PREFIX}event_gseq",
        EVENT,
        "UPDATE OF gseq",
        f"OLD.gseq IS NOT NULL OR NEW.gseq IS NULL OR {numbered}",
    )
    yield f"{PREFIX}event_delete", EVENT, "DELETE", ""
    known = _TAKEN.format("other.id = NEW.id")
    placed = _TAKEN.format("other.run_id = NEW.run_id AND other.run_seq = NEW.run_seq")
    yield (
        f"{PREFIX}event_insert",
        EVENT,
        "INSERT",
        f"NEW.gseq IS NOT NULL OR {known} OR {placed}",
    )
    yield f"{PREFIX}payload_update", PAYLOAD, "UPDATE", ""
    yield f"{PREFIX}checkpoint_update", CHECKPOINT, "UPDATE", ""
    yield f"{PREFIX}checkpoint_delete", CHECKPOINT, "DELETE", ""


def _create(vendor: str, name: str, rule: tuple[str, str, str]) -> str:
    table, event, when = rule
    start = f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW"
    if vendor == "postgresql":
        # REPLACE is SQLite's; here the unique constraints hold by themselves,
        # and a WHEN clause may not hold a subquery.
        plain = when.split(" OR EXISTS")[0]
        clause = f" WHEN ({plain})" if when else ""
        return f"{start}{clause} EXECUTE FUNCTION {_FUNCTION}()"
    clause = f" WHEN {when}" if when else ""
    refuse = "SELECT RAISE(ABORT, 'the audit log is append-only')"
    return f"{start}{clause} BEGIN {refuse}; END"


def _drop(vendor: str, name: str, table: str) -> str:
    suffix = f" ON {table}" if vendor == "postgresql" else ""
    return f"DROP TRIGGER IF EXISTS {name}{suffix}"


def _event_columns(*, without: str) -> str:
    fields: Any = apps.get_model("audit", "Event")._meta.concrete_fields
    return ", ".join(field.column for field in fields if field.column != without)
