"""Reading the log: the head, events of a trace or run, checkpoints, sinks."""

import hashlib
from typing import Any

from apps.audit.models import Checkpoint, Event, EventQuerySet, Head, SinkCursor

#: The root of the tree without leaves: SHA-256 of nothing.
EMPTY_ROOT = hashlib.sha256(b"").hexdigest()


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


def sink_cursors() -> list[SinkCursor]:
    return list(SinkCursor.objects.order_by("name"))
