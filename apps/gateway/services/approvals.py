"""Answering what was asked: once, by somebody who may, before it expires."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from apps.access import services as access
from apps.access.models import Principal
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound, PolarError
from apps.gateway import policies, queries
from apps.gateway.engine import rules
from apps.gateway.models import (
    APPROVAL_TRANSITIONS,
    ApprovalMode,
    ApprovalRequest,
    ApprovalState,
)
from apps.gateway.ports import CallKind, wake

from .grants import NewGrant, make_grant

#: The longest that one answer may allow something. Units: hours.
LONGEST_GRANT_HOURS = 720
#: How many questions one sweep closes; the next sweep takes the rest.
SWEPT_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person says to a question. With `grant_hours` the same capability,
    agent and targets are allowed for that long."""

    approve: bool
    reason: str = ""
    grant_hours: int = 0


@transaction.atomic
def decide_approval(
    *,
    by: Principal,
    approval_id: UUID,
    approve: bool,
    reason: str = "",
    grant_hours: int = 0,
) -> ApprovalRequest:
    """Answer a question once; the second answer is shown the first.

    Writes: ApprovalRequest by one conditional UPDATE; wakes the waiting run.
    Raises: Denied for agents, below approver, or for one's own destructive act
    while somebody else could decide; Conflict when already decided or expired;
    Invalid for a grant that may not be.
    """
    asked = _find(approval_id)
    if asked is None or not _may_see(by, asked):
        raise NotFound("There is no such approval.")
    answer = Answer(approve, reason.strip()[:300], grant_hours)
    alone = policies.check_may_decide(by, asked)
    _check_grant(asked, answer)
    target = ApprovalState.APPROVED if approve else ApprovalState.REJECTED
    if not _decide(asked, by, answer, alone=alone):
        asked.refresh_from_db()
        raise Conflict(first_answer(asked), state=asked.state)
    _record(asked, by, target, answer.reason, alone=alone)
    if answer.grant_hours:
        _grant(asked, by, answer)
    wake(asked.call.run_id)
    asked.refresh_from_db()
    return asked


def decide_together(
    *, by: Principal, approval_ids: Sequence[UUID], approve: bool, reason: str = ""
) -> list[tuple[UUID, str]]:
    """Answer several questions alike, each on its own.

    Returns each id with "" or why it was not decided.
    """
    said: list[tuple[UUID, str]] = []
    for approval_id in approval_ids:
        try:
            decide_approval(
                by=by, approval_id=approval_id, approve=approve, reason=reason
            )
        except PolarError as error:
            said.append((approval_id, error.detail))
        else:
            said.append((approval_id, ""))
    return said


def first_answer(asked: ApprovalRequest) -> str:
    """Say how a question was already answered."""
    if asked.decided_by is None or asked.decided_at is None:
        return (
            f"Nobody answered in time: it expired at {asked.expires_at:%H:%M} UTC on "
            f"{asked.expires_at:%Y-%m-%d}."
        )
    was = "rejected" if asked.state == ApprovalState.REJECTED else "approved"
    why = f": {asked.decision_reason}" if asked.decision_reason else ""
    return (
        f"Already {was} by {asked.decided_by.label} at {asked.decided_at:%H:%M:%S} UTC"
        f"{why}. The first answer stands."
    )


def sweep_approvals() -> int:
    """Expire what nobody answered, and start what nobody rejected.

    Writes: ApprovalRequest by conditional UPDATE, one transaction each; wakes the
    runs.   Again: any number of processes may sweep at once.
    """
    now, swept = clock.now(), 0
    for asked in queries.overdue_approvals(now)[:SWEPT_AT_ONCE]:
        swept += _expire(asked)
    for asked in queries.due_to_start(now)[:SWEPT_AT_ONCE]:
        swept += _start_unrejected(asked)
    return swept


@transaction.atomic
def _expire(asked: ApprovalRequest) -> int:
    APPROVAL_TRANSITIONS.check(asked.state, ApprovalState.EXPIRED)
    still = ApprovalRequest.objects.filter(
        id=asked.id, state=asked.state, expires_at__lte=clock.now()
    )
    if not still.update(state=ApprovalState.EXPIRED):
        return 0
    audit.record(
        type="approval.expired",
        actor=access.system_principal().actor,
        subject=("approval", str(asked.id)),
        workspace_id=asked.workspace_id,
        run_id=asked.call.run_id,
        trace_id=asked.call.trace_id,
        decision=str(ApprovalState.EXPIRED),
        data={"binding": asked.binding, "was": str(asked.state)},
    )
    wake(asked.call.run_id)
    return 1


