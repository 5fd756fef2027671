"""Shapes of the log in the API."""

from datetime import datetime
from uuid import UUID

from apps.common.schemas import Out


class EventOut(Out):
    id: UUID
    gseq: int | None
    type: str
    actor_kind: str
    actor_id: str
    actor_label: str
    trace_id: str
    run_id: UUID | None
    run_seq: int | None
    subject_kind: str
    subject_id: str
    decision: str
    reason: str
    epoch: str
    occurred_at: datetime
    digest: str
    body: str


class EventPage(Out):
    items: list[EventOut]
    next_cursor: str


class VerdictOut(Out):
    is_ok: bool
    size: int
    problem: str
