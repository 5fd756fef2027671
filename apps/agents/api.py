"""Turns, traces, profiles and pins over the API."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Status

from apps.access import queries as access
from apps.access.models import Principal, Role, Workspace
from apps.access.policies import caller, check_role
from apps.agents import queries, services
from apps.agents.engine import memory, metrics, recursion, usage
from apps.agents.models import (
    AgentProfile,
    Conversation,
    Handoff,
    Memory,
    PinScope,
    Turn,
)
from apps.agents.schemas import (
    EffectivePin,
    HandoffPage,
    HeatMapOut,
    MemoryIn,
    MemoryOut,
    MemoryPage,
    MemoryTextIn,
    OrchestrateIn,
    PinIn,
    PinOut,
    ProfileDetail,
    ProfileIn,
    ProfileOut,
    Scope,
    TraceOut,
    TurnStarted,
    UsageGroup,
    UsageWindow,
    Window,
)
from apps.common.errors import FieldProblem, Invalid, NotFound
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs
from apps.providers import queries as providers
from apps.providers.models import Model

router = Router(tags=["agents"], by_alias=True)


@router.post(
    "/orchestrate",
    response={202: TurnStarted} | PROBLEMS,
    operation_id="orchestrate",
)
@needs("agents:write")
def orchestrate(request: HttpRequest, body: OrchestrateIn) -> Status[dict[str, Any]]:
    """Start a turn; its run answers it. Follow the trace."""
    principal = caller(request).principal
    with transaction.atomic():
        turn = _start(principal, _session(principal, body.session_id), body)
    return Status(
        202,
        {
            "turn_id": turn.id,
            "session_id": turn.conversation_id,
            "run_id": turn.run_id,
            "trace_id": turn.trace_id,
            "agent": turn.profile.slug,
            "state": turn.state,
        },
    )


@router.get(
    "/traces/{trace_id}", response={200: TraceOut} | PROBLEMS, operation_id="getTrace"
)
@needs("runs:read")
def get_trace(request: HttpRequest, trace_id: str) -> dict[str, Any]:
    principal = caller(request).principal
    found = queries.trace(trace_id=trace_id, principal=principal)
    if not found.bars:
        raise NotFound("There is no such trace, or it is not yours to see.")
    return {
        "trace_id": found.trace_id,
        "began_at": found.began_at,
        "duration_ms": found.duration_ms,
        "micros": found.micros,
        "turns": [_turn(turn) for turn in found.turns],
        "bars": list(found.bars),
    }


@router.get(
    "/profiles",
    response={200: list[ProfileOut]} | PROBLEMS,
    operation_id="listProfiles",
)
@needs("agents:read")
def list_profiles(request: HttpRequest) -> list[dict[str, Any]]:
    principal = caller(request).principal
    found = queries.profiles(visible_to=principal)
    return [_shown(profile) for profile in found[:500]]


@router.get(
    "/profiles/effective",
    response={200: EffectivePin} | PROBLEMS,
    operation_id="getEffectivePinnedProfile",
)
@needs("agents:read")
def get_effective_pinned_profile(
    request: HttpRequest, session_id: UUID | None = None
) -> dict[str, Any]:
    """Say which profile would serve, and which pin or default says so."""
    principal = caller(request).principal
    conversation = None
    if session_id:
        conversation = queries.get_conversation(
            conversation_id=session_id, principal=principal
        )
    workspace = conversation.workspace if conversation else _workspace_of(principal)
    found = queries.resolve_profile(
        workspace=workspace, principal=principal, conversation=conversation
    )
    return {
        "agent": found.profile.slug,
        "profile_id": found.profile.id,
        "version": found.profile.version,
        "source": found.source,
    }


@router.get(
    "/profiles/{slug}",
    response={200: ProfileDetail} | PROBLEMS,
    operation_id="getProfile",
)
@needs("agents:read")
def get_profile(request: HttpRequest, slug: str) -> dict[str, Any]:
    principal = caller(request).principal
    slug = slug.removeprefix("@")
    profile = queries.profiles(visible_to=principal).filter(slug=slug).first()
    if profile is None:
        raise NotFound(f"There is no agent @{slug}, or it is not yours to see.")
    return _shown(profile) | {"system_prompt": profile.system_prompt}


@router.put(
    "/profiles/{slug}",
    response={200: ProfileDetail} | PROBLEMS,
    operation_id="saveProfile",
)
@needs("agents:write")
def save_profile(request: HttpRequest, slug: str, body: ProfileIn) -> dict[str, Any]:
    """Make a profile (expected version 0) or its next version; what is left out
    stays."""
    principal = caller(request).principal
    changes = body.dict(exclude_unset=True)
    version = changes.pop("expected_version")
    if "fallback_provider_ids" in changes:
        changes["fallbacks"] = changes.pop("fallback_provider_ids")
    if "pinned_model" in changes:
        changes["pinned_model"] = _model(changes["pinned_model"])
    saved = services.save_profile(
        by=principal,
        workspace=_workspace_of(principal),
        slug=slug.removeprefix("@"),
        changes=changes,
        expected_version=version,
    )
    return _shown(saved) | {"system_prompt": saved.system_prompt}


def _model(name: str) -> Model | None:
    provider, _, model = name.partition("/")
    return providers.get_model(provider, model) if name else None


@router.get(
    "/profile-pins",
    response={200: list[PinOut]} | PROBLEMS,
    operation_id="listProfilePins",
)
@needs("agents:read")
def list_profile_pins(request: HttpRequest) -> list[dict[str, Any]]:
    principal = caller(request).principal
    return [
        {
            "scope": pin.scope,
            "scope_id": pin.key,
            "agent": pin.profile_slug,
            "profile_id": pin.profile_id,
        }
        for pin in queries.pins(visible_to=principal)[:500]
    ]


@router.put(
    "/profile-pins",
    response={200: PinOut} | PROBLEMS,
    operation_id="pinProfileForScope",
)
@needs("agents:write")
def pin_profile_for_scope(request: HttpRequest, body: PinIn) -> dict[str, Any]:
    principal = caller(request).principal
    workspace = _workspace_of_pin(principal, body.scope, body.scope_id)
    profile = queries.get_profile(workspace=workspace, slug=body.agent)
    key = _key(principal, workspace, body.scope, body.scope_id)
    pin = services.pin(by=principal, scope=body.scope, key=key, profile=profile)
    return {
        "scope": pin.scope,
        "scope_id": pin.key,
        "agent": pin.profile_slug,
        "profile_id": profile.id,
    }


@router.delete(
    "/profile-pins",
    response={204: None} | PROBLEMS,
    operation_id="unpinProfileForScope",
)
@needs("agents:write")
def unpin_profile_for_scope(
    request: HttpRequest, scope: Scope, scope_id: UUID | None = None
) -> Status[None]:
    principal = caller(request).principal
    workspace = _workspace_of_pin(principal, scope, scope_id)
    key = _key(principal, workspace, scope, scope_id)
    services.unpin(by=principal, scope=scope, key=key, workspace=workspace)
    return Status(204, None)


@router.get(
    "/recursion", response={200: HeatMapOut} | PROBLEMS, operation_id="getRecursionMap"
)
@needs("runs:read")
def get_recursion_map(request: HttpRequest, window: Query[Window]) -> dict[str, Any]:
    """Count turns by agent and depth and handoffs by edge, from the audit log."""
    principal = caller(request).principal
    if window.root_id:
        found = recursion.of_root(root_id=window.root_id, principal=principal)
    else:
        found = recursion.of_window(hours=window.hours, principal=principal)
    return found.as_dict()


@router.get(
    "/usage/summary",
    response={200: list[UsageGroup]} | PROBLEMS,
    operation_id="summarizeUsage",
)
@needs("providers:read")
def summarize_usage(
    request: HttpRequest, window: Query[UsageWindow]
) -> list[dict[str, Any]]:
    """Group model calls by day, provider, model, lane and agent."""
    principal = caller(request).principal
    return usage.table(principal=principal, days=window.days, origin=window.origin)


@router.get(
    "/handoffs",
    response={200: HandoffPage} | PROBLEMS,
    operation_id="listHandoffTelemetry",
)
@needs("runs:read")
def list_handoffs(
    request: HttpRequest, page: Query[Cursor], trace_id: str = ""
) -> dict[str, Any]:
    """List handoffs with how they ended and what was adjusted, newest first."""
    principal = caller(request).principal
    rows = Handoff.objects.visible_to(principal)
    if trace_id:
        rows = rows.filter(trace_id=trace_id)
    items, following = cut(rows, page)
    return {"items": items, "next_cursor": following}


@router.get("/metrics", response=PROBLEMS, operation_id="getMetrics")
@needs("providers:read", "operator")
def get_metrics(request: HttpRequest) -> HttpResponse:
    """Return the numbers of the whole install for Prometheus, as text."""
    if not settings.POLAR_METRICS:
        raise NotFound("Metrics are off; POLAR_METRICS=true in .env shows them.")
    principal = caller(request).principal
    check_role(principal, Role.OPERATOR, access.default_workspace())
    return HttpResponse(metrics.exposition(), content_type=metrics.CONTENT_TYPE)


@router.get(
    "/memories", response={200: MemoryPage} | PROBLEMS, operation_id="listMemories"
)
@needs("agents:read")
def list_memories(request: HttpRequest, page: Query[Cursor]) -> dict[str, Any]:
    principal = caller(request).principal
    items, following = cut(Memory.objects.shown_to(principal), page)
    return {"items": items, "next_cursor": following}


@router.post(
    "/memories", response={201: MemoryOut} | PROBLEMS, operation_id="createMemory"
)
@needs("agents:write")
def create_memory(request: HttpRequest, body: MemoryIn) -> Status[Memory]:
    principal = caller(request).principal
    workspace = _workspace_of(principal)
    kept = memory.keep(
        by=principal, workspace=workspace, scope=body.scope, text=body.text
    )
    return Status(201, kept)


@router.patch(
    "/memories/{memory_id}",
    response={200: MemoryOut} | PROBLEMS,
    operation_id="correctMemory",
)
@needs("agents:write")
def correct_memory(request: HttpRequest, memory_id: UUID, body: MemoryTextIn) -> Memory:
    """Put a person's words in place of what an agent noted."""
    principal = caller(request).principal
    return memory.correct(by=principal, memory_id=memory_id, text=body.text)


