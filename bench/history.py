"""A store with a past: one real turn, copied until the tables are long.

Hides: how a copy gets ids, times and events of its own. The copies are exact but for
that; their events are written and sealed by the log's own code, so the tree is whole.
"""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction

from apps.audit import services as audit
from apps.audit.engine import recording
from apps.audit.models import Event
from apps.common import statements
from apps.common.actor import Actor

#: What a turn leaves behind, parents first, and how its rows are found.
LEFT_BEHIND = (
    ("runs.Run", "trace_id"),
    ("agents.Turn", "trace_id"),
    ("agents.Step", "turn__trace_id"),
    ("gateway.Call", "trace_id"),
    ("providers.Attempt", "trace_id"),
    ("providers.UsageRow", "trace_id"),
)
#: One copy is so much older than the next.
APART = timedelta(seconds=40)
BATCH = 200


@dataclass(frozen=True)
class Pattern:
    """One turn as text, with every id in it that a copy replaces."""

    tables: tuple[type[models.Model], ...]
    text: str
    ids: tuple[uuid.UUID, ...]
    trace_id: str
    events: tuple[recording.Draft, ...]


def of_turn(trace_id: str) -> Pattern:
    """Read what this turn left behind."""
    tables, rows, found = [], [], []
    for label, lookup in LEFT_BEHIND:
        table = apps.get_model(label)
        values = list(table._default_manager.filter(**{lookup: trace_id}).values())
        tables.append(table)
        rows.append(values)
        found += [value["id"] for value in values]
    return Pattern(
        tables=tuple(tables),
        text=json.dumps(rows, cls=DjangoJSONEncoder),
        ids=tuple(found),
        trace_id=trace_id,
        events=tuple(_drafts(trace_id)),
    )


def _drafts(trace_id: str) -> Iterator[recording.Draft]:
    for event in Event.objects.filter(trace_id=trace_id).order_by("id"):
        yield recording.Draft(
            type=event.type,
            actor=Actor(event.actor_kind, event.actor_id, event.actor_label),
            subject=(event.subject_kind, event.subject_id),
            workspace_id=event.workspace_id,
            run_id=event.run_id,
            trace_id=trace_id,
            decision=event.decision,
            reason=event.reason,
            data=json.loads(event.body).get("data", {}),
        )


def copy(pattern: Pattern, count: int) -> None:
    """Put `count` older copies of the turn into the store, and seal their events."""
    epoch = audit.epoch()
    for start in range(0, count, BATCH):
        with transaction.atomic():
            for at in range(start, min(start + BATCH, count)):
                _one(pattern, at + 1, epoch)
    audit.seal_all()


def _one(pattern: Pattern, at: int, epoch: str) -> None:
    back = APART * at
    renamed = {old: _older(old, back) for old in pattern.ids}
    trace_id = os.urandom(16).hex()
    text = pattern.text.replace(pattern.trace_id, trace_id)
    for old, new in renamed.items():
        text = text.replace(str(old), str(new)).replace(old.hex, new.hex)
    for table, rows in zip(pattern.tables, json.loads(text), strict=True):
        made = [_row(table, values, back) for values in rows]
        if made:
            statements.insert(*made)
    drafts = [_renamed(draft, renamed, trace_id) for draft in pattern.events]
    statements.insert(
        *(
            recording.write(draft, seq if draft.run_id else None, epoch, "")
            for seq, draft in enumerate(drafts, start=1)
        )
    )


def _renamed(
    draft: recording.Draft, renamed: dict[uuid.UUID, uuid.UUID], trace_id: str
) -> recording.Draft:
    kind, subject = draft.subject
    new = {str(old): str(value) for old, value in renamed.items()}
    return recording.Draft(
        type=draft.type,
        actor=draft.actor,
        subject=(kind, new.get(subject, subject)),
        workspace_id=draft.workspace_id,
        run_id=renamed.get(draft.run_id) if draft.run_id else None,
        trace_id=trace_id,
        decision=draft.decision,
        reason=draft.reason,
        data=draft.data,
    )


def _row(table: type[models.Model], values: dict[str, Any], back: timedelta) -> Any:
    given = {}
    for field in table._meta.concrete_fields:
        value = field.to_python(values[field.attname])
        if value is not None and isinstance(field, models.DateTimeField):
            value -= back
        elif value and field.name == "idempotency_key":
            value = os.urandom(32).hex()
        given[field.attname] = value
    return table(**given)


def _older(old: uuid.UUID, back: timedelta) -> uuid.UUID:
    """An id of that much earlier, so that copies sort where they belong."""
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    millis = int(back.total_seconds() * 1000)
    return uuid.UUID(int=((old.int >> 62 << 62) - (millis << 80)) | tail)
