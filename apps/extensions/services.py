"""The only writers of extensions, and the way to run a tool."""

from dataclasses import dataclass, field
from typing import Required, TypedDict, Unpack
from uuid import UUID

from django.db import transaction

from apps.access import services as access
from apps.access.models import Principal, PrincipalKind, Role
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, Denied, FieldProblem, Invalid
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Json,
    Lineage,
    TrustFacts,
)
from apps.gateway.services import Outcome

from . import ports
from .engine import definition
from .errors import AdapterMissing, ToolUnavailable, ToolValidationError
from .models import (
    LIFECYCLE_TRANSITIONS,
    TRUST_TRANSITIONS,
    Capability,
    Extension,
    ExtensionType,
    Lifecycle,
    Review,
    Trust,
    Version,
)
from .policies import check_may_enable
from .queries import ToolSpec, find_tool, get_extension, tools_for

__all__ = [
    "ToolCallRequest",
    "ToolSpec",
    "disable_extension",
    "enable_extension",
    "execute_tool",
    "revoke_extension",
    "run_tool",
    "sync_shipped_plugin",
    "tools_for",
]


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
    return gateway.call(_call_of(request, capability))


def _get_capability(alias: str) -> Capability:
    found = find_tool(alias)
    if found is None or found.extension.lifecycle == Lifecycle.REMOVED:
        raise ToolUnavailable(f"There is no tool {alias[:80]!r}.")
    return found


def _call_of(request: ToolCallRequest, capability: Capability) -> CallRequest:
    extension = capability.extension
    runtime = ports.find_runtime(ports.Transport.NATIVE)
    if runtime is None:
        raise AdapterMissing(f"Nothing here runs extensions of type {extension.type}.")
    target = ports.Target(
        source=ports.Source(
            extension_id=extension.id,
            ext_id=extension.ext_id,
            transport=ports.Transport.NATIVE,
            trust=extension.trust,
        ),
        name=capability.capability_id,
        capability=capability.name,
    )
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
        perform=lambda permit: runtime.execute(
            target, request.arguments, permit, context
        ),
        effect_class=EffectClass(capability.effect_class),
        risk=capability.risk,
        lineage=request.lineage,
        scope=request.scope,
        labels=request.labels,
        idempotency_key=request.idempotency_key,
        input_schema=capability.input_schema,
        output_schema=capability.output_schema or None,
        extension=_trust_facts(extension),
    )


def _trust_facts(extension: Extension) -> TrustFacts:
    """A plugin is code: what runs is what this process holds, not what is stored."""
    is_pinned = extension.is_pinned
    if extension.type == ExtensionType.PLUGIN:
        offered = definition.native_hash(extension.ext_id)
        is_pinned = is_pinned and offered == extension.reviewed_hash
    return TrustFacts(
        extension_id=extension.ext_id,
        extension_type=extension.type,
        trust=extension.trust,
        lifecycle=extension.lifecycle,
        reason=extension.trust_reason,
        is_pinned=is_pinned,
    )


# --- the shipped plugin


@transaction.atomic
def sync_shipped_plugin(*, version: str = "") -> Extension:
    """Make the rows of plugin `polar` say what this version of the code offers.

    Writes: Extension, Capability, Version, Review; install, review and upgrade
    events by the system.   Again: without a difference nothing is written. A
    disabled plugin stays disabled and a revoked one blocked: code is no review of
    what an operator decided.
    """
    system = access.system_principal()
    row, is_new = Extension.objects.get_or_create(
        ext_id=ports.SHIPPED,
        defaults={
            "type": ExtensionType.PLUGIN,
            "title": "Polar",
            "description": "The tools that ship with Polar.",
        },
    )
    described = definition.describe(ports.SHIPPED, ports.native_tools.of(ports.SHIPPED))
    new_hash = definition.hash_of(described)
    is_told = not row.capabilities.filter(is_current=True, risk_by="").exists()
    if row.definition_hash == row.reviewed_hash == new_hash and is_told:
        return row
    before = row.definition_hash
    _write_capabilities(row)
    Version.objects.get_or_create(
        extension=row,
        definition_hash=new_hash,
        defaults={"version": version, "definition": described},
    )
    row.definition_hash = row.reviewed_hash = new_hash
    row.version = version
    if is_new:
        _settle_in(row, system)
    row.save()
    facts = {"before": before, "after": new_hash, "version": version}
    _record(row, system, "installed" if is_new else "upgraded", data=facts)
    _approve_shipped(row, system)
    return row


