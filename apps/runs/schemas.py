"""Shapes of runs in the API."""

from datetime import datetime, time
from typing import Any
from uuid import UUID

from pydantic import Field

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
    state_reason: str
    next_at: datetime | None
    run_kind: str
    payload: dict[str, Any]
    catch_up: str
    overlap: str
    jitter_seconds: int
    quiet_from: time | None
    quiet_to: time | None
    daily_cap: int | None
    max_failures: int
    failures: int
    version: int


class AutomationIn(In):
    """A new automation: what is started, when, and how it treats its moments."""

    slug: str = Field(max_length=63)
    title: str = Field(max_length=160)
    kind: str
    expression: str = Field(max_length=400)
    timezone: str = Field("UTC", max_length=64)
    run_kind: str = Field("agents.automation", max_length=64)
    payload: dict[str, Any] = Field(default_factory=dict)
    catch_up: str = "one"
    overlap: str = "forbid"
    jitter_seconds: int = 0
    quiet_from: time | None = None
    quiet_to: time | None = None
    daily_cap: int | None = Field(None, ge=0, le=1000)
    max_failures: int = 5


class AutomationChange(In):
    """What is to change; fields left out stay. `expectedVersion` is what you saw."""

    expected_version: int
    title: str | None = Field(None, max_length=160)
    kind: str | None = None
    expression: str | None = Field(None, max_length=400)
    timezone: str | None = Field(None, max_length=64)
    payload: dict[str, Any] | None = None
    catch_up: str | None = None
    overlap: str | None = None
    jitter_seconds: int | None = None
    quiet_from: time | None = None
    quiet_to: time | None = None
    daily_cap: int | None = Field(None, ge=0, le=1000)
    max_failures: int | None = None


class StateIn(In):
    state: str
    reason: str = Field("", max_length=300)


class VerdictOut(Out):
    allowed: bool
    reason: str
    until: datetime | None


class TrialOut(Out):
    moments: list[datetime]
    in_words: str
    run_kind: str
    payload: dict[str, Any]
    acts_for: str
    held_back_by: str
    delivery: VerdictOut


class SlotOut(Out):
    slot_at: datetime
    state: str
    reason: str
    outcome: str
    run_id: UUID | None


class ProposalOut(Out):
    id: UUID
    slug: str
    agent: str
    body: dict[str, Any]
    state: str
    trace_id: str
    created_at: datetime
    decision_reason: str
    schedule_id: UUID | None


class DecisionIn(In):
    approve: bool
    reason: str = Field("", max_length=300)


class EffectOut(Out):
    id: UUID
    kind: str
    capability: str
    state: str
    effect_class: str
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str


class EffectVerdictIn(In):
    verdict: str
    reason: str = Field(max_length=300)


class BulkIn(In):
    """Which dead letters, and what becomes of them; at most `limit` in one go."""

    action: str
    reason: str = Field(max_length=300)
    reason_code: str = ""
    kind: str = ""
    before: datetime | None = None
    limit: int = Field(100, ge=1, le=100)


class BulkOut(Out):
    done: int
    left: int
    refused: list[str]


class DeadLetterIn(In):
    action: str
    reason: str


class ReplayOut(Out):
    run_id: UUID
    turn_id: UUID
    state: str
    steps: int
    same: int
    divergence: dict[str, Any] | None
