"""Shapes of runs in the API."""

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.common.schemas import In, Out


class RunOut(Out):
    id: UUID
    kind: str
    state: str
    reason: str
    trigger: str
    origin: str
    trace_id: str
    root_id: UUID
    parent_id: UUID | None
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str
    error_detail: str
    waiting_on: str
    result: dict[str, Any]


class RunPage(Out):
    items: list[RunOut]
    next_cursor: str


class ReasonIn(In):
    reason: str = ""


class ScheduleOut(Out):
    id: UUID
    slug: str
    title: str
    kind: str
    expression: str
    timezone: str
    state: str
    next_at: datetime | None
    run_kind: str


class DeadLetterIn(In):
    action: str
    reason: str
