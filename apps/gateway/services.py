"""The verbs of the gateway. `call` is the one way to an effect."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection, transaction

from apps.access.models import Membership, Principal, PrincipalKind, Role, Workspace
from apps.access.policies import check_role
from apps.access.queries import default_workspace
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, Denied, Invalid, NotFound

from .engine import ledger, locks, pipeline
from .models import (
    APPROVAL_TRANSITIONS,
    ApprovalRequest,
    ApprovalState,
    Budget,
    Call,
    CallState,
    Grant,
    Halt,
    Setting,
    Strictness,
)
from .ports import CallKind, CallRequest, decided
from .ports import Outcome as Outcome

#: Grants that a fresh install has; visible and revocable like any other.
SHIPPED_GRANTS = (
    (CallKind.MODEL, ["provider:*"], "model calls to configured providers"),
    (CallKind.RECEIVE, ["*"], "receiving from configured channels"),
    (CallKind.MESSAGE, ["reply:*"], "replies into the conversation that asked"),
)


def call(request: CallRequest) -> Outcome:
    """Have one effect, through every stage, once.

    Writes: Call, audit events, budgets, approvals.
    Raises: Denied and its kin, ApprovalRequired, Invalid, UpstreamError,
    OutcomeUnknown.   Again: the same idempotency key replays the recorded output.
    Source: docs/decisions/0008-one-pipeline.md
    """
    return pipeline.run(request)


@transaction.atomic
def halt(*, by: Principal, scope: str, reason: str) -> Halt:
    """Stop everything ("all"), or one lane, agent, extension, provider or run.

    Holds before the next effect starts anywhere.  Again: returns the active halt.
    """
    _check_operator(by)
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
    _check_operator(by)
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
def decide_approval(
    *, by: Principal, approval_id: UUID, approve: bool, reason: str = ""
) -> ApprovalRequest:
    """Answer a question once; the second answer is shown the first.

    Writes: ApprovalRequest by one conditional UPDATE; wakes the waiting run.
    Raises: Denied for agents, below approver, or for one's own destructive act
    while somebody else could decide; Conflict when already decided.
    """
    asked: ApprovalRequest | None = (
        ApprovalRequest.objects.select_related("workspace", "call", "requester")
        .filter(id=approval_id)
        .first()
    )
    if asked is None:
        raise NotFound("There is no such approval.")
    alone = _check_may_decide(by, asked)
    target = ApprovalState.APPROVED if approve else ApprovalState.REJECTED
    pending = ApprovalRequest.objects.filter(
        id=approval_id, state=ApprovalState.PENDING, expires_at__gt=clock.now()
    )
    if not pending.update(
        state=target,
        decided_by=by,
        decided_at=clock.now(),
        decision_reason=reason,
        is_single_operator=alone,
    ):
        asked.refresh_from_db()
        raise Conflict(
            f"Already {asked.state} by {asked.decided_by or 'the clock'}.",
            state=asked.state,
        )
    APPROVAL_TRANSITIONS.check(ApprovalState.PENDING, target)
    audit.record(
        type="approval.decided",
        actor=by.actor,
        subject=("approval", str(approval_id)),
        workspace_id=asked.workspace_id,
        run_id=asked.call.run_id,
        trace_id=asked.call.trace_id,
        decision=str(target),
        reason=reason,
        data={"binding": asked.binding, "single_operator": alone},
    )
    _wake(asked.call.run_id)
    asked.refresh_from_db()
    return asked


@transaction.atomic
def settle_outcome(
    *, by: Principal, call_id: UUID, happened: bool, reason: str, again: bool = False
) -> Call:
    """Say of an effect in doubt whether it happened; its run goes on.

    What did not happen is not tried again, unless `again` says so.
    Raises: Invalid for what happened and is wanted again; Conflict.
    """
    _check_operator(by)
    if happened and again:
        raise Invalid("What happened is not repeated.")
    target = CallState.SUCCEEDED if happened else CallState.FAILED
    fields = {"result": "null"} if happened else {"error_code": ledger.LEFT_UNDONE}
    if again:
        fields = {"error_code": "to_be_repeated"}
    if not ledger.move(call_id, CallState.UNKNOWN, target, **fields):
        raise Conflict("This call is not in doubt.")
    row = Call.objects.get(id=call_id)
    ledger.release(call_id, spent=row.reserved_micros if happened else 0)
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
    _wake(row.run_id)
    return row


@dataclass(frozen=True, slots=True)
class NewGrant:
    """What a grant would allow, to whom and until when."""

    kind: CallKind
    capabilities: tuple[str, ...]
    reason: str
    workspace: Workspace | None = None
    principal: Principal | None = None
    expires_at: datetime | None = None


@transaction.atomic
def make_grant(*, by: Principal, new: NewGrant) -> Grant:
    """Allow something for a while. Raises: RoleRequired below approver."""
    check_role(by, Role.APPROVER, new.workspace or default_workspace())
    row = Grant.objects.create(
        kind=new.kind,
        capabilities=list(new.capabilities),
        reason=new.reason,
        workspace=new.workspace,
        principal=new.principal,
        expires_at=new.expires_at,
        granted_by=by.label,
    )
    _record_grant(row, by, "grant.made")
    return row


@transaction.atomic
def revoke_grant(*, by: Principal, grant_id: UUID) -> None:
    """End a grant. Again: does nothing."""
    _check_operator(by)
    row = Grant.objects.filter(id=grant_id).first()
    if row is None:
        raise NotFound("There is no such grant.")
    live = Grant.objects.filter(id=grant_id, revoked_at__isnull=True)
    if live.update(revoked_at=clock.now()):
        _record_grant(row, by, "grant.revoked")


@transaction.atomic
def install_shipped_grants(*, by: Principal) -> None:
    """Make the standing grants of a fresh install. Again: adds what is missing;
    a revoked one stays revoked."""
    for kind, capabilities, reason in SHIPPED_GRANTS:
        if not Grant.objects.filter(is_shipped=True, kind=kind).exists():
            row = Grant.objects.create(
                kind=kind,
                capabilities=capabilities,
                reason=reason,
                is_shipped=True,
                granted_by=by.label,
            )
            _record_grant(row, by, "grant.made")


@transaction.atomic
def set_strictness(*, by: Principal, strictness: Strictness, reason: str) -> Setting:
    """Change how strictly contracts are held. It relaxes nothing else."""
    check_role(by, Role.ADMIN, default_workspace())
    row = Setting.load()
    before = row.strictness
    Setting.objects.filter(id=row.id).update(strictness=strictness)
    audit.record(
        type="setting.changed",
        actor=by.actor,
        subject=("setting", "strictness"),
        reason=reason,
        data={"before": before, "after": str(strictness)},
    )
    row.refresh_from_db()
    return row


@transaction.atomic
def save_budget(*, by: Principal, budget: Budget) -> Budget:
    """Set a limit. Raises: RoleRequired below approver."""
    check_role(by, Role.APPROVER, budget.workspace or default_workspace())
    budget.save()
    audit.record(
        type="budget.set",
        actor=by.actor,
        subject=("budget", str(budget.id)),
        workspace_id=budget.workspace_id,
        data={
            "scope": budget.scope,
            "key": budget.scope_key,
            "limit": str(budget.limit),
            "unit": budget.unit,
            "window": budget.window,
            "on_exceed": budget.on_exceed,
        },
    )
    return budget


def _check_operator(by: Principal) -> None:
    if by.kind == PrincipalKind.AGENT:
        raise Denied("An agent never stops, resumes or settles.")
    if by.kind == PrincipalKind.HUMAN:
        check_role(by, Role.OPERATOR, default_workspace())


def _check_may_decide(by: Principal, asked: ApprovalRequest) -> bool:
    """Refuse who may not decide. Returns whether one person decides alone."""
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("Agents never approve.")
    check_role(by, Role.APPROVER, asked.workspace)
    approvers = Membership.objects.filter(
        workspace=asked.workspace, role__in=[Role.APPROVER, Role.ADMIN]
    )
    alone = approvers.count() < 2
    own = asked.requester_id == by.id or asked.requester.user_id == by.user_id
    destructive = "destructive" in asked.call.facts.get("asks", [])
    if own and by.user_id is not None and destructive and not alone:
        raise Denied("Somebody else decides what you asked to destroy.")
    return alone and own


def _wake(run_id: UUID | None) -> None:
    if run_id is not None:
        for wake in decided.all():
            wake(run_id)


def _record_grant(row: Grant, by: Principal, type: str) -> None:
    audit.record(
        type=type,
        actor=by.actor,
        subject=("grant", str(row.id)),
        workspace_id=row.workspace_id,
        reason=row.reason,
        data={"kind": str(row.kind), "capabilities": list(row.capabilities)},
    )
