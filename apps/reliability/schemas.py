"""Shapes of reliability in the API."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from apps.common.schemas import In, Out
from apps.reliability.engine.doctor.check import Result
from apps.reliability.engine.doctor.continuity import Box
from apps.reliability.engine.freshness import Shelved


class SnapshotOut(Out):
    name: str
    taken_at: datetime
    events: int
    root: str
    epoch: str
    bytes: int
    sha256: str
    verified_at: datetime | None


class RecoveryOut(Out):
    id: UUID
    kind: str
    source: str
    created_at: datetime
    ok: bool
    problem: str
    took_ms: int
    age_seconds: int
    events: int
    events_lost: int
    bytes: int
    by: str


class RehearsalOut(Out):
    run_id: UUID


class RollbackOut(Out):
    id: UUID
    state: str
    problem: str
    detected_at: datetime
    witness_size: int
    witness_head: str
    store_size: int
    store_head: str
    fork: int | None
    events_lost: int
    conflicted: int
    stale: int
    lost: int
    effects_held: int
    decided_by: str
    decided_reason: str


class StoreOut(Out):
    """Whether an alarm stands, and what it concerns."""

    in_doubt: bool
    problem: str
    rollback: RollbackOut | None


class ReasonIn(In):
    reason: str


class ResumedOut(Out):
    run_ids: list[UUID]


class ConfigOut(Out):
    section: str
    key: str
    version: str
    value: dict[str, Any]


class ConfigIn(In):
    """What `value` names is changed; the rest stays."""

    value: dict[str, Any]
    #: "" expects that it does not exist yet; null asks for no check.
    expected_version: str | None = Field(None, max_length=64)


class ConfigDocument(In):
    format: str = Field(max_length=40)
    secrets: list[str] = Field(default_factory=list, max_length=1000)
    extensions: dict[str, dict[str, Any]] = Field(default_factory=dict, max_length=1000)
    sections: dict[str, dict[str, dict[str, Any]]]


class ConfigChangeOut(Out):
    section: str
    key: str
    kind: str
    fields: list[str]


class ConfigImportOut(Out):
    changes: list[ConfigChangeOut]
    #: Secrets that the document's install had and this one lacks.
    secrets_to_enter: list[str]
    extensions_to_review: list[str]


class AlertOut(Out):
    id: UUID
    code: str
    key: str
    level: str
    state: str
    origin: str
    summary: str
    facts: dict[str, Any]
    trace_id: str
    incident_id: UUID | None
    task_id: UUID | None
    created_at: datetime
    seen_at: datetime
    acknowledged_by: str
    cleared_at: datetime | None


class AlertPage(Out):
    items: list[AlertOut]
    next_cursor: str


class SilenceIn(In):
    code: str
    key: str = ""
    reason: str
    hours: int


class SilenceOut(Out):
    id: UUID
    code: str
    key: str
    reason: str
    set_by: str
    until: datetime
    lifted_at: datetime | None


class StepResultOut(Out):
    id: UUID
    step: str
    ok: bool
    summary: str
    found: dict[str, Any]
    by: str
    created_at: datetime


class IncidentOut(Out):
    id: UUID
    name: str
    title: str
    severity: str
    because: str
    state: str
    origin: str
    opened_by: str
    owner: str
    roles: dict[str, str]
    trace_ids: list[str]
    version: int
    created_at: datetime
    resolved_at: datetime | None
    review: dict[str, str]


class IncidentPage(Out):
    items: list[IncidentOut]
    next_cursor: str


class IncidentIn(In):
    title: str
    severity: str
    because: str = ""


class MoveIn(In):
    state: str
    expected_version: int
    reason: str = ""


class StepIn(In):
    #: What a step that stops or restores wants typed: HALT, RESTORE.
    confirm: str = ""


class ReviewIn(In):
    expected_version: int
    impact: str
    cause: str
    learned: str
    follow_up: str = ""


class DrillRunOut(Out):
    id: UUID
    slug: str
    mode: str
    state: str
    asked_by: str
    isolation: str
    problem: str
    evidence_sha256: str
    started_at: datetime | None
    finished_at: datetime | None


class DrillOut(Out):
    """A drill on the shelf; `stale` says why its proof is overdue."""

    slug: str
    title: str
    description: str
    control: str
    passed_at: datetime | None
    stale: str
    is_overdue: bool
    #: Why it is not asked for, or not possible, here.
    aside: str
    #: What playing it live would touch, or why it is only rehearsed.
    live: str
    newest: DrillRunOut | None

    @classmethod
    def of(cls, each: Shelved) -> "DrillOut":
        drill, newest = each.drill, each.newest
        return cls(
            slug=drill.slug,
            title=drill.title,
            description=drill.description,
            control=drill.control,
            passed_at=each.passed_at,
            stale=each.stale,
            is_overdue=each.is_overdue,
            aside=each.unused or each.lacks,
            live=drill.touches or f"only rehearsed: {drill.not_live}",
            newest=DrillRunOut.from_orm(newest) if newest else None,
        )


class DrillCapIn(In):
    """How much a live drill may touch before it ends by itself."""

    turns: int = 60
    seconds: int = 90
    hurt: int = 0


class DrillIn(In):
    """A rehearsal; or, with `live`, a drill on the install itself."""

    drill: str
    live: bool = False
    #: Of a live one: the words that are typed before it begins.
    confirm: str = ""
    cap: DrillCapIn = DrillCapIn()


class CheckResultOut(Out):
    """One thing that the doctor looked at. `mend` is "" while it is well."""

    name: str
    area: str
    proves: str
    state: str
    detail: str
    mend: str

    @classmethod
    def of(cls, result: Result) -> "CheckResultOut":
        return cls(
            name=result.check.name,
            area=result.check.area,
            proves=result.check.proves,
            state=result.state,
            detail=result.detail,
            mend=result.mend,
        )


class ContinuityBoxOut(Out):
    """One line of the continuity checklist, proved now or not."""

    slug: str
    title: str
    is_proved: bool
    checks: list[CheckResultOut]

    @classmethod
    def of(cls, box: Box) -> "ContinuityBoxOut":
        return cls(
            slug=box.item.slug,
            title=box.item.title,
            is_proved=box.is_proved,
            checks=[CheckResultOut.of(each) for each in box.results],
        )
