"""Carry out a step of an incident's checklist and keep what it found.

Invariant: the step runs outside any transaction; its result, and that somebody did
it, are one commit afterwards. After a rollback the incident itself may be gone with
the store: it is carried over, with all its results.
"""

from typing import Any
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal
from apps.audit import services as audit
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound, PolarError
from apps.reliability.engine import sops as checklists
from apps.reliability.engine.findings import Finding
from apps.reliability.models import (
    AlertCode,
    Incident,
    IncidentState,
    Level,
    StepResult,
)
from apps.reliability.services import alerts, incidents, sops


def run_step(
    *, by: Principal, incident_id: UUID, step: str, confirm: str = ""
) -> StepResult:
    """Do one step now. A step that refuses or fails is a result too.

    Raises: NotFound for an unknown step or incident; RoleRequired; Invalid without
    the typed word; Conflict for an incident that is over.
    """
    known = checklists.STEPS.get(step)
    if known is None:
        raise NotFound(f"No step {step!r}: {', '.join(checklists.STEPS)}.")
    incident = incidents.get(by, incident_id, known.role)
    if incident.state == IncidentState.REVIEWED:
        raise Conflict("It is reviewed and closed: open another incident.")
    if known.confirm and confirm.strip() != known.confirm:
        problem = FieldProblem("confirm", "not typed", known.confirm)
        raise Invalid(f"Type {known.confirm} to do this.", fields=(problem,))
    before = list(StepResult.objects.filter(incident=incident).order_by("id"))
    try:
        ok, summary, found = sops.ACTIONS[step](by, incident)
    except PolarError as error:
        ok, summary, found = False, f"{error.detail} ({error.code})", {}
    if step == checklists.ROLLBACK.slug and ok:
        _carry_over(by, incident, before)
    if step == checklists.AUDIT.slug and not ok:
        finding = Finding(AlertCode.CHAIN, Level.CRITICAL, summary, "verify")
        alerts.note(finding)
    return _keep(by, incident, step, (ok, summary, found))


@transaction.atomic
def _keep(by: Principal, incident: Incident, step: str, came: sops.Found) -> StepResult:
    ok, summary, found = came
    row = StepResult.objects.create(
        incident=incident,
        step=step,
        ok=ok,
        summary=summary[:500],
        found=found,
        by=by.label,
    )
    audit.record(
        type="incident.step_done" if ok else "incident.step_failed",
        actor=by.actor,
        subject=("incident", str(incident.id)),
        workspace_id=incident.workspace_id,
        reason=f"{step}: {summary}"[:500],
        data={"step": step, "result": str(row.id)},
    )
    return row


@transaction.atomic
def _carry_over(by: Principal, incident: Incident, results: list[StepResult]) -> None:
    """Put the incident into the store that came back. Again: what is there stays."""
    row, is_new = Incident.objects.get_or_create(
        id=incident.id, defaults=_columns(incident)
    )
    known = set(StepResult.objects.filter(incident=row).values_list("id", flat=True))
    missing = [each for each in results if each.id not in known]
    StepResult.objects.bulk_create(
        [StepResult(**_columns(each), incident=row, id=each.id) for each in missing]
    )
    if is_new or missing:
        audit.record(
            type="incident.carried_over",
            actor=by.actor,
            subject=("incident", str(row.id)),
            workspace_id=row.workspace_id,
            reason="the store went back; the incident stays",
            data={"number": row.number, "results": len(missing)},
        )


def _columns(row: Incident | StepResult) -> dict[str, Any]:
    left_out = ("id", "incident")
    return {
        field.attname: getattr(row, field.attname)
        for field in row._meta.concrete_fields
        if field.name not in left_out
    }
