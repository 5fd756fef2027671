"""Reading the log: the head, events of a trace or run, checkpoints, sinks."""

import hashlib
from datetime import timedelta
from typing import Any

from django.db.models import Q

from apps.audit import ports
from apps.audit.models import Checkpoint, Event, EventQuerySet, Head, SinkCursor
from apps.common import clock

#: The root of the tree without leaves: SHA-256 of nothing.
EMPTY_ROOT = hashlib.sha256(b"").hexdigest()
#: The store's epoch, as a part of somebody's statement; NULL before the first event.
EPOCH = "(SELECT epoch FROM audit_head WHERE id = 1)"


def head() -> Head:
    """Return the chain head; an empty one before the first event."""
    return Head.objects.filter(id=1).first() or Head(size=0, root=EMPTY_ROOT)


def events() -> EventQuerySet:
    return Event.objects.order_by("-id")


def events_of_trace(trace_id: str) -> EventQuerySet:
    return Event.objects.all().of_trace(trace_id)


def events_of_run(run_id: Any) -> EventQuerySet:
    return Event.objects.all().of_run(run_id)


def events_about(kind: str, subject_id: str) -> EventQuerySet:
    return Event.objects.all().about(kind, subject_id)


def count_unsealed() -> int:
    return Event.objects.all().unsealed().count()


def is_sealed(event_id: Any) -> bool:
    return Event.objects.all().sealed().filter(id=event_id).exists()


def latest_checkpoint() -> Checkpoint | None:
    return Checkpoint.objects.order_by("-size", "-id").first()


def newest_checkpoints(limit: int) -> list[Checkpoint]:
    """Return the last signed sizes, oldest of them first."""
    return list(Checkpoint.objects.order_by("-size", "-id")[:limit])[::-1]


def sink_cursors() -> list[SinkCursor]:
    return list(SinkCursor.objects.order_by("name"))


def sink_lag() -> tuple[timedelta, str]:
    """Return for how long the oldest event waits for a sink, and the sink's words.

    Asks no sink: what each acknowledged last is on record.
    """
    held = acknowledged()
    if held is None:
        return timedelta(), ""
    waiting = Event.objects.filter(Q(gseq__isnull=True) | Q(gseq__gt=held))
    oldest = waiting.order_by("id").values_list("occurred_at", flat=True).first()
    problems = [cursor.problem for cursor in sink_cursors() if cursor.problem]
    words = problems[0] if problems else ""
    return (clock.now() - oldest if oldest else timedelta()), words


def acknowledged() -> int | None:
    """Return the last event that every sink has, -1 for none; None without a sink."""
    used = [name for name, sink in ports.sinks().items() if sink.is_on()]
    if not used:
        return None
    known = {row.name: row.last_seq for row in sink_cursors()}
    return min(known.get(name, -1) for name in used)


def sent_to(name: str) -> int:
    """Return the last event that a sink took, as this install remembers it."""
    row = SinkCursor.objects.filter(name=name).first()
    return row.last_seq if row else -1
