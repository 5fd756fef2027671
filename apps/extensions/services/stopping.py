"""The kill switch: refuse the next call, end what runs, certify what was seen.

1. One transaction holds every start of the extension and writes the refusal.
2. Every runtime of this host ends its processes and sessions.
3. Calls that had started get a few seconds to settle.
4. A certificate says of each turn `confirmed` or `unconfirmed`; it is signed and
   enters the audit chain.
"""

import base64
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, Role
from apps.audit import services as audit
from apps.common import canonical, clock, failpoints
from apps.common.errors import PolarError
from apps.extensions import ports, queries
from apps.extensions.models import (
    LIFECYCLE_TRANSITIONS,
    TRUST_TRANSITIONS,
    Certificate,
    Extension,
    Lifecycle,
    Review,
    Trust,
)
from apps.extensions.queries import get_extension
from apps.gateway import queries as gateway_queries
from apps.gateway import services as gateway
from apps.gateway.models import Call, CallState
from apps.gateway.ports import Json

from .guarded import check_may, check_reason, decide, move, record

#: How long a started call may take to come back after the stop. Units: seconds.
SETTLE_SECONDS = 5.0
DISABLE, REVOKE = "disable", "revoke"
_OVER = (CallState.SUCCEEDED, CallState.FAILED, CallState.DENIED)


@dataclass(frozen=True, slots=True)
class _Stop:
    by: Principal
    operation: str
    reason: str
    preview: queries.BlastRadius


