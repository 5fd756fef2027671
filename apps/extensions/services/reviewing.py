"""A person's verdict on exactly one form, and what happens when the form changes."""

from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction

from apps.access import services as access
from apps.access.models import Principal, Role
from apps.common import clock
from apps.common.errors import Conflict, FieldProblem, Invalid
from apps.extensions import ports
from apps.extensions.engine import definition, drafts
from apps.extensions.errors import PackageRefused
from apps.extensions.models import (
    TRUST_TRANSITIONS,
    Extension,
    ExtensionType,
    Lifecycle,
    Review,
    Trust,
)
from apps.extensions.queries import get_extension
from apps.gateway import services as gateway
from apps.gateway.ports import Json

from .guarded import check_may, check_reason, decide, keep_version, move, record


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a person decides about the form whose hash they were shown."""

    definition_hash: str
    approve: bool
    reason: str
    trust: str = Trust.SANDBOXED
    #: Missing risks by capability: {"riskLevel", "sideEffects", …, "reason"}.
    risks: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found instead of the reviewed form; `served` where it was asked."""

    part: str
    detail: str
    served: ports.Definition | None = None


def review_extension(
    *, by: Principal, extension_id: UUID, verdict: Verdict
) -> Extension:
    """Approve or reject exactly the form that was shown.

    Writes: risks that were missing, Review, trust; the reviewed hash.
    Raises: RoleRequired below approver; Conflict when the form is another by now;
    Invalid without a reason. Again: another review; the newest counts.
    """
    check_may(by, Role.APPROVER)
    check_reason(verdict.reason)
    row = get_extension(extension_id)
    _check_verdict(row, verdict)
    arguments = {
        "extensionId": row.ext_id,
        "definitionHash": verdict.definition_hash,
        "approve": verdict.approve,
        "trust": str(verdict.trust),
        "reason": verdict.reason,
    }
    return decide(by, "review", arguments, lambda: _judge(row, by, verdict))


@transaction.atomic
def supply_risk(
    *, by: Principal, extension_id: UUID, capability_id: str, risk: Json, reason: str
) -> Extension:
    """Say what a capability can do to the world, where its author did not.

    Writes: Capability, marked as the operator's word; a new form to review.
    Raises: RoleRequired below operator; Invalid for an impossible risk.
    """
    check_may(by, Role.OPERATOR)
    check_reason(reason)
    row = get_extension(extension_id)
    before = row.definition_hash
    _write_risk(row, by, capability_id, {**risk, "reason": reason})
    row.definition_hash = keep_version(row)
    held = Extension.objects.filter(id=row.id, definition_hash=before)
    if held.update(definition_hash=row.definition_hash) != 1:
        raise Conflict("This extension has just become another form; look again.")
    return row


def quarantine(*, row: Extension, seen: Seen) -> None:
    """Block what is not what was reviewed, and keep the new form to compare.

    Writes: trust `blocked`, reason `definition_changed`; the rows of the new form.
    Again: does nothing; the first finding stays.
    """
    system = access.system_principal()
    arguments = {"extensionId": row.ext_id, "part": seen.part, "found": seen.detail}
    decide(system, "quarantine", arguments, lambda: _block(row, system, seen))


@transaction.atomic
def _block(row: Extension, system: Principal, seen: Seen) -> Extension:
    gateway.hold_starts(f"extension:{row.ext_id}")
    fresh = get_extension(row.id)
    if fresh.trust == Trust.BLOCKED or fresh.definition_hash != row.definition_hash:
        return fresh
    found, problem = fresh.definition_hash, seen.detail
    if seen.served is not None:
        found, problem = _take_served(fresh, seen)
    TRUST_TRANSITIONS.check(row.trust, Trust.BLOCKED)
    Extension.objects.filter(id=fresh.id).update(
        trust=Trust.BLOCKED,
        trust_reason=f"definition_changed: {problem}"[:300],
        trust_by=system.label,
        trust_at=clock.now(),
        definition_hash=found,
        reviewed_hash="",
        parts=fresh.parts,
    )
    facts = {"before": row.definition_hash, "after": found, "part": seen.part}
    record(fresh, system, "quarantined", reason=problem, data=facts)
    return fresh


