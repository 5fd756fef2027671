"""Halting, approving and explaining over the API."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Status

from apps.access.policies import caller
from apps.common.schemas import PROBLEMS
from apps.gateway import queries, services
from apps.gateway.models import ApprovalRequest, Call, Halt
from apps.gateway.schemas import (
    ApprovalOut,
    DecisionIn,
    ExplanationOut,
    HaltIn,
    HaltOut,
    ResumeIn,
)

router = Router(tags=["gateway"], by_alias=True)


@router.get(
    "/halts", response={200: list[HaltOut]} | PROBLEMS, operation_id="listHalts"
)
def list_halts(request: HttpRequest) -> list[Halt]:
    caller(request, "halt:read")
    return list(queries.halts())


@router.post("/halt", response={200: HaltOut} | PROBLEMS, operation_id="halt")
def halt(request: HttpRequest, body: HaltIn) -> Halt:
    auth = caller(request, "halt:write")
    return services.halt(by=auth.principal, scope=body.scope, reason=body.reason)


@router.post("/resume", response={204: None} | PROBLEMS, operation_id="resume")
def resume(request: HttpRequest, body: ResumeIn) -> Status[None]:
    auth = caller(request, "halt:write")
    services.resume(by=auth.principal, halt_id=body.halt_id, reason=body.reason)
    return Status(204, None)


@router.get(
    "/approvals",
    response={200: list[ApprovalOut]} | PROBLEMS,
    operation_id="listApprovals",
)
def list_approvals(request: HttpRequest) -> list[dict[str, Any]]:
    auth = caller(request, "approvals:read")
    found = queries.pending_approvals(auth.principal)[:500]
    return [_shown(asked) for asked in found]


@router.post(
    "/approvals/{approval_id}",
    response={200: ApprovalOut} | PROBLEMS,
    operation_id="decideApproval",
)
def decide_approval(
    request: HttpRequest, approval_id: UUID, body: DecisionIn
) -> dict[str, Any]:
    auth = caller(request, "approvals:write")
    asked = services.decide_approval(
        by=auth.principal,
        approval_id=approval_id,
        approve=body.approve,
        reason=body.reason,
    )
    return _shown(asked)


@router.get(
    "/traces/{trace_id}/explain",
    response={200: list[ExplanationOut]} | PROBLEMS,
    operation_id="explainDecision",
)
def explain_decision(request: HttpRequest, trace_id: str) -> list[dict[str, Any]]:
    auth = caller(request, "runs:read")
    calls = queries.calls_of_trace(trace_id, auth.principal)[:500]
    return [_explained(call) for call in calls]


def _shown(asked: ApprovalRequest) -> dict[str, Any]:
    call = asked.call
    return {
        "id": asked.id,
        "state": asked.state,
        "binding": asked.binding,
        "expires_at": asked.expires_at,
        "decided_at": asked.decided_at,
        "capability": call.capability,
        "arguments": call.arguments,
        "run_id": call.run_id,
        "trace_id": call.trace_id,
    }


def _explained(call: Call) -> dict[str, Any]:
    return {
        "call_id": call.id,
        "kind": call.kind,
        "capability": call.capability,
        "state": call.state,
        "stage": call.stage,
        "reason_code": call.reason_code,
        "error_code": call.error_code,
        "detail": call.error_detail,
        "facts": call.facts,
    }
