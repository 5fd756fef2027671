"""The way to run a tool: through the gateway, exactly as it was reviewed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Required, TypedDict, Unpack
from uuid import UUID

from apps.access.models import Principal
from apps.common.errors import FieldProblem
from apps.extensions import policies, ports
from apps.extensions.engine import connections, definition, sources
from apps.extensions.errors import (
    AdapterMissing,
    AuthorizationWanted,
    DefinitionChanged,
    ToolUnavailable,
    ToolValidationError,
)
from apps.extensions.models import Capability, Extension, ExtensionType, Lifecycle
from apps.extensions.queries import find_tool
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Json,
    Lineage,
    Permit,
    PlannedStep,
    Result,
    TrustFacts,
)
from apps.gateway.services import Outcome

from .reviewing import Seen, quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallRequest:
    """One tool call, by the alias that the model was shown."""

    alias: str
    arguments: Json
    principal: Principal
    workspace_id: UUID
    lineage: Lineage
    scope: Json
    labels: frozenset[str] = field(default_factory=frozenset)
    idempotency_key: str = ""


class ToolCallWords(TypedDict, total=False):
    """The words of `ToolCallRequest`, for callers that spell them out."""

    alias: Required[str]
    arguments: Required[Json]
    principal: Required[Principal]
    workspace_id: Required[UUID]
    lineage: Required[Lineage]
    scope: Required[Json]
    labels: frozenset[str]
    idempotency_key: str


def execute_tool(**words: Unpack[ToolCallWords]) -> Outcome:
    """Run one tool call through the gateway; see `run_tool`."""
    return run_tool(request=ToolCallRequest(**words))


def run_tool(*, request: ToolCallRequest) -> Outcome:
    """Run one tool call through the gateway.

    Writes: a quarantine, where what is served is not what was reviewed.
    Raises: ToolUnavailable for an unknown alias; ToolValidationError naming path
    and expectation; what the gateway and the tool raise.
    Again: the same idempotency key replays the recorded output.
    """
    capability = _get_capability(request.alias)
    if not isinstance(request.arguments, dict):
        raise ToolValidationError(
            "Tool arguments are a JSON object.",
            fields=(FieldProblem("$", "not an object", "object"),),
        )
    try:
        outcome = gateway.call(_call_of(request, capability))
    except DefinitionChanged as changed:
        seen = Seen(capability.part, changed.detail, changed.served)
        quarantine(row=capability.extension, seen=seen)
        raise
    except AuthorizationWanted as wanted:
        connections.note_wanted(capability.extension, capability.part, wanted)
        raise
    return replace(outcome, labels=sources.labels_of(capability))


def foresee(*, requests: list[ToolCallRequest]) -> list[PlannedStep | None]:
    """Say of each call what a person would be asked of, and may answer together.

    Shape: None where nobody would be asked, or a call needs its own answer.
    """
    found = [_foreseen(request) for request in requests]
    known = [call for call in found if call is not None]
    asks = dict(zip(map(id, known), gateway.foresee(known), strict=True))
    return [
        PlannedStep(call.capability, call.arguments, call.risk)
        if call is not None and asks[id(call)]
        else None
        for call in found
    ]


def _foreseen(request: ToolCallRequest) -> CallRequest | None:
    capability = find_tool(request.alias)
    if capability is None or not isinstance(request.arguments, dict):
        return None
    return _call_of(request, capability)


def _get_capability(alias: str) -> Capability:
    found = find_tool(alias)
    if found is None or found.extension.lifecycle == Lifecycle.REMOVED:
        raise ToolUnavailable(f"There is no tool {alias[:80]!r}.")
    return found


def _call_of(request: ToolCallRequest, capability: Capability) -> CallRequest:
    row = capability.extension
    context = ports.ToolContext(
        principal=request.principal,
        workspace_id=request.workspace_id,
        lineage=request.lineage,
        scope=request.scope,
        idempotency_key=request.idempotency_key,
    )
    return CallRequest(
        kind=CallKind.TOOL,
        capability=capability.name,
        principal=request.principal,
        workspace_id=request.workspace_id,
        arguments=request.arguments,
        perform=_performing(capability, request.arguments, context),
        effect_class=EffectClass(capability.effect_class),
        is_inside=_is_inside(capability),
        risk=capability.risk,
        lineage=request.lineage,
        scope=request.scope,
        labels=request.labels,
        idempotency_key=request.idempotency_key,
        input_schema=capability.input_schema,
        output_schema=capability.output_schema or None,
        extension=trust_facts(row, row.definition_hash),
        standing=lambda: _standing(row.id, row.definition_hash),
        needs_secret=sources.needs_secret(row),
        max_output_bytes=sources.limits_of(row).output_bytes,
        bulk_threshold=capability.bulk_threshold,
        preview=_rehearsing(capability, request),
    )


def _is_inside(capability: Capability) -> bool:
    """Code of this house that writes rows of this store, and nothing else."""
    is_native = ports.native_tools.find(capability.name) is not None
    return is_native and capability.effect_class == EffectClass.INTERNAL


def _rehearsing(
    capability: Capability, request: ToolCallRequest
) -> Callable[[], Json] | None:
    """How a call can be tried out before a person decides, where it can be."""
    parts = {each["name"]: each["transport"] for each in capability.extension.parts}
    transport = parts.get(capability.part)
    runtime: object = ports.find_runtime(transport) if transport else None
    if not isinstance(runtime, ports.Rehearsing):
        return None

    def rehearse() -> Json:
        target = sources.target_of(capability, request.scope)
        return {"said": tries.rehearse(target, request.arguments)}

    tries = runtime
    return rehearse


def _performing(
    capability: Capability, arguments: Json, context: ports.ToolContext
) -> Callable[[Permit], Result]:
    """The source is made ready only once the gateway has said yes."""

    def perform(permit: Permit) -> Result:
        target = sources.target_of(capability, context.scope)
        runtime = ports.find_runtime(target.source.transport)
        if runtime is None:
            raise AdapterMissing(
                f"Nothing here runs parts of kind {target.source.transport}."
            )
        return runtime.execute(target, arguments, permit, context)

    return perform


def _standing(extension_id: UUID, decided_on: str) -> TrustFacts:
    """The trust as it stands in the transaction that starts the effect."""
    return trust_facts(Extension.objects.get(id=extension_id), decided_on)


def trust_facts(row: Extension, decided_on: str) -> TrustFacts:
    """Tell the gateway how an extension stands. A native plugin is code: what runs
    is what this process holds, not what is stored."""
    is_pinned = row.is_pinned and row.definition_hash == decided_on
    if row.type == ExtensionType.PLUGIN and not row.parts:
        is_pinned = is_pinned and (
            definition.native_hash(row.ext_id) == row.reviewed_hash
        )
    return TrustFacts(
        extension_id=row.ext_id,
        extension_type=row.type,
        trust=row.trust,
        lifecycle=row.lifecycle,
        reason=policies.why_blocked(row),
        is_pinned=is_pinned,
        is_isolated=not sources.runs_open(row),
    )
