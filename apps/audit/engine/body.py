"""The exact text of an event, and the cheap check that its columns repeat it.

The body is RFC 8785 canonical JSON with the keys in `COLUMNS` and `data`; UUIDs
are 32 hex digits, the time is UTC with six decimals. `matches` rebuilds the
text around `data` from columns, so that a million rows are checked unparsed.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

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
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
#: The quotes around `data` when nothing is null: 17 keys, 15 texts.
_QUOTES = 64


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


def matches(body: str, columns: tuple[Any, ...]) -> bool:
    """Tell whether the columns, in the order of COLUMNS, say what the body says.

    The fast way compares the text around `data`. It is exact when that text holds
    no backslash and just the quotes that the keys and values need.
    """
    actor_id, actor_kind, actor_label, *rest = columns
    head = (
        f'{{"actor_id":"{actor_id}","actor_kind":"{actor_kind}",'
        f'"actor_label":"{actor_label}","data":{{'
    )
    tail, quotes = _tail(rest)
    if (
        body.startswith(head)
        and body.endswith(tail)
        and len(body) >= len(head) + len(tail)
        and head.count('"') + tail.count('"') == quotes
        and "\\" not in head
        and "\\" not in tail
    ):
        return True
    return _matches_slowly(body, columns)


def _tail(columns: list[Any]) -> tuple[str, int]:
    (
        decision,
        epoch,
        id_,
        occurred_at,
        payload,
        reason,
        run_id,
        run_seq,
        subject_id,
        subject_kind,
        trace_id,
        type_,
        workspace_id,
    ) = columns
    quotes = _QUOTES
    run = f'"{run_id}"'
    if run_id is None:
        run, quotes = "null", quotes - 2
    workspace = f'"{workspace_id}"'
    if workspace_id is None:
        workspace, quotes = "null", quotes - 2
    place = "null" if run_seq is None else run_seq
    return (
        f'}},"decision":"{decision}","epoch":"{epoch}","id":"{id_}",'
        f'"occurred_at":"{occurred_at}","payload_digest":"{payload}",'
        f'"reason":"{reason}","run_id":{run},"run_seq":{place},'
        f'"subject_id":"{subject_id}","subject_kind":"{subject_kind}",'
        f'"trace_id":"{trace_id}","type":"{type_}","workspace_id":{workspace}}}'
    ), quotes


def _matches_slowly(body: str, columns: tuple[Any, ...]) -> bool:
    try:
        said = json.loads(body)
    except ValueError:
        return False
    if not isinstance(said, dict) or set(said) != {*COLUMNS, "data"}:
        return False
    return all(
        said[name] == value and type(said[name]) is type(value)
        for name, value in zip(COLUMNS, columns, strict=True)
    )
