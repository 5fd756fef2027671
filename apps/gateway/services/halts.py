"""Stopping and resuming, and settling what is in doubt."""

from uuid import UUID

from django.db import connection, transaction

from apps.access.models import Principal
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, Invalid, NotFound
from apps.gateway import policies
from apps.gateway.engine import ledger, locks, meter
from apps.gateway.models import Call, CallState, Halt
from apps.gateway.ports import wake


@transaction.atomic
def halt(*, by: Principal, scope: str, reason: str) -> Halt:
    """Stop everything ("all"), or one lane, agent, extension, provider or run.

    Holds before the next effect starts anywhere.  Again: returns the active halt.
    """
    policies.check_operator(by)
    if not reason.strip():
        raise Invalid("Say why: the reason is shown to everybody who is stopped.")
    locks.exclude([scope])
    active = Halt.objects.active().filter(scope=scope).first()
    if active is not None:
        return active
    row = Halt.objects.create(scope=scope, reason=reason.strip(), set_by=by.label)
    audit.record(
        type="halt.set",
        actor=by.actor,
        subject=("halt", str(row.id)),
        reason=row.reason,
        data={"scope": scope},
    )
    return row


def hold_starts(scope: str) -> None:
    """Keep every effect under a halt scope from starting until this transaction
    ends, so that what it writes holds before the next start anywhere.

    Raises: RuntimeError outside a transaction.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("starts are held inside a transaction")
    locks.exclude([scope])


@transaction.atomic
def resume(*, by: Principal, halt_id: UUID, reason: str = "") -> None:
    """Lift a halt and wake the work that waited. Again: does nothing."""
    policies.check_operator(by)
    row = Halt.objects.filter(id=halt_id).first()
    if row is None:
        raise NotFound("There is no such halt.")
    lifted = Halt.objects.active().filter(id=halt_id)
    if lifted.update(lifted_at=clock.now(), lifted_by=by.label):
        audit.record(
            type="halt.lifted",
            actor=by.actor,
            subject=("halt", str(row.id)),
            reason=reason,
            data={"scope": row.scope},
        )


@transaction.atomic
def settle_outcome(
    *, by: Principal, call_id: UUID, happened: bool, reason: str, again: bool = False
) -> Call:
    """Say of an effect in doubt whether it happened; its run goes on.

    What did not happen is not tried again, unless `again` says so.
    Raises: Invalid for what happened and is wanted again; Conflict.
    """
    policies.check_operator(by)
    if happened and again:
        raise Invalid("What happened is not repeated.")
    target = CallState.SUCCEEDED if happened else CallState.FAILED
    fields = {"result": "null"} if happened else {"error_code": ledger.LEFT_UNDONE}
    if again:
        fields = {"error_code": "to_be_repeated"}
    if not ledger.move(call_id, CallState.UNKNOWN, target, **fields):
        raise Conflict("This call is not in doubt.")
    row = Call.objects.get(id=call_id)
    meter.release(call_id, spent=row.reserved_micros if happened else 0)
    audit.record(
        type="call.outcome_settled",
        actor=by.actor,
        subject=("call", str(call_id)),
        workspace_id=row.workspace_id,
        run_id=row.run_id,
        trace_id=row.trace_id,
        decision=str(target),
        reason=reason,
        data={"again": again},
    )
    wake(row.run_id)
    return row
