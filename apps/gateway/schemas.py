"""Shapes of halts, approvals and decisions in the API."""

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field, ValidationError

from apps.common.errors import FieldProblem, Invalid
from apps.common.schemas import In, Out

from .engine.explaining import Explanation
from .engine.purse import Purse
from .engine.whatif import Report
from .models import ApprovalRequest
from .ports import CallKind
from .services import BudgetWanted, Wanted

RISK_WORDS = ("riskLevel", "sideEffects", "dataEgress")


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


class PlanStepOut(Out):
    position: int
    capability: str
    arguments: str
    used_call_id: UUID | None


class ApprovalOut(Out):
    id: UUID
    state: str
    mode: str
    binding: str
    created_at: datetime
    expires_at: datetime
    starts_at: datetime | None
    requester: str
    decided_at: datetime | None
    decided_by: str
    decision_reason: str
    is_single_operator: bool
    capability: str
    arguments: str
    asks: list[str]
    risk: dict[str, Any]
    labels: list[str]
    targets: list[str]
    preview: dict[str, Any]
    plan: list[PlanStepOut]
    agent: str
    run_id: UUID | None
    trace_id: str


class ApprovalPage(Out):
    items: list[ApprovalOut]
    next_cursor: str


class DecisionIn(In):
    approve: bool
    reason: str = Field("", max_length=300)
    grant_hours: int = Field(0, ge=0, le=720)


class GrantIn(In):
    kind: CallKind = CallKind.TOOL
    capabilities: list[str] = Field(min_length=1, max_length=100)
    constraints: dict[str, list[str]] = Field(default_factory=dict)
    reason: str = Field(min_length=1, max_length=300)
    hours: int = Field(ge=1, le=8760)


class GrantOut(Out):
    id: UUID
    kind: str
    capabilities: list[str]
    constraints: dict[str, Any]
    reason: str
    is_shipped: bool
    granted_by: str
    principal_id: UUID | None
    workspace_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class GrantPage(Out):
    items: list[GrantOut]
    next_cursor: str


class StageOut(Out):
    stage: str
    verdict: str
    outcome: str


class ExplanationOut(Out):
    call_id: UUID
    kind: str
    capability: str
    state: str
    stage: str
    reason_code: str
    error_code: str
    rule: str
    would_allow: str
    stages: list[StageOut]
    approval_id: UUID | None
    facts: dict[str, Any]


class WhatIfIn(In):
    """One change, not saved. Fill one of: capabilities (a grant added),
    grantRemoved, strictness, riskOf with risk, budgetId with limit."""

    hours: int = Field(168, ge=1, le=744)
    kind: str = Field("tool", max_length=16)
    capabilities: list[str] = Field(default_factory=list, max_length=100)
    constraints: dict[str, list[str]] = Field(default_factory=dict)
    grant_removed: UUID | None = None
    strictness: str = ""
    risk_of: str = Field("", max_length=200)
    risk: dict[str, str] = Field(default_factory=dict)
    budget_id: UUID | None = None
    limit: int = 0

    def as_wanted(self) -> Wanted:
        words = self.model_dump()
        return Wanted(**{**words, "capabilities": tuple(self.capabilities)})

    @classmethod
    def from_words(cls, words: dict[str, str]) -> "WhatIfIn":
        """Read the flat words of the page or the command. Raises: Invalid."""
        names = {
            "grant": ("kind", "capabilities"),
            "revoke": ("grant_removed",),
            "strictness": ("strictness",),
            "risk": ("risk_of",),
            "budget": ("budget_id", "limit"),
        }.get(words.get("change", ""), ())
        said: dict[str, Any] = {n: words[n] for n in names if words.get(n)}
        if "capabilities" in said:
            said["capabilities"] = _listed(words["capabilities"])
            narrowed = {n: _listed(words.get(n, "")) for n in ("agents", "targets")}
            said["constraints"] = {n: each for n, each in narrowed.items() if each}
        if "risk_of" in said:
            said["risk"] = {n: words[n] for n in RISK_WORDS if words.get(n)}
        if words.get("hours"):
            said["hours"] = words["hours"]
        try:
            return cls(**said)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(each) for each in first["loc"])
            raise Invalid(
                f"{path}: {first['msg']}", fields=(FieldProblem(path, first["msg"]),)
            ) from None


class ChangedOut(Out):
    call_id: UUID
    trace_id: str
    capability: str
    before: str
    after: str
    why: str