def _take_served(row: Extension, seen: Seen) -> tuple[str, str]:
    """Make the rows say what is served now, so that a person can review it."""
    assert seen.served is not None
    manifest = definition.manifest_of(row)
    try:
        manifest = definition.with_served(manifest, seen.part, seen.served)
    except PackageRefused as refused:
        return row.definition_hash, f"{seen.detail} {refused.detail}"
    definition.write(row, manifest)
    return keep_version(row), seen.detail


def _check_verdict(row: Extension, verdict: Verdict) -> None:
    if verdict.definition_hash != row.definition_hash or not row.definition_hash:
        raise Conflict(
            f"{row.ext_id} is not the form that you were shown; look at it again.",
            shown=verdict.definition_hash,
            definition_hash=row.definition_hash,
        )
    if row.lifecycle in (Lifecycle.REMOVED, Lifecycle.PENDING_INSTALL):
        raise Conflict(f"{row.ext_id} is {row.lifecycle}.")
    allowed = [Trust.SANDBOXED, Trust.REVIEWED, Trust.TRUSTED]
    if verdict.approve and verdict.trust not in allowed:
        raise Invalid(
            "A review approves for one trust level.",
            fields=(
                FieldProblem("trust", str(verdict.trust)[:40], " | ".join(allowed)),
            ),
        )

    if verdict.approve and verdict.trust == Trust.SANDBOXED and _is_remote(row):
        raise Invalid(
            f"{row.ext_id} is reached over the network; sandboxed has none.",
            fields=(FieldProblem("trust", "sandboxed", "reviewed | trusted"),),
        )


def _is_remote(row: Extension) -> bool:
    return any(part["transport"] == ports.Transport.HTTP for part in row.parts)


@transaction.atomic
def _judge(row: Extension, by: Principal, verdict: Verdict) -> Extension:
    gateway.hold_starts(f"extension:{row.ext_id}")
    for name, risk in verdict.risks.items():
        _write_risk(row, by, name, risk)
    found = keep_version(row) if verdict.risks else row.definition_hash
    target = Trust(verdict.trust) if verdict.approve else Trust.BLOCKED
    if target != row.trust:
        TRUST_TRANSITIONS.check(row.trust, target)
    Review.objects.create(
        extension=row,
        definition_hash=found,
        is_approved=verdict.approve,
        trust=target,
        reason=verdict.reason.strip(),
        reviewer=by.label,
    )
    move(
        row,
        trust=target,
        trust_reason=verdict.reason.strip(),
        trust_by=by.label,
        trust_at=clock.now(),
        definition_hash=found,
        reviewed_hash=found if verdict.approve else "",
    )
    facts = {
        "definition_hash": found,
        "trust": str(target),
        "shown": row.definition_hash,
    }
    verb = "reviewed" if verdict.approve else "rejected"
    record(row, by, verb, reason=verdict.reason, data=facts)
    return row


def _write_risk(row: Extension, by: Principal, capability_id: str, risk: Json) -> None:
    reason = str(risk.get("reason") or "")
    check_reason(reason)
    said = {key: risk[key] for key in drafts.RISK_SCHEMA if key in risk}
    schema = {
        "type": "object",
        "properties": drafts.RISK_SCHEMA,
        "required": list(drafts.RISKS),
    }
    drafts.check(said, schema, "risk")
    one = row.capabilities.filter(capability_id=capability_id, is_current=True).first()
    if one is None or row.type == ExtensionType.PLUGIN and not row.parts:
        raise Invalid(
            f"{row.ext_id} has no capability {capability_id[:80]!r} to say this of.",
            fields=(FieldProblem("capabilityId", "unknown", "one of its own"),),
        )
    row.capabilities.filter(id=one.id).update(
        risk_level=said["riskLevel"],
        side_effects=said["sideEffects"],
        data_egress=said["dataEgress"],
        bulk_threshold=said.get("bulkThreshold", one.bulk_threshold),
        effect_class=drafts.effect_class(said["riskLevel"]),
        risk_reason=reason.strip(),
        risk_by=by.label,
    )
    facts = {
        "capability_id": capability_id,
        "before": one.risk.as_dict(),
        "after": said,
    }
    record(row, by, "risk_supplied", reason=reason, data=facts)
