"""Reads of the ledger, halts, approvals and grants. Never writes."""

from uuid import UUID

from django.db.models import QuerySet

from apps.access.models import Principal

from .models import ApprovalRequest, ApprovalState, Call, Halt


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


def pending_approvals(principal: Principal) -> QuerySet[ApprovalRequest]:
    """Return open questions that the principal may see, oldest first."""
    mine: QuerySet[ApprovalRequest] = ApprovalRequest.objects.visible_to(principal)
    return (
        mine.filter(state=ApprovalState.PENDING)
        .select_related("call", "requester")
        .order_by("id")
    )
