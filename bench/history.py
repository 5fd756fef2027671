"""A store with a past: one real turn, copied until the tables are long.

Hides: how a copy gets ids, times and events of its own. The copies are exact but for
that; the log's own code seals their events, so the tree is whole.
"""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models, transaction

from apps.audit import services as audit
from apps.audit.engine import body, merkle, recording
from apps.audit.models import Event
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
BATCH = 500


class Shift:
    """What one copy changes: ids, its trace, and how far back it lies."""

    def __init__(self, pattern: "Pattern", back: timedelta) -> None:
        self.back = back
        self.ids = {old: _older(old, self.back) for old in pattern.ids}
        self.trace_id = os.urandom(16).hex()
        self.words = {pattern.trace_id: self.trace_id}
        for old, new in self.ids.items():
            self.words |= {str(old): str(new), old.hex: new.hex}

    def text(self, text: str, found: list[str]) -> str:
        for word in found:
            text = text.replace(word, self.words[word])
        return text


class Row:
    """One row of the pattern: what stays, and how each of the others is made."""

    def __init__(self, pattern: "Pattern", row: models.Model) -> None:
        fields: Any = row._meta.local_concrete_fields
        self.fixed: list[Any] = []
        self.ids: list[tuple[int, uuid.UUID]] = []
        self.times: list[tuple[int, datetime]] = []
        self.texts: list[tuple[int, str, list[str]]] = []
        self.keys: list[int] = []
        for place, field in enumerate(fields):
            value = getattr(row, field.attname)
            if isinstance(field, models.JSONField) and value is not None:
                value = json.dumps(value, cls=DjangoJSONEncoder)
                self.fixed.append(value)
            else:
                self.fixed.append(field.get_db_prep_save(value, connection))
            self._note(pattern, place, field.name, value)

    def _note(self, pattern: "Pattern", place: int, name: str, value: Any) -> None:
        if value and name == "idempotency_key":
            self.keys.append(place)
        elif isinstance(value, uuid.UUID) and value in pattern.ids:
            self.ids.append((place, value))
        elif isinstance(value, datetime):
            self.times.append((place, value))
        elif isinstance(value, str):
            found = [word for word in pattern.words if word in value]
            if found:
                self.texts.append((place, value, found))

    def shifted(self, shift: Shift) -> list[Any]:
        made, adapt = list(self.fixed), connection.ops.adapt_datetimefield_value
        native = connection.features.has_native_uuid_field
        for place, old in self.ids:
            made[place] = shift.ids[old] if native else shift.ids[old].hex
        for place, at in self.times:
            made[place] = adapt(at - shift.back)
        for place, text, found in self.texts:
            made[place] = shift.text(text, found)
        for place in self.keys:
            made[place] = os.urandom(32).hex()
        return made


class Said(Row):
    """An event of the pattern; its body tells its time, its digest its body."""

    def __init__(self, pattern: "Pattern", event: Event) -> None:
        super().__init__(pattern, event)
        names = [field.attname for field in Event._meta.local_concrete_fields]
        self.body, self.digest = names.index("body"), names.index("digest")
        self.at = event.occurred_at

    def shifted(self, shift: Shift) -> list[Any]:
        made = super().shifted(shift)
        then, now = (
            moment.strftime(body.TIME_FORMAT)
            for moment in (self.at, self.at - shift.back)
        )
        made[self.body] = made[self.body].replace(then, now)
        made[self.digest] = merkle.leaf_hash(made[self.body].encode()).hex()
        return made


@dataclass(frozen=True)
class Pattern:
    """One turn, with every id in it that a copy replaces."""

    trace_id: str
    ids: frozenset[uuid.UUID]
    rows: tuple[models.Model, ...]
    events: tuple[Event, ...]

    @property
    def words(self) -> list[str]:
        return [
            self.trace_id,
            *(word for each in self.ids for word in (str(each), each.hex)),
        ]


def of_turn(trace_id: str, events: int = 0) -> Pattern:
    """Read what this turn left behind.

    It says at least so many events; its own are said again for that.
    """
    rows: list[models.Model] = []
    for label, lookup in LEFT_BEHIND:
        rows += apps.get_model(label)._default_manager.filter(**{lookup: trace_id})
    drafts = list(_drafts(trace_id))
    drafts = (drafts * -(-max(events, 1) // len(drafts)))[: max(events, len(drafts))]
    epoch = audit.epoch()
    said = [
        recording.write(draft, seq if draft.run_id else None, epoch, "")
        for seq, draft in enumerate(drafts, start=1)
    ]
    named = frozenset(row.pk for row in (*rows, *said))
    return Pattern(trace_id, named, tuple(rows), tuple(said))


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


def copy(pattern: Pattern, count: int, apart: timedelta = APART) -> None:
    """Put `count` older copies of the turn into the store, oldest first, and seal."""
    plan: dict[type[models.Model], list[Row]] = {}
    for row in pattern.rows:
        plan.setdefault(type(row), []).append(Row(pattern, row))
    plan[Event] = [Said(pattern, event) for event in pattern.events]
    for start in range(count, 0, -BATCH):
        places = range(start, max(start - BATCH, 0), -1)
        shifts = [Shift(pattern, apart * at) for at in places]
        with transaction.atomic():
            for table, rows in plan.items():
                made = (row.shifted(shift) for shift in shifts for row in rows)
                _insert(table, list(made))
    audit.seal_all()


def _insert(table: type[models.Model], rows: list[list[Any]]) -> None:
    fields: Any = table._meta.local_concrete_fields
    quote = connection.ops.quote_name
    columns = ", ".join(quote(field.column) for field in fields)
    name = quote(table._meta.db_table)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {name} ({columns}) FROM STDIN") as copied:
                for row in rows:
                    copied.write_row(row)
        else:
            marks = ", ".join(["%s"] * len(fields))
            text = f"INSERT INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608
            cursor.executemany(text, rows)


def _older(old: uuid.UUID, back: timedelta) -> uuid.UUID:
    """An id of that much earlier, so that copies sort where they belong."""
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    millis = int(back.total_seconds() * 1000)
    return uuid.UUID(int=((old.int >> 62 << 62) - (millis << 80)) | tail)
