"""Halting, approving, granting, explaining and trying out over the API."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Status

from apps.access.policies import caller
from apps.access.queries import default_workspace
from apps.common import clock
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs
from apps.gateway import queries, services
from apps.gateway.engine import desk, purse
from apps.gateway.models import Grant, Halt
from apps.gateway.schemas import (
    ApprovalOut,
    ApprovalPage,
    BudgetIn,
    BudgetOut,
    BudgetPage,
    DecisionIn,
    ExplanationOut,
    GrantIn,
    GrantOut,
    GrantPage,
    HaltIn,
    HaltOut,
    ResumeIn,
    UnblockIn,
    WhatIfIn,
    WhatIfOut,
    approval_out,
    budget_out,
    explanation_out,
    what_if_out,
)

router = Router(tags=["gateway"], by_alias=True)


@router.get(
    "/halts", response={200: list[HaltOut]} | PROBLEMS, operation_id="listHalts"
)
@needs("halt:read")
def list_halts(request: HttpRequest) -> list[Halt]:
    return list(queries.halts())


@router.post("/halt", response={200: HaltOut} | PROBLEMS, operation_id="halt")
@needs("halt:write")
def halt(request: HttpRequest, body: HaltIn) -> Halt:
    auth = caller(request)
    return services.halt(by=auth.principal, scope=body.scope, reason=body.reason)


@router.post("/resume", response={204: None} | PROBLEMS, operation_id="resume")
@needs("halt:write")
def resume(request: HttpRequest, body: ResumeIn) -> Status[None]:
    auth = caller(request)
    services.resume(by=auth.principal, halt_id=body.halt_id, reason=body.reason)
    return Status(204, None)


@router.get(
    "/approvals",
    response={200: ApprovalPage} | PROBLEMS,
    operation_id="listApprovals",
)
@needs("approvals:read")
def list_approvals(
    request: HttpRequest, cursor: Query[Cursor], state: str = "pending"
) -> dict[str, Any]:
    auth = caller(request)
    found = queries.approvals(auth.principal)
    if state != "all":
        found = found.filter(state=state)
    page, following = cut(found, cursor)
    return {"items": [approval_out(each) for each in page], "next_cursor": following}


@router.get(
    "/approvals/{approval_id}",
    response={200: ApprovalOut} | PROBLEMS,
    operation_id="getApproval",
)
@needs("approvals:read")
def get_approval(request: HttpRequest, approval_id: UUID) -> dict[str, Any]:
    auth = caller(request)
    return approval_out(queries.get_approval(approval_id, auth.principal))


@router.post(
    "/approvals/{approval_id}",
    response={200: ApprovalOut} | PROBLEMS,
    operation_id="decideApproval",
)
@needs("approvals:write")
def decide_approval(
    request: HttpRequest, approval_id: UUID, body: DecisionIn
) -> dict[str, Any]:
    auth = caller(request)
    asked = services.decide_approval(
        by=auth.principal,
        approval_id=approval_id,
        approve=body.approve,
        reason=body.reason,
        grant_hours=body.grant_hours,
    )
    return approval_out(asked)


@router.get("/grants", response={200: GrantPage} | PROBLEMS, operation_id="listGrants")
@needs("grants:read")
def list_grants(
    request: HttpRequest, cursor: Query[Cursor], revoked: bool = False
) -> dict[str, Any]:
    auth = caller(request)
    found = queries.grants(auth.principal)
    if not revoked:
        found = found.filter(revoked_at__isnull=True)
    page, following = cut(found, cursor)
    return {"items": page, "next_cursor": following}


@router.post("/grants", response={201: GrantOut} | PROBLEMS, operation_id="createGrant")
@needs("grants:write", "approver")
def create_grant(request: HttpRequest, body: GrantIn) -> Status[Grant]:
    auth = caller(request)
    made = services.make_grant(
        by=auth.principal,
        new=services.NewGrant(
            kind=body.kind,
            capabilities=tuple(body.capabilities),
            reason=body.reason,
            workspace=default_workspace(),
            expires_at=clock.now() + timedelta(hours=body.hours),
            constraints=dict(body.constraints),
        ),
    )
    return Status(201, made)


@router.delete(
    "/grants/{grant_id}", response={204: None} | PROBLEMS, operation_id="revokeGrant"
)
@needs("grants:write")
def revoke_grant(
    request: HttpRequest, grant_id: UUID, reason: str = ""
) -> Status[None]:
    auth = caller(request)
    services.revoke_grant(by=auth.principal, grant_id=grant_id, reason=reason[:300])
    return Status(204, None)


@router.post(
    "/policy/what-if", response={200: WhatIfOut} | PROBLEMS, operation_id="whatIf"
)
@needs("grants:read")
def what_if(request: HttpRequest, body: WhatIfIn) -> dict[str, Any]:
    """Replay one change of policy over recorded calls. Saves nothing."""
    auth = caller(request)
    report = services.what_if(by=auth.principal, wanted=body.as_wanted())
    return what_if_out(report)


@router.get(
    "/traces/{trace_id}/explain",
    response={200: list[ExplanationOut]} | PROBLEMS,
    operation_id="explainDecision",
)
@needs("runs:read")
def explain_decision(request: HttpRequest, trace_id: str) -> list[dict[str, Any]]:
    auth = caller(request)
    found = desk.explanations(trace_id, auth.principal)
    return [explanation_out(each) for each in found]


@router.get(
    "/budgets", response={200: BudgetPage} | PROBLEMS, operation_id="listBudgets"
)
@needs("budgets:read")
def list_budgets(
    request: HttpRequest, cursor: Query[Cursor], archived: bool = False
) -> dict[str, Any]:
    auth = caller(request)
    found = queries.budgets(auth.principal)
    if not archived:
        found = found.filter(is_active=True)
    page, following = cut(found, cursor)
    shown = [budget_out(each) for each in purse.purses(page)]
    return {"items": shown, "next_cursor": following}


@router.post(
    "/budgets", response={200: BudgetOut} | PROBLEMS, operation_id="upsertBudget"
)
@needs("budgets:write")
def upsert_budget(request: HttpRequest, body: BudgetIn) -> dict[str, Any]:
    auth = caller(request)
    saved = services.save_budget(
        by=auth.principal,
        wanted=body.as_wanted(),
        budget_id=body.budget_id,
        expected_version=body.expected_version,
    )
    return budget_out(purse.purses([saved])[0])


@router.delete(
    "/budgets/{budget_id}",
    response={204: None} | PROBLEMS,
    operation_id="archiveBudget",
)
@needs("budgets:write")
def archive_budget(
    request: HttpRequest, budget_id: UUID, expected_version: int
) -> Status[None]:
    auth = caller(request)
    services.archive_budget(
        by=auth.principal, budget_id=budget_id, expected_version=expected_version
    )
    return Status(204, None)


@router.post(
    "/budgets/{budget_id}/unblock",
    response={200: BudgetOut} | PROBLEMS,
    operation_id="unblockBudget",
)
@needs("budgets:write")
def unblock_budget(
    request: HttpRequest, budget_id: UUID, body: UnblockIn
) -> dict[str, Any]:
    auth = caller(request)
    row = services.unblock_budget(
        by=auth.principal, budget_id=budget_id, reason=body.reason
    )
    return budget_out(purse.purses([row])[0])
