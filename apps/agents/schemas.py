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
    hard: bool = False


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
    lane_policy: dict[str, str]
    routing: dict[str, Any]
    turn_budget_micros: int | None
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


class FallbackIn(In):
    provider: str = Field(max_length=40)
    model: str = Field("", max_length=120)


class ProfileIn(In):
    """What of a profile is to change. Fields that are left out stay as they are."""

    expected_version: int = Field(ge=0)
    title: str = Field("", max_length=120)
    description: str = Field("", max_length=1000)
    system_prompt: str = Field("", max_length=40_000)
    lane: str = Field("worker", max_length=8)
    pinned_model: str = Field("", max_length=161)
    fallback_provider_ids: list[FallbackIn] = Field(default=[], max_length=20)
    lane_policy: dict[str, str] = {}
    routing: dict[str, Any] = {}
    turn_budget_micros: int | None = Field(None, ge=0, le=10**15)
    allowed_capabilities: list[str] = Field(default=[], max_length=500)
    allowed_handoff_targets: list[str] = Field(default=[], max_length=100)
    max_tool_calls: int = Field(16, ge=0, le=10_000)
    max_turns: int = Field(12, ge=1, le=10_000)
    max_depth: int = Field(5, ge=0, le=100)
    context_window_tokens: int = Field(16_000, ge=1, le=10**8)
    max_output_tokens: int = Field(2_048, ge=1, le=10**7)
    safety_mode: str = Field("standard", max_length=8)
    is_active: bool = True


class PinIn(In):
    scope: Scope
    scope_id: UUID | None = None
    agent: str = Field(min_length=2, max_length=33)


class PinOut(Out):
    scope: str
    scope_id: str
    agent: str
    profile_id: UUID | None


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
    lane_change: str
    lane_reason: str
    profile: str
    calls: int
    failures: int
    fallbacks: int
    degraded: int
    tokens_in: int
    tokens_out: int
    micros: int
    average_ms: int


class MemoryIn(In):
    scope: Literal["user", "workspace", "global"] = "user"
    text: str = Field(min_length=1, max_length=4000)


class MemoryTextIn(In):
    text: str = Field(min_length=1, max_length=4000)


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