@transaction.atomic
def _start_unrejected(asked: ApprovalRequest) -> int:
    """The reject window passed. Whoever rejects at the same moment wins or
    loses by the same conditional UPDATE."""
    system = access.system_principal()
    answer = Answer(approve=True, reason="nobody rejected it in its window")
    if not _decide(asked, system, answer, alone=False):
        return 0
    _record(asked, system, ApprovalState.APPROVED, answer.reason, alone=False)
    wake(asked.call.run_id)
    return 1


def _decide(
    asked: ApprovalRequest, by: Principal, answer: Answer, *, alone: bool
) -> bool:
    target = ApprovalState.APPROVED if answer.approve else ApprovalState.REJECTED
    APPROVAL_TRANSITIONS.check(ApprovalState.PENDING, target)
    now = clock.now()
    pending = ApprovalRequest.objects.filter(
        id=asked.id, state=ApprovalState.PENDING, expires_at__gt=now
    )
    return bool(
        pending.update(
            state=target,
            decided_by=by,
            decided_at=now,
            decision_reason=answer.reason,
            is_single_operator=alone,
        )
    )


def _find(approval_id: UUID) -> ApprovalRequest | None:
    found: ApprovalRequest | None = (
        ApprovalRequest.objects.select_related(
            "workspace", "call", "requester", "decided_by"
        )
        .filter(id=approval_id)
        .first()
    )
    return found


def _may_see(by: Principal, asked: ApprovalRequest) -> bool:
    seen: bool = ApprovalRequest.objects.visible_to(by).filter(id=asked.id).exists()
    return seen


def _check_grant(asked: ApprovalRequest, answer: Answer) -> None:
    if not answer.grant_hours:
        return
    if not answer.approve:
        raise Invalid("What is rejected is not granted.")
    if not 1 <= answer.grant_hours <= LONGEST_GRANT_HOURS:
        raise Invalid(
            f"Grant it for 1 to {LONGEST_GRANT_HOURS} hours.",
            fields=(FieldProblem("grantHours", "out of range", "1 to 720"),),
        )
    if not answer.reason:
        raise Invalid(
            "Say why it is allowed for a while: the reason stands in the grant.",
            fields=(FieldProblem("reason", "empty", "why it is allowed"),),
        )
    asks = asked.call.facts.get("asks", [])
    if not rules.is_grantable(asks):
        raise Invalid(
            f"This needs its own approval every time: {', '.join(asks)}.",
            fields=(FieldProblem("grantHours", "not for this", "approve once"),),
        )


def _grant(asked: ApprovalRequest, by: Principal, answer: Answer) -> None:
    """Allow the same again: this requester, agent and targets, nothing wider."""
    call = asked.call
    constraints = {
        "agents": [rules.exactly(call.agent)] if call.agent else [],
        "targets": [rules.exactly(each) for each in call.facts.get("targets", [])],
    }
    make_grant(
        by=by,
        new=NewGrant(
            kind=CallKind(call.kind),
            capabilities=(rules.exactly(call.capability),),
            reason=answer.reason,
            workspace=asked.workspace,
            principal=asked.requester,
            expires_at=clock.now() + timedelta(hours=answer.grant_hours),
            constraints={name: found for name, found in constraints.items() if found},
        ),
    )


def _record(
    asked: ApprovalRequest,
    by: Principal,
    target: ApprovalState,
    reason: str,
    *,
    alone: bool,
) -> None:
    audit.record(
        type="approval.decided",
        actor=by.actor,
        subject=("approval", str(asked.id)),
        workspace_id=asked.workspace_id,
        run_id=asked.call.run_id,
        trace_id=asked.call.trace_id,
        decision=str(target),
        reason=reason,
        data={
            "binding": asked.binding,
            "single_operator": alone,
            "auto_start": asked.mode == ApprovalMode.AUTO_START,
        },
    )