@router.delete(
    "/memories/{memory_id}",
    response={204: None} | PROBLEMS,
    operation_id="deleteMemory",
)
@needs("agents:write")
def delete_memory(request: HttpRequest, memory_id: UUID) -> Status[None]:
    principal = caller(request).principal
    memory.forget(by=principal, memory_id=memory_id)
    return Status(204, None)


def _session(principal: Principal, session_id: UUID | None) -> Conversation:
    if session_id:
        return queries.get_conversation(conversation_id=session_id, principal=principal)
    return services.start_conversation(
        workspace=_workspace_of(principal), principal=principal, channel="api"
    )


def _start(
    principal: Principal, conversation: Conversation, body: OrchestrateIn
) -> Turn:
    return services.start_turn(
        conversation=conversation,
        principal=principal,
        text=body.text,
        profile=_profile(conversation.workspace, body.agent),
        trigger="api",
        is_hard=body.hard,
    )


def _profile(workspace: Workspace, slug: str) -> AgentProfile | None:
    return queries.get_profile(workspace=workspace, slug=slug) if slug else None


def _workspace_of(principal: Principal) -> Workspace:
    workspace = access.workspaces_of(principal).first()
    if workspace is None:
        raise NotFound("You belong to no workspace yet.")
    return workspace


def _workspace_of_pin(
    principal: Principal, scope: str, scope_id: UUID | None
) -> Workspace:
    if scope == PinScope.SESSION and scope_id:
        return queries.get_conversation(
            conversation_id=scope_id, principal=principal
        ).workspace
    if scope == PinScope.WORKSPACE and scope_id:
        workspace = access.workspaces_of(principal).filter(id=scope_id).first()
        if workspace is None:
            raise NotFound("There is no such workspace, or it is not yours to see.")
        return workspace
    return _workspace_of(principal)


