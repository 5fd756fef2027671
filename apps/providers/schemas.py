"""Shapes of providers, lanes and usage in the API. Never a secret."""

from datetime import datetime
from uuid import UUID

from apps.common.schemas import Out


class ProviderOut(Out):
    id: UUID
    slug: str
    kind: str
    base_url: str
    enabled: bool
    state: str
    state_detail: str
    source: str


class RouteOut(Out):
    id: UUID
    provider: str
    model: str
    state: str
    detail: str
    last_error_class: str
    last_error_at: datetime | None


class LaneOut(Out):
    lane: str
    state: str
    routes: list[RouteOut]


class UsageOut(Out):
    id: UUID
    created_at: datetime
    trace_id: str
    origin: str
    requested_lane: str
    served_lane: str
    served_provider: str
    served_model: str
    lane_change: str
    degraded: bool
    fallback_used: bool
    attempts: int
    tokens_in: int
    tokens_out: int
    cached: int
    micros: int
    duration_ms: int
    ttft_ms: int
    error_class: str
    ok: bool


class UsagePage(Out):
    items: list[UsageOut]
    next_cursor: str
