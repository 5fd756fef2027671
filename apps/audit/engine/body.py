"""The exact text of an event, and the cheap check that its columns repeat it.

The body is RFC 8785 canonical JSON with the keys in `COLUMNS` and `data`; UUIDs
are 32 hex digits, the time is UTC with six decimals. The
database rebuilds the text around `data` from the columns, so that a million rows
are checked without being parsed.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import add, le
from typing import Any

from apps.audit.models import Event
from apps.common import canonical
from apps.common.errors import FieldProblem, Invalid

#: Canonical order of the body's keys; `data` stands after the first three.
COLUMNS = (
    "actor_id",
    "actor_kind",
    "actor_label",
    "decision",
    "epoch",
    "id",
    "occurred_at",
    "payload_digest",
    "reason",
    "run_id",
    "run_seq",
    "subject_id",
    "subject_kind",
    "trace_id",
    "type",
    "workspace_id",
)
#: What begins the part that no column repeats.
DATA = '"data":{'
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
#: Quicker than format(); SQLite has it since 3.44.
HAS_CONCAT = sqlite3.sqlite_version_info >= (3, 44)
#: The quotes of an event's edges when nothing is null.
_EDGE_QUOTES = 14 + 50


def write(columns: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Write an event's body.

    Raises: Invalid for floats and for what JSON cannot carry.
    """
    check_no_floats(data, "data")
    return canonical.dumps({**columns, "data": dict(data)})


def check_no_floats(value: Any, path: str) -> None:
    """Refuse floats: two systems may write one number in two ways."""
    if isinstance(value, float):
        problem = FieldProblem(path, "is a float", "an integer or text")
        raise Invalid("An event carries no floats", fields=(problem,))
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_no_floats(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            check_no_floats(item, f"{path}[{place}]")


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime(TIME_FORMAT)


def commit_payload(text: str) -> tuple[str, str]:
    """Shape: (salt, SHA-256 of salt and text, both hex)."""
    salt = secrets.token_hex(16)
    return salt, payload_digest(salt, text)


def payload_digest(salt: str, text: str) -> str:
    return hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest()


def columns_of(event: Event) -> dict[str, Any]:
    """Shape: what the body says besides `data`, taken from the columns."""
    return {
        "actor_id": event.actor_id,
        "actor_kind": event.actor_kind,
        "actor_label": event.actor_label,
        "decision": event.decision,
        "epoch": event.epoch,
        "id": event.id.hex,
        "occurred_at": time_text(event.occurred_at),
        "payload_digest": event.payload_digest,
        "reason": event.reason,
        "run_id": event.run_id and event.run_id.hex,
        "run_seq": event.run_seq,
        "subject_id": event.subject_id,
        "subject_kind": event.subject_kind,
        "trace_id": event.trace_id,
        "type": event.type,
        "workspace_id": event.workspace_id and event.workspace_id.hex,
    }


def edges_sql(vendor: str) -> str:
    """Write SQL for what stands before and after `data`, and the count of nulls."""
    head, tail = f"{{{_members(COLUMNS[:3])},", f"}},{_members(COLUMNS[3:])}}}"
    return (
        f"{_filled(vendor, head + DATA, COLUMNS[:3])},"
        f" {_filled(vendor, tail, COLUMNS[3:])},"
        " CASE WHEN run_id IS NULL THEN 2 ELSE 0 END"
        " + CASE WHEN workspace_id IS NULL THEN 2 ELSE 0 END"
    )


def line_sql(vendor: str) -> str:
    """Write SQL for an event's journal line."""
    line = '{"epoch":"%s","gseq":%s,"hash":"%s","run_id":%s,"run_seq":%s}'
    return _filled(vendor, line, ("epoch", "gseq", "digest", "run_id", "run_seq"))


def all_stand_between(
    texts: Sequence[str], heads: Sequence[str], tails: Sequence[str], nulls: int
) -> bool:
    """Tell cheaply that the columns behind the edges say what the bodies say.

    True is exact: the edges hold no backslash and only the quotes that keys and
    values need (no edge can have fewer, so their sum tells that none has more).
    False only means: look again with `repeats`.
    """
    edges = "".join([*heads, *tails])
    lengths = map(add, map(len, heads), map(len, tails))
    return (
        all(map(str.startswith, texts, heads))
        and all(map(str.endswith, texts, tails))
        and all(map(le, lengths, map(len, texts)))
        and edges.count('"') == _EDGE_QUOTES * len(texts) - nulls
        and "\\" not in edges
    )


def repeats(event: Event) -> bool:
    """Tell whether every column says what the body says, by reading both."""
    try:
        said = json.loads(event.body)
    except ValueError:
        return False
    if not isinstance(said, dict) or not isinstance(said.pop("data", None), dict):
        return False
    columns = columns_of(event)
    return said == columns and all(
        type(said[name]) is type(value) for name, value in columns.items()
    )


def _members(names: tuple[str, ...]) -> str:
    """Shape: members of a JSON object, each value a %s."""
    bare = ("run_id", "run_seq", "workspace_id")
    return ",".join(
        f'"{name}":%s' if name in bare else f'"{name}":"%s"' for name in names
    )


def _filled(vendor: str, template: str, names: tuple[str, ...]) -> str:
    """Write SQL that puts columns in the place of each %s."""
    values = [_value(vendor, name) for name in names]
    if vendor == "sqlite" and not HAS_CONCAT:
        return f"format('{template}', {', '.join(values)})"
    pieces = [f"'{piece}'" for piece in template.split("%s")]
    filled = [each for pair in zip(pieces, values, strict=False) for each in pair]
    return f"concat({', '.join([*filled, pieces[-1]])})"


def _value(vendor: str, name: str) -> str:
    return _SPECIAL[vendor].get(name, name)


_UUID = "replace({}::text, '-', '')"
_NULLABLE = "coalesce('\"' || {} || '\"', 'null')"
_SPECIAL: dict[str, dict[str, str]] = {
    "sqlite": {
        "occurred_at": "replace(occurred_at, ' ', 'T') || 'Z'",
        "run_id": _NULLABLE.format("run_id"),
        "run_seq": "coalesce(run_seq, 'null')",
        "workspace_id": _NULLABLE.format("workspace_id"),
    },
    "postgresql": {
        "id": _UUID.format("id"),
        "occurred_at": (
            "to_char(occurred_at AT TIME ZONE 'UTC',"
            ' \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'
        ),
        "run_id": _NULLABLE.format(_UUID.format("run_id")),
        "run_seq": "coalesce(run_seq::text, 'null')",
        "workspace_id": _NULLABLE.format(_UUID.format("workspace_id")),
    },
}
