"""Shapes of halts, approvals and decisions in the API."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from apps.common.schemas import In, Out


class HaltIn(In):
    scope: str = Field("all", max_length=200)
    reason: str = Field(min_length=1, max_length=300)


class HaltOut(Out):
    id: UUID
    scope: str
    reason: str
    set_by: str
    created_at: datetime
    lifted_at: datetime | None


class ResumeIn(In):
    halt_id: UUID
    reason: str = Field("", max_length=300)


class ApprovalOut(Out):
    id: UUID
    state: str
    binding: str
    expires_at: datetime
    decided_at: datetime | None
    capability: str
    arguments: str
    run_id: UUID | None
    trace_id: str


class DecisionIn(In):
    approve: bool
    reason: str = Field("", max_length=300)


class ExplanationOut(Out):
    call_id: UUID
    kind: str
    capability: str
    state: str
    stage: str
    reason_code: str
    error_code: str
    detail: str
    facts: dict[str, Any]