def _write_capabilities(row: Extension) -> None:
    tools = ports.native_tools.of(row.ext_id)
    for tool in tools:
        Capability.objects.update_or_create(
            extension=row,
            capability_id=tool.capability_id,
            defaults={
                "alias": definition.alias_of(row.ext_id, tool.capability_id),
                "title": tool.title,
                "description": tool.description,
                "input_schema": tool.input_schema,
                "output_schema": tool.output_schema,
                "risk_level": tool.risk.level,
                "side_effects": tool.risk.side_effects,
                "data_egress": tool.risk.data_egress,
                "risk_by": "code",
                "effect_class": tool.effect_class,
                "target": tool.capability_id,
                "is_current": True,
            },
        )
    kept = [tool.capability_id for tool in tools]
    row.capabilities.exclude(capability_id__in=kept).update(is_current=False)


def _settle_in(row: Extension, system: Principal) -> None:
    """Walk a new plugin through its lifecycle, as an operator would."""
    for target in (Lifecycle.INSTALLED, Lifecycle.ENABLED):
        LIFECYCLE_TRANSITIONS.check(row.lifecycle, target)
        row.lifecycle = target
    TRUST_TRANSITIONS.check(row.trust, Trust.TRUSTED)
    row.trust, row.trust_reason = Trust.TRUSTED, "ships with Polar"
    row.trust_by, row.trust_at = system.label, clock.now()


def _approve_shipped(row: Extension, system: Principal) -> None:
    Review.objects.create(
        extension=row,
        definition_hash=row.definition_hash,
        is_approved=True,
        trust=row.trust,
        reason="ships with Polar",
        reviewer=system.label,
    )
    _record(row, system, "reviewed", data={"definition_hash": row.definition_hash})


# --- what operators do


@transaction.atomic
def enable_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Let an extension run.

    Raises: RoleRequired below approver; NotTrusted when blocked; ReviewMissing
    when its present form was not reviewed; InvalidTransition.
    """
    _check_role(by, Role.APPROVER)
    check_may_enable(get_extension(extension_id))
    return _move(by, extension_id, Lifecycle.ENABLED, reason)


@transaction.atomic
def disable_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Stop an extension for now. Raises: RoleRequired; InvalidTransition."""
    _check_role(by, Role.OPERATOR)
    return _move(by, extension_id, Lifecycle.DISABLED, reason)


@transaction.atomic
def revoke_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Block an extension at once; only a new review lets it back.

    Raises: RoleRequired below operator; Invalid without a reason.
    Again: stays blocked, for the first reason.
    """
    _check_role(by, Role.OPERATOR)
    _check_reason(reason)
    row = get_extension(extension_id)
    if row.trust == Trust.BLOCKED:
        return row
    TRUST_TRANSITIONS.check(row.trust, Trust.BLOCKED)
    held = Extension.objects.filter(id=row.id, trust=row.trust)
    moved = held.update(
        trust=Trust.BLOCKED,
        trust_reason=reason.strip(),
        trust_by=by.label,
        trust_at=clock.now(),
        reviewed_hash="",
    )
    if moved != 1:
        raise Conflict("Somebody else has just decided about this extension.")
    _record(row, by, "revoked", reason=reason, data={"before": row.trust})
    row.refresh_from_db()
    return row


def _move(
    by: Principal, extension_id: UUID, target: Lifecycle, reason: str
) -> Extension:
    _check_reason(reason)
    row = get_extension(extension_id)
    LIFECYCLE_TRANSITIONS.check(row.lifecycle, target)
    held = Extension.objects.filter(id=row.id, lifecycle=row.lifecycle)
    if held.update(lifecycle=target) != 1:
        raise Conflict("Somebody else has just moved this extension.")
    _record(row, by, str(target), reason=reason, data={"before": row.lifecycle})
    row.refresh_from_db()
    return row


def _check_role(by: Principal, role: Role) -> None:
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("An agent never decides about extensions.")
    check_role(by, role, default_workspace())


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise Invalid(
            "Say why: the reason is kept.",
            fields=(FieldProblem("reason", "empty", "a sentence"),),
        )


def _record(
    row: Extension, by: Principal, verb: str, *, data: Json, reason: str = ""
) -> None:
    audit.record(
        type=f"extension.{verb}",
        actor=by.actor,
        subject=("extension", str(row.id)),
        reason=reason,
        data={"extension_id": row.ext_id, **data},
    )
