"""Reads of the ledger, halts, approvals and grants. Never writes."""

from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Prefetch, Q, QuerySet

from apps.access.models import Principal, PrincipalKind
from apps.common.errors import NotFound

from .models import (
    ApprovalMode,
    ApprovalQuerySet,
    ApprovalRequest,
    ApprovalState,
    Budget,
    Call,
    CallState,
    Grant,
    Halt,
    PlanStep,
)
from .ports import CallKind

#: How many alike approvals within a week make a grant worth suggesting.
ALIKE = 3
ALIKE_WITHIN = timedelta(days=7)


def halts() -> QuerySet[Halt]:
    """Return what is stopped now, oldest first."""
    return Halt.objects.active().order_by("created_at", "id")


def calls_of_trace(trace_id: str, principal: Principal) -> QuerySet[Call]:
    """Return a trace's calls in order, as far as the principal may see them."""
    mine: QuerySet[Call] = Call.objects.visible_to(principal)
    return mine.filter(trace_id=trace_id).order_by("id")


def calls_of_run(run_id: UUID, principal: Principal) -> QuerySet[Call]:
    """Return a run's calls in order, as far as the principal may see them."""
    mine: QuerySet[Call] = Call.objects.visible_to(principal)
    return mine.filter(run_id=run_id).order_by("id")


def approvals(principal: Principal) -> ApprovalQuerySet:
    """Return every question that the principal may see, with what is shown."""
    mine = ApprovalRequest.objects.visible_to(principal)
    steps = PlanStep.objects.order_by("position")
    return mine.select_related(
        "call", "requester", "decided_by", "workspace"
    ).prefetch_related(Prefetch("plan_steps", steps))


def pending_approvals(principal: Principal) -> QuerySet[ApprovalRequest]:
    """Return open questions that the principal may see, oldest first."""
    return approvals(principal).pending().order_by("id")


def questions_of_run(run_id: UUID, principal: Principal) -> QuerySet[ApprovalRequest]:
    """Return what a run and the runs below it still ask, oldest first."""
    below = Q(call__run_id=run_id) | Q(call__root_id=run_id)
    return pending_approvals(principal).filter(below)


def get_approval(approval_id: UUID, principal: Principal) -> ApprovalRequest:
    """Raises: NotFound."""
    found = approvals(principal).filter(id=approval_id).first()
    if found is None:
        raise NotFound("There is no such approval.")
    return found


def open_approvals() -> QuerySet[ApprovalRequest]:
    """Return every question that waits, of every workspace."""
    found: QuerySet[ApprovalRequest] = ApprovalRequest.objects.pending()
    return found.select_related("call").order_by("id")


def waiting_key(act: str, capability: str) -> str:
    """Return the key of the newest call that waits for a person and whose key
    begins with this act; "" when none does."""
    waiting = Call.objects.unfinished(CallState.AWAITING_APPROVAL).filter(
        capability=capability,
        idempotency_key__startswith=act,
    )
    return (
        waiting.order_by("-id").values_list("idempotency_key", flat=True).first() or ""
    )


def overdue_approvals(now: datetime) -> QuerySet[ApprovalRequest]:
    """Return what was not answered, or not used, in time."""
    found: QuerySet[ApprovalRequest] = ApprovalRequest.objects.open().filter(
        expires_at__lte=now
    )
    return found.select_related("call").order_by("expires_at", "id")


def due_to_start(now: datetime) -> QuerySet[ApprovalRequest]:
    """Return what starts by itself because its reject window has passed."""
    found: QuerySet[ApprovalRequest] = ApprovalRequest.objects.pending().filter(
        mode=ApprovalMode.AUTO_START,
        starts_at__lte=now,
        expires_at__gt=now,
    )
    return found.select_related("call").order_by("starts_at", "id")


def alike_approved(asked: ApprovalRequest, now: datetime) -> int:
    """Count how often the same was approved lately for the same requester; 0 when
    somebody rejected it as well, or when it is too seldom to suggest a grant."""
    same = ApprovalRequest.objects.filter(
        workspace_id=asked.workspace_id,
        requester_id=asked.requester_id,
        call__capability=asked.call.capability,
        call__agent=asked.call.agent,
        decided_at__gte=now - ALIKE_WITHIN,
    )
    states = list(same.values_list("state", flat=True)[:100])
    if ApprovalState.REJECTED in states or len(states) < ALIKE:
        return 0
    return len(states)


def grants(principal: Principal) -> QuerySet[Grant]:
    """Return the grants of the principal's workspaces and of the whole install."""
    mine: QuerySet[Grant] = Grant.objects.visible_to(principal)
    if principal.is_active and principal.kind == PrincipalKind.HUMAN:
        mine = mine | Grant.objects.filter(workspace__isnull=True)
    return mine.select_related("principal", "workspace").order_by("-id")


def calls_in_flight(extension_id: str) -> QuerySet[Call]:
    """Return an extension's calls that have started and not ended."""
    return (
        Call.objects.unfinished(CallState.EXECUTING)
        .filter(
            kind=CallKind.TOOL,
            capability__startswith=f"{extension_id}/",
        )
        .order_by("id")
    )


def grants_naming(extension_id: str) -> list[Grant]:
    """Return live grants that name this extension."""
    live = Grant.objects.filter(revoked_at__isnull=True, kind=CallKind.TOOL)
    return [
        grant
        for grant in live.order_by("id")
        if any(name.startswith(f"{extension_id}/") for name in grant.capabilities)
    ]


def budgets(principal: Principal) -> QuerySet[Budget]:
    """Return the budgets of the principal's workspaces and of the whole install."""
    mine: QuerySet[Budget] = Budget.objects.visible_to(principal)
    if principal.is_active and principal.kind == PrincipalKind.HUMAN:
        mine = mine | Budget.objects.filter(workspace__isnull=True)
    return mine.order_by("id")


def get_budget(budget_id: UUID, principal: Principal) -> Budget:
    """Raises: NotFound."""
    found = budgets(principal).filter(id=budget_id).first()
    if found is None:
        raise NotFound("There is no such budget.")
    return found


def approvals_of_calls(call_ids: list[UUID]) -> dict[UUID, ApprovalRequest]:
    """Return the newest question of each call."""
    found = ApprovalRequest.objects.filter(call_id__in=call_ids)
    rows = found.select_related("decided_by", "requester").order_by("id")
    return {asked.call_id: asked for asked in rows}