def disable_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Stop an extension for now. Raises: RoleRequired; InvalidTransition."""
    stop_extension(by=by, extension_id=extension_id, operation=DISABLE, reason=reason)
    return get_extension(extension_id)


def revoke_extension(*, by: Principal, extension_id: UUID, reason: str) -> Extension:
    """Block an extension at once; only a new review lets it back.

    Raises: RoleRequired below operator; Invalid without a reason.
    Again: stays blocked, for the first reason.
    """
    stop_extension(by=by, extension_id=extension_id, operation=REVOKE, reason=reason)
    return get_extension(extension_id)


def stop_extension(
    *, by: Principal, extension_id: UUID, operation: str, reason: str
) -> Certificate:
    """Disable or revoke, end what runs, and certify it.

    Writes: Extension in the transaction that holds its starts; Certificate, signed.
    Raises: RoleRequired below operator; Invalid without a reason; InvalidTransition.
    Again: revoking what is blocked ends what still runs and certifies that.
    """
    check_may(by, Role.OPERATOR)
    check_reason(reason)
    row = get_extension(extension_id)
    if operation == DISABLE:
        LIFECYCLE_TRANSITIONS.check(row.lifecycle, Lifecycle.DISABLED)
    preview = queries.blast_radius(row)
    stop = _Stop(by, operation, reason.strip(), preview)
    arguments = {"extensionId": row.ext_id, "reason": stop.reason}
    row = decide(by, operation, arguments, lambda: _refuse_next(row, stop))
    failpoints.reach("extension.stopped.before_certificate")
    in_flight = list(gateway_queries.calls_in_flight(row.ext_id))
    began = clock.monotonic()
    terminations = _end_processes(row)
    calls = _settled(in_flight)
    return _certify(row, stop, terminations, calls, clock.monotonic() - began)


@transaction.atomic
def _refuse_next(row: Extension, stop: _Stop) -> Extension:
    gateway.hold_starts(f"extension:{row.ext_id}")
    fresh = get_extension(row.id)
    if stop.operation == DISABLE:
        LIFECYCLE_TRANSITIONS.check(fresh.lifecycle, Lifecycle.DISABLED)
        move(fresh, lifecycle=Lifecycle.DISABLED)
        facts = {"before": fresh.lifecycle}
        record(fresh, stop.by, "disabled", reason=stop.reason, data=facts)
        return fresh
    if fresh.trust == Trust.BLOCKED:
        return fresh
    TRUST_TRANSITIONS.check(fresh.trust, Trust.BLOCKED)
    move(
        fresh,
        trust=Trust.BLOCKED,
        trust_reason=stop.reason,
        trust_by=stop.by.label,
        trust_at=clock.now(),
        reviewed_hash="",
    )
    # An earlier approval of this form is over: a rollback may not revive it.
    Review.objects.create(
        extension=fresh,
        definition_hash=fresh.definition_hash,
        is_approved=False,
        trust=Trust.BLOCKED,
        reason=stop.reason,
        reviewer=stop.by.label,
    )
    record(fresh, stop.by, "revoked", reason=stop.reason, data={"before": fresh.trust})
    return fresh


def _end_processes(row: Extension) -> list[ports.Termination]:
    """Ask every runtime; one that fails to stop something says so."""
    found: list[ports.Termination] = []
    for runtime in ports.runtimes():
        try:
            found += runtime.stop(row.id)
        except (PolarError, OSError) as error:
            name = type(runtime).__name__
            found.append(
                ports.Termination(what=name, is_confirmed=False, detail=str(error))
            )
    return found


def _settled(started: list[Call]) -> list[Call]:
    """Give started calls their seconds, then read how each one stands."""
    ids = [call.id for call in started]
    deadline = clock.monotonic() + SETTLE_SECONDS
    while ids:
        found = list(Call.objects.filter(id__in=ids).order_by("id"))
        waiting = [call for call in found if call.state == CallState.EXECUTING]
        if not waiting or clock.monotonic() >= deadline:
            return found
        clock.sleep(0.1)
    return []


def _certify(
    row: Extension,
    stop: _Stop,
    terminations: list[ports.Termination],
    calls: list[Call],
    seconds: float,
) -> Certificate:
    turns = [_turn(call) for call in calls]
    processes = [_process(each) for each in terminations]
    unconfirmed = sum(each["state"] == "unconfirmed" for each in (*turns, *processes))
    body = canonical.dumps(
        {
            "type": "polar.extension.termination/1",
            "extensionId": row.ext_id,
            "definitionHash": row.definition_hash,
            "operation": stop.operation,
            "by": stop.by.label,
            "reason": stop.reason,
            "at": clock.now().isoformat(),
            "milliseconds": round(seconds * 1000),
            "preview": stop.preview.as_json(),
            "turns": turns,
            "processes": processes,
            "unconfirmed": unconfirmed,
        }
    )
    return _keep(row, stop.by, body, unconfirmed)


@transaction.atomic
def _keep(row: Extension, by: Principal, body: str, unconfirmed: int) -> Certificate:
    found = Certificate.objects.create(
        extension=row,
        body=body,
        digest=canonical.digest(body),
        signature=base64.b64encode(audit.sign(body.encode())).decode(),
        signer=audit.public_key(),
        unconfirmed=unconfirmed,
    )
    facts = {"certificate": found.digest, "unconfirmed": unconfirmed}
    record(row, by, "stopped", data=facts)
    return found


def _turn(call: Call) -> Json:
    is_over = call.state in _OVER
    return {
        "turnId": str(call.turn_id or ""),
        "runId": str(call.run_id or ""),
        "callId": str(call.id),
        "traceId": call.trace_id,
        "capability": call.capability,
        "state": "confirmed" if is_over else "unconfirmed",
        "detail": _detail(call),
    }


def _detail(call: Call) -> str:
    if call.state == CallState.EXECUTING:
        return "started before the stop and has not come back"
    if call.state == CallState.UNKNOWN:
        return "sent before the stop, never answered; somebody has to settle it"
    return f"ended as {call.state}"


def _process(each: ports.Termination) -> Json:
    return {
        "what": each.what,
        "callId": str(each.call_id or ""),
        "turnId": str(each.turn_id or ""),
        "state": "confirmed" if each.is_confirmed else "unconfirmed",
        "detail": each.detail,
        "milliseconds": round(each.seconds * 1000),
    }
