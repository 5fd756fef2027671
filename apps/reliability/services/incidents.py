"""Open, classify, move, note, review and export incidents.

Invariants: a move goes by the lifecycle and the version that was seen; an alert
joins the open incident of its area and only ever raises its class; a review needs
a cause and what was learned.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Max

from apps.access import queries as access
from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    InvalidTransition,
    NotFound,
)
from apps.reliability.engine import incidents as reading
from apps.reliability.models import (
    INCIDENT,
    Alert,
    AlertOrigin,
    Incident,
    IncidentState,
    Severity,
)

MOST_TRACES = 20
REVIEW_FIELDS = ("impact", "cause", "learned", "follow_up")
ROLES = ("commander", "communications", "scribe")


@dataclass(frozen=True, slots=True)
class NewIncident:
    title: str
    severity: str
    because: str = ""
    area: str = ""
    trace_id: str = ""


def open_incident(*, by: Principal, new: NewIncident) -> Incident:
    """Say that something is wrong. Whoever opens it owns it.

    Raises: RoleRequired; Invalid naming the field.
    """
    workspace = access.default_workspace()
    check_role(by, Role.OPERATOR, workspace)
    problems = []
    if not new.title.strip():
        problems.append(FieldProblem("title", "empty", "what is wrong"))
    if new.severity not in Severity.values:
        problems.append(FieldProblem("severity", "unknown", "S1, S2, S3 or S4"))
    if problems:
        raise Invalid("This incident cannot be opened.", fields=tuple(problems))
    return _open(by.actor, workspace, new, owner=by.label)


def join(alert: Alert) -> Incident | None:
    """Let an alert open an incident, or join the one of its area.

    Called in the transaction that raises the alert. S4 is a card on the board, by
    the alert's own news; a made-up alert opens nothing.
    """
    if alert.origin == AlertOrigin.SYNTHETIC:
        return None
    proposed = reading.classify(alert.code, alert.level)
    if proposed.severity == Severity.S4:
        return None
    workspace = access.default_workspace()
    area = {"workspace": workspace, "area": proposed.area, "origin": alert.origin}
    found: Incident | None = Incident.objects.under_way().filter(**area).first()
    if found is None:
        new = NewIncident(
            f"{alert.code}: {alert.summary}"[:200],
            proposed.severity,
            proposed.because,
            proposed.area,
            alert.trace_id,
        )
        try:
            with transaction.atomic():
                found = _open(SYSTEM, workspace, new, origin=alert.origin)
        except IntegrityError:
            found = Incident.objects.under_way().get(**area)
    Alert.objects.filter(id=alert.id).update(incident=found)
    alert.incident = found
    _raise_to(found, proposed.severity, f"{alert.code}: {proposed.because}")
    _link_trace(found, alert.trace_id)
    return found


def _open(
    by: Actor,
    workspace: Workspace,
    new: NewIncident,
    *,
    owner: str = "",
    origin: str = "real",
) -> Incident:
    for _ in range(5):
        last = Incident.objects.aggregate(last=Max("number"))["last"] or 0
        try:
            with transaction.atomic():
                return _write(by, workspace, new, (last + 1, owner, origin))
        except IntegrityError:
            area = Incident.objects.under_way().filter(
                workspace=workspace, area=new.area, origin=origin
            )
            if new.area and area.exists():
                raise
    raise Conflict("Others open incidents at this moment: try again.")


def _write(
    by: Actor, workspace: Workspace, new: NewIncident, rest: tuple[int, str, str]
) -> Incident:
    number, owner, origin = rest
    row = Incident.objects.create(
        workspace=workspace,
        number=number,
        title=new.title.strip()[:200],
        severity=new.severity,
        because=new.because[:300],
        area=new.area,
        origin=origin,
        opened_by=by.label,
        owner=owner,
        trace_ids=[new.trace_id] if new.trace_id else [],
    )
    _record("incident.opened", row, by, reason=row.title)
    return row


def _raise_to(incident: Incident, severity: str, because: str) -> None:
    """When in doubt the higher class; only a person lowers it."""
    if reading.higher(severity, incident.severity) == incident.severity:
        return
    lower = Incident.objects.filter(id=incident.id, severity__gt=severity)
    if lower.update(severity=severity, because=because[:300], version=F("version") + 1):
        incident.refresh_from_db()
        _record("incident.raised", incident, SYSTEM, reason=because)


def _link_trace(incident: Incident, trace_id: str) -> None:
    traces = incident.trace_ids
    if trace_id and trace_id not in traces and len(traces) < MOST_TRACES:
        mine = Incident.objects.filter(id=incident.id)
        mine.update(trace_ids=[*traces, trace_id])
        incident.trace_ids = [*traces, trace_id]


def get(by: Principal, incident_id: UUID, role: str = Role.OPERATOR) -> Incident:
    """Raises: NotFound, RoleRequired."""
    visible = Incident.objects.visible_to(by).select_related("workspace")
    found: Incident | None = visible.filter(id=incident_id).first()
    if found is None:
        raise NotFound("There is no such incident.")
    check_role(by, role, found.workspace)
    return found


@transaction.atomic
def transition_incident(
    *,
    by: Principal,
    incident_id: UUID,
    state: str,
    expected_version: int,
    reason: str = "",
) -> Incident:
    """Move an incident on. `reviewed` is reached by `review_incident` alone.

    Raises: InvalidTransition, Conflict for another version, NotFound, RoleRequired.
    """
    row = get(by, incident_id)
    INCIDENT.check(row.state, state)
    if state == IncidentState.REVIEWED:
        raise InvalidTransition(
            "Write the review: that is how an incident is reviewed.",
            source=row.state,
            target=state,
        )
    over = clock.now() if state == IncidentState.RESOLVED else None
    fields = {"state": state, "resolved_at": over}
    _apply(row, expected_version, fields)
    _record("incident.moved", row, by.actor, reason=reason, before=row.state, to=state)
    row.refresh_from_db()
    return row


@transaction.atomic
def classify_incident(
    *,
    by: Principal,
    incident_id: UUID,
    severity: str,
    expected_version: int,
    reason: str,
) -> Incident:
    """Give it another class. Lowering needs words as much as raising.

    Raises: Invalid, Conflict, NotFound, RoleRequired.
    """
    row = get(by, incident_id)
    if severity not in Severity.values or not reason.strip():
        expected = "S1 to S4, with a reason"
        problem = FieldProblem("severity", "unknown, or no reason", expected)
        raise Invalid("This class cannot be given.", fields=(problem,))
    _apply(row, expected_version, {"severity": severity, "because": reason[:300]})
    _record("incident.classified", row, by.actor, reason=reason, to=severity)
    row.refresh_from_db()
    return row


@transaction.atomic
def assign_incident(
    *,
    by: Principal,
    incident_id: UUID,
    expected_version: int,
    owner: str,
    roles: dict[str, str] | None = None,
) -> Incident:
    """Say who owns it and who does what. Raises: Invalid, Conflict, NotFound."""
    row = get(by, incident_id)
    given = {name: who.strip()[:160] for name, who in (roles or {}).items()}
    if unknown := set(given) - set(ROLES):
        expected = ", ".join(ROLES)
        problem = FieldProblem("roles", f"unknown: {sorted(unknown)}", expected)
        raise Invalid("These roles are not known.", fields=(problem,))
    kept = {name: who for name, who in given.items() if who}
    fields = {"owner": owner.strip()[:160], "roles": kept}
    _apply(row, expected_version, fields)
    _record("incident.assigned", row, by.actor, owner=fields["owner"], roles=kept)
    row.refresh_from_db()
    return row


@transaction.atomic
def note_on_incident(*, by: Principal, incident_id: UUID, text: str) -> None:
    """Write a line into the timeline. Raises: Invalid, NotFound, RoleRequired."""
    row = get(by, incident_id)
    text = text.strip()
    if not text or len(text) > 500:
        problem = FieldProblem("text", "empty or too long", "1 to 500 characters")
        raise Invalid("This note cannot be kept.", fields=(problem,))
    _record("incident.noted", row, by.actor, reason=text)


@transaction.atomic
def review_incident(
    *,
    by: Principal,
    incident_id: UUID,
    expected_version: int,
    review: dict[str, str],
) -> Incident:
    """Close it with what it did, why it happened and what was learned.

    Raises: Invalid naming what is missing; InvalidTransition before it is resolved.
    """
    row = get(by, incident_id)
    INCIDENT.check(row.state, IncidentState.REVIEWED)
    kept = {name: str(review.get(name, "")).strip()[:4000] for name in REVIEW_FIELDS}
    missing = [name for name in REVIEW_FIELDS[:3] if not kept[name]]
    if missing:
        problems = tuple(FieldProblem(name, "empty", "a few words") for name in missing)
        raise Invalid("The review says too little.", fields=problems)
    fields = {"state": IncidentState.REVIEWED, "review": kept}
    _apply(row, expected_version, fields)
    _record("incident.reviewed", row, by.actor, reason=kept["cause"])
    row.refresh_from_db()
    return row


def _apply(row: Incident, expected_version: int, fields: dict[str, Any]) -> None:
    mine = Incident.objects.filter(id=row.id, version=expected_version, state=row.state)
    if not mine.update(version=F("version") + 1, **fields):
        raise Conflict(
            f"{row.name} is at version {row.version}, not {expected_version}: look"
            " again.",
            version=row.version,
        )


def _record(
    event: str, row: Incident, by: Actor, *, reason: str = "", **data: Any
) -> None:
    audit.record(
        type=event,
        actor=by,
        subject=("incident", str(row.id)),
        workspace_id=row.workspace_id,
        reason=reason[:500],
        data={"number": row.number, "severity": str(row.severity), **data},
    )