def _key(
    principal: Principal, workspace: Workspace, scope: str, scope_id: UUID | None
) -> str:
    """A user pin without an id is one's own; a workspace's is the caller's."""
    if scope == PinScope.SESSION and scope_id is None:
        problem = FieldProblem("scopeId", "missing", "the id of a session")
        raise Invalid("This pin needs a session.", fields=(problem,))
    if scope_id:
        return str(scope_id)
    own = {"user": str(principal.id), "workspace": str(workspace.id)}
    return own.get(scope, "")


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "id": turn.id,
        "session_id": turn.conversation_id,
        "run_id": turn.run_id,
        "agent": turn.profile.slug,
        "state": turn.state,
        "reason": turn.reason,
        "message": turn.message_text,
        "answer": turn.answer_text,
        "header": turn.header,
        "created_at": turn.created_at,
        "finished_at": turn.finished_at,
    }


def _shown(profile: AgentProfile) -> dict[str, Any]:
    """The fields of ProfileOut that are columns, and the two that are not."""
    columns = {field.name for field in AgentProfile._meta.concrete_fields}
    named = columns & set(ProfileOut.model_fields) - {"pinned_model"}
    return {name: getattr(profile, name) for name in named} | {
        "pinned_model": str(profile.pinned_model or ""),
        "fallback_provider_ids": profile.fallbacks,
    }
