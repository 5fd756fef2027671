"""The sections of the configuration: what each can say, read and write.

Hides: how a row becomes an entry that reads the same on every install (names
instead of ids, no secrets), and which service each entry is written through.
Invariant: applying what was read changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from django.db.models import Q, QuerySet
from pydantic import Field

from apps.access.models import Principal, Workspace
from apps.access.queries import default_workspace
from apps.agents import services as agents
from apps.agents.models import VERSIONED_FIELDS, AgentProfile, SafetyMode
from apps.boards import services as boards
from apps.boards.models import Board
from apps.common.errors import FieldProblem, Invalid
from apps.common.schemas import In
from apps.gateway import services as gateway
from apps.gateway.models import (
    Budget,
    BudgetScope,
    BudgetUnit,
    BudgetWindow,
    OnExceed,
    Setting,
    Strictness,
)
from apps.providers import services as providers
from apps.providers.models import Lane, Model, Provider, Route
from apps.reliability.services import reach
from apps.runs.models import CatchUp, Overlap, Schedule, ScheduleKind
from apps.runs.services import schedules

Json = dict[str, Any]
BIGGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of setting: its shape, how it is read, how one entry is written."""

    name: str
    shape: type[In]
    read: Callable[[], dict[str, In]]
    write: Callable[[Principal, str, Any], None]
    #: Whether an entry that is not here yet lacks something only a person has.
    waits: Callable[[In], bool] = lambda entry: False


class ModelEntry(In):
    name: str = Field(min_length=1, max_length=120)
    context_window_tokens: int = Field(32_768, ge=1, le=100_000_000)
    max_output_tokens: int = Field(4096, ge=1, le=100_000_000)
    input_micros: int = Field(0, ge=0, le=BIGGEST)
    output_micros: int = Field(0, ge=0, le=BIGGEST)
    cached_micros: int = Field(0, ge=0, le=BIGGEST)
    supports_tools: bool = True
    dated: date | None = None


class ProviderEntry(In):
    """`key` is written and never read back."""

    kind: str = Field(max_length=20)
    base_url: str = Field("", max_length=300)
    enabled: bool = True
    settings: Json = Field(default_factory=dict)
    models: list[ModelEntry] = Field(default_factory=list, max_length=200)
    key: str = Field(default="", max_length=10_000, repr=False, exclude=True)


class RouteEntry(In):
    provider: str = Field(max_length=40)
    model: str = Field(max_length=120)
    enabled: bool = True


class LaneEntry(In):
    routes: list[RouteEntry] = Field(max_length=100)


class ProfileEntry(In):
    title: str = Field(max_length=120)
    description: str = Field("", max_length=20_000)
    system_prompt: str = Field("", max_length=200_000)
    lane: Lane = Lane.WORKER
    pinned_model: str = Field("", max_length=200)
    fallbacks: list[Json] = Field(default_factory=list, max_length=50)
    allowed_capabilities: list[str] = Field(default_factory=list, max_length=500)
    allowed_handoff_targets: list[str] = Field(default_factory=list, max_length=200)
    max_tool_calls: int = Field(16, ge=0, le=10_000)
    max_turns: int = Field(12, ge=1, le=10_000)
    max_depth: int = Field(5, ge=0, le=100)
    context_window_tokens: int = Field(16_000, ge=1, le=100_000_000)
    max_output_tokens: int = Field(2_048, ge=1, le=100_000_000)
    safety_mode: SafetyMode = SafetyMode.STANDARD
    lane_policy: dict[str, str] = Field(default_factory=dict)
    routing: Json = Field(default_factory=dict)
    turn_budget_micros: int | None = Field(None, ge=0, le=BIGGEST)
    is_active: bool = True


class BudgetEntry(In):
    """Its key is scope:unit:window:name."""

    limit: int = Field(ge=0, le=BIGGEST)
    timezone: str = Field("UTC", max_length=64)
    on_exceed: OnExceed = OnExceed.BLOCK
    is_rolling: bool = False


class ContractEntry(In):
    strictness: Strictness


class BoardEntry(In):
    title: str = Field(min_length=1, max_length=120)
    archived: bool = False


