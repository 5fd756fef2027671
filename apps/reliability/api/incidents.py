"""Alerts and incidents over the API."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Status

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import caller, check_role
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs
from apps.reliability import queries, services
from apps.reliability.schemas import (
    AlertOut,
    AlertPage,
    IncidentIn,
    IncidentOut,
    IncidentPage,
    MoveIn,
    ReasonIn,
    ReviewIn,
    SilenceIn,
    SilenceOut,
    StepIn,
    StepResultOut,
)

router = Router(tags=["incidents"], by_alias=True)


@router.get("/alerts", response={200: AlertPage} | PROBLEMS, operation_id="listAlerts")
@needs("runs:read")
def list_alerts(
    request: HttpRequest,
    page: Query[Cursor],
    state: str = "",
    code: str = "",
    origin: str = "",
) -> dict[str, Any]:
    """List alerts, newest first; `state=standing` for what is not over."""
    auth = caller(request)
    check_role(auth.principal, Role.VIEWER, access.default_workspace())
    items, following = cut(queries.alerts(state=state, code=code, origin=origin), page)
    return {"items": items, "next_cursor": following}


@router.post(
    "/alerts/{alert_id}/acknowledge",
    response={200: AlertOut} | PROBLEMS,
    operation_id="acknowledgeAlert",
)
@needs("runs:write")
def acknowledge_alert(request: HttpRequest, alert_id: UUID, body: ReasonIn) -> Any:
    by = caller(request).principal
    return services.acknowledge_alert(by=by, alert_id=alert_id, reason=body.reason)


@router.post(
    "/alerts/silences",
    response={201: SilenceOut} | PROBLEMS,
    operation_id="silenceAlert",
)
@needs("runs:write")
def silence_alert(request: HttpRequest, body: SilenceIn) -> Status[Any]:
    """Keep the news of a code back for some hours."""
    by = caller(request).principal
    return Status(201, services.silence(by=by, **body.model_dump()))


@router.post(
    "/alerts/breach", response={200: AlertOut} | PROBLEMS, operation_id="makeBreach"
)
@needs("runs:write")
def make_breach(request: HttpRequest) -> Any:
    """Send a made-up alert down the whole way: judged, raised, told, cleared."""
    return services.breach(by=caller(request).principal)


@router.post(
    "/alerts/silences/{silence_id}/lift",
    response={200: SilenceOut} | PROBLEMS,
    operation_id="liftSilence",
)
@needs("runs:write")
def lift_silence(request: HttpRequest, silence_id: UUID) -> Any:
    by = caller(request).principal
    return services.lift_silence(by=by, silence_id=silence_id)


@router.get(
    "/incidents",
    response={200: IncidentPage} | PROBLEMS,
    operation_id="listIncidents",
)
@needs("runs:read")
def list_incidents(
    request: HttpRequest, page: Query[Cursor], state: str = ""
) -> dict[str, Any]:
    """List incidents, newest first; `state=under_way` for what is worked on."""
    auth = caller(request)
    items, following = cut(
        queries.incidents(principal=auth.principal, state=state), page
    )
    return {"items": items, "next_cursor": following}


@router.post(
    "/incidents", response={201: IncidentOut} | PROBLEMS, operation_id="openIncident"
)
@needs("runs:write")
def open_incident(request: HttpRequest, body: IncidentIn) -> Status[Any]:
    by = caller(request).principal
    new = services.NewIncident(body.title, body.severity, body.because)
    return Status(201, services.open_incident(by=by, new=new))


@router.get(
    "/incidents/{incident_id}",
    response={200: IncidentOut} | PROBLEMS,
    operation_id="getIncident",
)
@needs("runs:read")
def get_incident(request: HttpRequest, incident_id: UUID) -> Any:
    auth = caller(request)
    return queries.get_incident(incident_id, principal=auth.principal)


@router.post(
    "/incidents/{incident_id}/transition",
    response={200: IncidentOut} | PROBLEMS,
    operation_id="transitionIncident",
)
@needs("runs:write")
def transition_incident(request: HttpRequest, incident_id: UUID, body: MoveIn) -> Any:
    by = caller(request).principal
    return services.transition_incident(
        by=by, incident_id=incident_id, **body.model_dump()
    )


@router.post(
    "/incidents/{incident_id}/steps/{step}",
    response={200: StepResultOut} | PROBLEMS,
    operation_id="runIncidentStep",
)
@needs("halt:write")
def run_incident_step(
    request: HttpRequest, incident_id: UUID, step: str, body: StepIn
) -> Any:
    """Do one step of the checklist now."""
    by = caller(request).principal
    return services.run_step(
        by=by, incident_id=incident_id, step=step, confirm=body.confirm
    )


@router.post(
    "/incidents/{incident_id}/review",
    response={200: IncidentOut} | PROBLEMS,
    operation_id="reviewIncident",
)
@needs("runs:write")
def review_incident(request: HttpRequest, incident_id: UUID, body: ReviewIn) -> Any:
    by = caller(request).principal
    said = body.model_dump()
    version = said.pop("expected_version")
    return services.review_incident(
        by=by, incident_id=incident_id, expected_version=version, review=said
    )


@router.get(
    "/incidents/{incident_id}/evidence",
    response={200: dict[str, Any]} | PROBLEMS,
    operation_id="getIncidentEvidence",
)
@needs("audit:read")
def get_incident_evidence(request: HttpRequest, incident_id: UUID) -> dict[str, Any]:
    """Return the signed bundle."""
    by = caller(request).principal
    return services.evidence(by=by, incident_id=incident_id)