class WhatIfOut(Out):
    since: datetime
    hours: float
    calls: int
    is_cut: bool
    before: dict[str, int]
    after: dict[str, int]
    cannot_tell: int
    approvals_per_hour_before: float
    approvals_per_hour_after: float
    micros_before: int
    micros_after: int
    changed_count: int
    changed: list[ChangedOut]


def what_if_out(report: Report) -> dict[str, Any]:
    """Put a report into the shape of the API and of `--json`."""
    return {
        "since": report.since,
        "hours": report.hours,
        "calls": report.calls,
        "is_cut": report.is_cut,
        "before": dict(report.before),
        "after": dict(report.after),
        "cannot_tell": report.cannot_tell,
        "approvals_per_hour_before": round(report.asks_per_hour_before, 3),
        "approvals_per_hour_after": round(report.asks_per_hour_after, 3),
        "micros_before": report.micros_before,
        "micros_after": report.micros_after,
        "changed_count": report.changed_count,
        "changed": [
            {
                "call_id": each.call.id,
                "trace_id": each.call.trace_id,
                "capability": each.call.capability,
                "before": each.before,
                "after": each.after,
                "why": each.why,
            }
            for each in report.changed
        ],
    }


def approval_out(asked: ApprovalRequest) -> dict[str, Any]:
    """Put a question into the shape of the API and of `--json`."""
    call, facts = asked.call, asked.call.facts
    kept = (
        "id state mode binding created_at expires_at starts_at decided_at"
        " decision_reason is_single_operator preview"
    )
    return {name: getattr(asked, name) for name in kept.split()} | {
        "requester": asked.requester.label,
        "decided_by": asked.decided_by.label if asked.decided_by else "",
        "capability": call.capability,
        "arguments": call.arguments,
        "asks": facts.get("asks", []),
        "risk": facts.get("risk", {}),
        "labels": facts.get("labels", []),
        "targets": facts.get("targets", []),
        "plan": list(asked.plan_steps.order_by("position")),
        "agent": call.agent,
        "run_id": call.run_id,
        "trace_id": call.trace_id,
    }


def explanation_out(said: Explanation) -> dict[str, Any]:
    """Put an explanation into the shape of the API and of `--json`."""
    call = said.call
    kept = "kind capability state stage reason_code error_code facts"
    return {name: getattr(call, name) for name in kept.split()} | {
        "call_id": call.id,
        "rule": said.rule,
        "would_allow": said.would_allow,
        "stages": [asdict(each) for each in said.stages],
        "approval_id": said.approval.id if said.approval else None,
    }


def _listed(text: str) -> list[str]:
    return [each.strip().removeprefix("@") for each in text.split(",") if each.strip()]


class BudgetIn(In):
    """A limit. `limit` is in micro-USD, tokens, calls or turns, as `unit` says; with
    `budgetId` and `expectedVersion` it changes one."""

    scope: str = Field(max_length=16)
    key: str = Field("", max_length=160)
    unit: str = Field("micros", max_length=8)
    limit: int
    window: str = Field("day", max_length=8)
    is_rolling: bool = False
    timezone: str = Field("UTC", max_length=64)
    on_exceed: str = Field("block", max_length=16)
    budget_id: UUID | None = None
    expected_version: int = Field(0, ge=0)

    def as_wanted(self) -> BudgetWanted:
        return BudgetWanted(
            **self.model_dump(exclude={"budget_id", "expected_version"})
        )


class BudgetOut(Out):
    id: UUID
    scope: str
    key: str
    unit: str
    limit: int
    spent: int
    reserved: int
    overrun: int
    percent: int
    state: str
    window: str
    is_rolling: bool
    timezone: str
    on_exceed: str
    resets_at: datetime | None
    blocked_at: datetime | None
    warned_at: datetime | None
    is_active: bool
    version: int


class BudgetPage(Out):
    items: list[BudgetOut]
    next_cursor: str


class UnblockIn(In):
    reason: str = Field(min_length=1, max_length=300)


def budget_out(purse: Purse) -> dict[str, Any]:
    """Shape: `BudgetOut`. `spent` is what counts in the window now."""
    row = purse.row
    return {
        "id": row.id,
        "scope": row.scope,
        "key": purse.whose,
        "unit": row.unit,
        "limit": row.limit,
        "spent": purse.spent,
        "reserved": row.reserved,
        "overrun": row.overrun,
        "percent": purse.percent,
        "state": purse.state,
        "window": row.window,
        "is_rolling": row.is_rolling,
        "timezone": row.timezone,
        "on_exceed": row.on_exceed,
        "resets_at": purse.resets_at,
        "blocked_at": row.blocked_at,
        "warned_at": row.warned_at,
        "is_active": row.is_active,
        "version": row.version,
    }