class ScheduleEntry(In):
    title: str = Field(max_length=160)
    kind: ScheduleKind
    expression: str = Field(max_length=400)
    run_kind: str = Field(max_length=64)
    timezone: str = Field("UTC", max_length=64)
    catch_up: CatchUp = CatchUp.ONE
    overlap: Overlap = Overlap.FORBID
    jitter_seconds: int = Field(0, ge=0, le=86_400)
    payload: Json = Field(default_factory=dict)
    quiet_from: time | None = None
    quiet_to: time | None = None
    daily_cap: int | None = Field(None, ge=0, le=32_767)
    max_failures: int = Field(5, ge=0, le=32_767)
    state: str = Field("active", max_length=16)


def _read_providers() -> dict[str, In]:
    rows = Provider.objects.prefetch_related("models").order_by("slug")
    return {
        row.slug: ProviderEntry(
            kind=row.kind,
            base_url=row.base_url,
            enabled=row.enabled,
            settings=row.settings,
            models=[
                ModelEntry(**{name: getattr(each, name) for name in _MODEL_FIELDS})
                for each in sorted(row.models.all(), key=lambda model: model.name)
            ],
        )
        for row in rows
    }


def _write_provider(by: Principal, slug: str, entry: ProviderEntry) -> None:
    row = providers.save_provider(
        by=by,
        entry=providers.ProviderEntry(
            slug=slug,
            kind=entry.kind,
            base_url=entry.base_url,
            enabled=entry.enabled,
            settings=entry.settings,
            key=entry.key,
        ),
    )
    for model in entry.models:
        facts = {name: getattr(model, name) for name in _MODEL_FIELDS}
        providers.save_model(by=by, provider=row, entry=providers.ModelEntry(**facts))


def _read_lanes() -> dict[str, In]:
    found: dict[str, list[RouteEntry]] = {str(lane): [] for lane in Lane}
    rows = Route.objects.select_related("model__provider")
    for row in rows.order_by("lane", "position"):
        found[row.lane].append(
            RouteEntry(
                provider=row.model.provider.slug,
                model=row.model.name,
                enabled=row.enabled,
            )
        )
    return {lane: LaneEntry(routes=routes) for lane, routes in found.items()}


def _write_lane(by: Principal, lane: str, entry: LaneEntry) -> None:
    wanted = [
        (_model(each.provider, each.model), each.enabled) for each in entry.routes
    ]
    kept = {model.pk for model, _ in wanted}
    rows = Route.objects.filter(lane=lane).select_related("model__provider")
    for route in rows.exclude(model__in=kept):
        providers.remove_route(by=by, route=route)
    for model, enabled in reversed(wanted):
        providers.save_route(by=by, lane=lane, model=model, enabled=enabled, first=True)


def _model(provider: str, name: str) -> Model:
    found = Model.objects.filter(provider__slug=provider, name=name).first()
    if found is None:
        problem = FieldProblem("model", f"unknown: {provider}/{name}", "a known one")
        raise Invalid(f"There is no model {provider}/{name}.", fields=(problem,))
    return found


def _read_profiles() -> dict[str, In]:
    rows = AgentProfile.objects.filter(workspace=_home())
    return {
        row.slug: ProfileEntry(
            **{name: getattr(row, name) for name in VERSIONED_FIELDS},
            pinned_model=str(row.pinned_model) if row.pinned_model else "",
        )
        for row in rows.select_related("pinned_model__provider").order_by("slug")
    }


def _write_profile(by: Principal, slug: str, entry: ProfileEntry) -> None:
    changes = entry.model_dump()
    pinned = changes.pop("pinned_model")
    provider, _, name = pinned.partition("/")
    changes["pinned_model"] = _model(provider, name) if pinned else None
    found = AgentProfile.objects.filter(workspace=_home(), slug=slug).first()
    agents.save_profile(
        by=by,
        workspace=_home(),
        slug=slug,
        changes=changes,
        expected_version=found.version if found else 0,
    )


def _read_budgets() -> dict[str, In]:
    """The budgets that bind; of two alike, the older one."""
    found: dict[str, In] = {}
    for row in _budgets().order_by("id"):
        key = ":".join((row.scope, row.unit, row.window, row.scope_key))
        found.setdefault(
            key,
            BudgetEntry(
                limit=row.limit,
                timezone=row.timezone,
                on_exceed=OnExceed(row.on_exceed),
                is_rolling=row.is_rolling,
            ),
        )
    return found


