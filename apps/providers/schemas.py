"""Shapes of providers, lanes and usage in the API. Never a secret."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from apps.common.schemas import In, Out


class ProviderOut(Out):
    id: UUID
    slug: str
    kind: str
    base_url: str
    enabled: bool
    state: str
    state_detail: str
    source: str
    revision: int
    key_stage: str
    key_detail: str
    shadow_answers: int


class ProviderIn(In):
    """A provider as it should be. The key is written, never read back."""

    kind: str = Field(max_length=20)
    base_url: str = Field("", max_length=300)
    enabled: bool = True
    settings: dict[str, Any] = Field(default_factory=dict)
    key: str = Field("", max_length=4096)
    expected_revision: int | None = Field(None, ge=1)


class ModelIn(In):
    name: str = Field(max_length=120)
    context_window_tokens: int = Field(32_768, ge=256, le=100_000_000)
    max_output_tokens: int = Field(4096, ge=1, le=10_000_000)
    input_micros: int = Field(0, ge=0, le=10**12)
    output_micros: int = Field(0, ge=0, le=10**12)
    cached_micros: int = Field(0, ge=0, le=10**12)
    supports_tools: bool = True


class PriceIn(In):
    """What a model costs from a day on. Units: micro-USD per million tokens."""

    model: str = Field(max_length=120)
    starts_on: date
    input_micros: int = Field(ge=0, le=10**12)
    output_micros: int = Field(ge=0, le=10**12)
    cached_micros: int = Field(0, ge=0, le=10**12)
    note: str = Field("", max_length=300)


class PriceOut(Out):
    model: str
    starts_on: date
    input_micros: int
    output_micros: int
    cached_micros: int
    by_label: str
    note: str


class RouteIn(In):
    """A model's place in a lane."""

    provider: str = Field(max_length=40)
    model: str = Field(max_length=120)
    enabled: bool = True
    first: bool = False


class KeyIn(In):
    """A step of a key change: stage, test, shadow, promote, revoke or drop."""

    action: str = Field(max_length=10)
    key: str = Field("", max_length=4096)


class TestOut(Out):
    """What a test found."""

    __test__ = False

    provider: str
    ok: bool
    models: list[str]
    model: str
    answer: str
    duration_ms: int
    error_class: str
    detail: str


class KeyOut(Out):
    provider: ProviderOut
    report: TestOut | None = None


class NamesOut(Out):
    items: list[str]


class MessageIn(In):
    role: str = Field(pattern="^(system|user|assistant)$")
    text: str = Field(max_length=200_000)


class GenerateIn(In):
    """A question to a lane, outside any conversation."""

    lane: str = Field("worker", pattern="^(local|worker|brain)$")
    messages: list[MessageIn] = Field(min_length=1, max_length=200)
    max_output_tokens: int = Field(1024, ge=1, le=100_000)


class GeneratedOut(Out):
    text: str
    finish: str
    served_by: str
    lane: str
    lane_change: str
    degraded: bool
    is_scripted: bool
    tokens_in: int
    tokens_out: int
    micros: int
    attempts: list[dict[str, str]]
    call_id: UUID | None


class EmbedIn(In):
    provider: str = Field(max_length=40)
    model: str = Field(max_length=120)
    texts: list[str] = Field(min_length=1, max_length=256)


class VectorsOut(Out):
    items: list[list[float]]


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
    lane_reason: str
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
