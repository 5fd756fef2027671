"""Shapes of turns, traces, profiles and pins in the API."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from apps.common.schemas import In, Out

Scope = Literal["session", "user", "workspace", "global"]


class OrchestrateIn(In):
    text: str = Field(min_length=1, max_length=200_000)
    agent: str = Field("", max_length=33)
    session_id: UUID | None = None


class TurnStarted(Out):
    turn_id: UUID
    session_id: UUID
    run_id: UUID
    trace_id: str
    agent: str
    state: str


class TurnOut(Out):
    id: UUID
    session_id: UUID
    run_id: UUID
    agent: str
    state: str
    reason: str
    message: str
    answer: str
    header: dict[str, Any]
    created_at: datetime
    finished_at: datetime | None


class BarOut(Out):
    kind: str
    id: str
    parent_id: str
    depth: int
    label: str
    state: str
    reason: str
    lane: str
    offset_ms: int
    duration_ms: int
    tokens_in: int
    tokens_out: int
    micros: int
    facts: dict[str, Any]


class TraceOut(Out):
    trace_id: str
    began_at: datetime | None
    duration_ms: int
    micros: int
    turns: list[TurnOut]
    bars: list[BarOut]


class ProfileOut(Out):
    id: UUID
    slug: str
    title: str
    description: str
    lane: str
    pinned_model: str
    fallback_provider_ids: list[dict[str, Any]]
    allowed_capabilities: list[str]
    allowed_handoff_targets: list[str]
    max_tool_calls: int
    max_turns: int
    max_depth: int
    context_window_tokens: int
    max_output_tokens: int
    safety_mode: str
    version: int
    is_active: bool


class ProfileDetail(ProfileOut):
    system_prompt: str


class PinIn(In):
    scope: Scope
    scope_id: UUID | None = None
    agent: str = Field(min_length=2, max_length=33)


class PinOut(Out):
    scope: str
    scope_id: str
    agent: str
    profile_id: UUID


class EffectivePin(Out):
    agent: str
    profile_id: UUID
    version: int
    source: str


class HandoffOut(Out):
    id: UUID
    created_at: datetime
    finished_at: datetime | None
    trace_id: str
    root_id: UUID
    source: str
    target: str
    mode: str
    depth: int
    state: str
    reason: str
    adjustments: list[dict[str, Any]]
    duration_ms: int
    micros: int
    origin: str


class HandoffPage(Out):
    items: list[HandoffOut]
    next_cursor: str


class DepthOut(Out):
    agent: str
    depth: int
    turns: int


class EdgeOut(Out):
    source: str
    target: str
    handoffs: int
    cut: int


class HeatMapOut(Out):
    root_id: str
    trace_id: str
    trees: int
    turns: int
    handoffs: int
    refused: int
    is_cut_off: bool
    by_depth: list[DepthOut]
    by_edge: list[EdgeOut]


class Window(In):
    root_id: UUID | None = None
    hours: int = Field(24, ge=1, le=720)


class UsageWindow(In):
    days: int = Field(30, ge=1, le=366)
    origin: Literal["real", "demo", "drill", "synthetic"] = "real"


class UsageGroup(Out):
    day: date
    provider: str
    model: str
    lane: str
    profile: str
    calls: int
    failures: int
    fallbacks: int
    degraded: int
    tokens_in: int
    tokens_out: int
    micros: int
    average_ms: int


class MemoryOut(Out):
    id: UUID
    created_at: datetime
    updated_at: datetime
    scope: str
    key: str
    text: str
    labels: list[str]
    agent: str
    by_label: str
    trace_id: str


class MemoryPage(Out):
    items: list[MemoryOut]
    next_cursor: str