def _budgets() -> QuerySet[Budget]:
    mine = Q(workspace=_home()) | Q(workspace=None)
    return Budget.objects.filter(mine, is_active=True)


def _write_budget(by: Principal, key: str, entry: BudgetEntry) -> None:
    parts = key.split(":", 3)
    choices = (BudgetScope.values, BudgetUnit.values, BudgetWindow.values)
    if len(parts) != len(choices) + 1 or any(
        part not in known for part, known in zip(parts, choices, strict=False)
    ):
        expected = "scope:unit:window:name, such as workspace:micros:day:"
        problem = FieldProblem("key", "not a budget", expected)
        raise Invalid(f"{key[:200]!r} names no budget.", fields=(problem,))
    scope, unit, window, name = parts
    row = (
        _budgets()
        .filter(scope=scope, unit=unit, window=window, scope_key=name)
        .order_by("id")
        .first()
    )
    gateway.save_budget(
        by=by,
        wanted=gateway.BudgetWanted(
            scope=scope, unit=unit, window=window, key=name, **entry.model_dump()
        ),
        budget_id=row.id if row else None,
        expected_version=row.version if row else 0,
    )


def _read_contract() -> dict[str, In]:
    return {"contract": ContractEntry(strictness=Strictness(Setting.load().strictness))}


def _write_contract(by: Principal, key: str, entry: ContractEntry) -> None:
    if key != "contract":
        raise Invalid("The one entry of this section is called contract.")
    gateway.set_strictness(
        by=by, strictness=entry.strictness, reason="set as configuration"
    )


def _read_boards() -> dict[str, In]:
    rows = Board.objects.filter(workspace=_home()).order_by("slug")
    return {
        row.slug: BoardEntry(title=row.title, archived=row.archived_at is not None)
        for row in rows
    }


def _write_board(by: Principal, slug: str, entry: BoardEntry) -> None:
    board = boards.ensure_board(by=by, workspace=_home(), slug=slug, title=entry.title)
    boards.update_board(
        by=by,
        board_id=board.id,
        expected_version=board.version,
        title=entry.title,
        archived=entry.archived,
    )


def _read_schedules() -> dict[str, In]:
    """A one-off whose moment has passed is history, not configuration."""
    rows = Schedule.objects.filter(workspace=_home()).order_by("slug")
    past = Q(kind=ScheduleKind.ONCE, next_at__isnull=True)
    return {
        row.slug: ScheduleEntry(
            **{name: getattr(row, name) for name in ScheduleEntry.model_fields}
        )
        for row in rows.exclude(past)
    }


def _write_schedule(by: Principal, slug: str, entry: ScheduleEntry) -> None:
    facts = entry.model_dump()
    state = facts.pop("state")
    row = Schedule.objects.filter(workspace=_home(), slug=slug).first()
    if row is None:
        when = (str(facts.pop("kind")), facts.pop("expression"))
        run_kind = facts.pop("run_kind")
        row = schedules.create_schedule(
            by=by,
            workspace=_home(),
            slug=slug,
            when=when,
            run_kind=run_kind,
            **facts,
        )
    elif any(getattr(row, name) != value for name, value in facts.items()):
        row = schedules.update_schedule(by=by, schedule_id=row.id, **facts)
    schedules.set_schedule_state(
        by=by, schedule_id=row.id, state=state, reason="set as configuration"
    )


def _home() -> Workspace:
    return default_workspace()


_MODEL_FIELDS = tuple(ModelEntry.model_fields)

#: In the order in which they are written: a lane names models, a profile too.
SECTIONS = {
    section.name: section
    for section in (
        Section("providers", ProviderEntry, _read_providers, _write_provider),
        Section("lanes", LaneEntry, _read_lanes, _write_lane),
        Section("profiles", ProfileEntry, _read_profiles, _write_profile),
        Section("budgets", BudgetEntry, _read_budgets, _write_budget),
        Section("grants", reach.GrantEntry, reach.read_grants, reach.write_grant),
        Section(
            "channels",
            reach.ChannelEntry,
            reach.read_channels,
            reach.write_channel,
            reach.channel_waits,
        ),
        Section("gateway", ContractEntry, _read_contract, _write_contract),
        Section("boards", BoardEntry, _read_boards, _write_board),
        Section("schedules", ScheduleEntry, _read_schedules, _write_schedule),
    )
}
