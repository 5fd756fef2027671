"""Health over the API, with details for those who may see them."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router, Status

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import caller, check_role
from apps.audit import services as audit
from apps.common.schemas import PROBLEMS, Cursor, Out, cut

from . import queries, services
from .engine.doctor import continuity, examining
from .models import Recovery
from .queries import readiness, rollbacks
from .schemas import (
    AlertOut,
    AlertPage,
    CheckResultOut,
    ConfigDocument,
    ConfigImportOut,
    ConfigIn,
    ConfigOut,
    ContinuityBoxOut,
    DrillIn,
    DrillOut,
    DrillRunOut,
    IncidentIn,
    IncidentOut,
    IncidentPage,
    MoveIn,
    ReasonIn,
    RecoveryOut,
    RehearsalOut,
    ResumedOut,
    ReviewIn,
    RollbackOut,
    SilenceIn,
    SilenceOut,
    SnapshotOut,
    StepIn,
    StepResultOut,
    StoreOut,
)

router = Router(tags=["health"], by_alias=True)
#: How many restores are listed.
RECOVERIES = 50


class CheckOut(Out):
    name: str
    is_ok: bool
    detail: str


@router.get("/health", response={200: list[CheckOut]} | PROBLEMS, operation_id="health")
def health(request: HttpRequest) -> list[Any]:
    caller(request, "runs:read")
    return list(readiness())


@router.get(
    "/continuity",
    response={200: list[ContinuityBoxOut]} | PROBLEMS,
    operation_id="getContinuity",
)
def get_continuity(request: HttpRequest) -> list[ContinuityBoxOut]:
    """Prove each line of the continuity checklist now."""
    caller(request, "store:read")
    return [ContinuityBoxOut.of(box) for box in continuity.boxes()]


@router.get(
    "/doctor",
    response={200: list[CheckResultOut]} | PROBLEMS,
    operation_id="runDoctor",
)
def run_doctor(request: HttpRequest) -> list[CheckResultOut]:
    """Look at everything, but for what reads the whole store."""
    caller(request, "store:read")
    return [CheckResultOut.of(each) for each in examining.examine(slow=False)]


@router.get("/store", response={200: StoreOut} | PROBLEMS, operation_id="getStore")
def get_store(request: HttpRequest) -> dict[str, Any]:
    """Tell whether the store is the one the witness knows."""
    caller(request, "audit:read")
    standing = audit.standing_alarm()
    found = rollbacks()
    if standing is not None:
        found = found.filter(alarm_id=standing.id)
    return {
        "in_doubt": standing is not None,
        "problem": standing.problem if standing else "",
        "rollback": found.first(),
    }


@router.post(
    "/store/accept", response={200: RollbackOut} | PROBLEMS, operation_id="acceptStore"
)
def accept_store(request: HttpRequest, body: ReasonIn) -> Any:
    """Give up the lost future and begin a new epoch."""
    by = caller(request, "store:write").principal
    return services.accept_rollback(by=by, reason=body.reason)


@router.post(
    "/store/rollbacks/{rollback_id}/resume",
    response={200: ResumedOut} | PROBLEMS,
    operation_id="resumeStale",
)
def resume_stale(
    request: HttpRequest, rollback_id: UUID, body: ReasonIn
) -> dict[str, Any]:
    """Let the runs go on that were held as stale."""
    by = caller(request, "store:write").principal
    resumed = services.resume_stale(by=by, rollback_id=rollback_id, reason=body.reason)
    return {"run_ids": [run.id for run in resumed]}


@router.get(
    "/snapshots",
    response={200: list[SnapshotOut]} | PROBLEMS,
    operation_id="listSnapshots",
)
def list_snapshots(request: HttpRequest) -> list[services.Snapshot]:
    caller(request, "store:read")
    return services.snapshots()


@router.post(
    "/snapshots", response={201: SnapshotOut} | PROBLEMS, operation_id="createSnapshot"
)
def create_snapshot(request: HttpRequest) -> Status[services.Snapshot]:
    by = caller(request, "store:write").principal
    return Status(201, services.create_snapshot(by=by))


@router.post(
    "/snapshots/{name}/verify",
    response={200: SnapshotOut} | PROBLEMS,
    operation_id="verifySnapshot",
)
def verify_snapshot(request: HttpRequest, name: str) -> services.Snapshot:
    """Open a copy of it and recompute its log."""
    by = caller(request, "store:write").principal
    return services.verify_snapshot(by=by, name=name)


@router.get(
    "/recoveries",
    response={200: list[RecoveryOut]} | PROBLEMS,
    operation_id="listRecoveries",
)
def list_recoveries(request: HttpRequest) -> list[Recovery]:
    """The newest restores, real and rehearsed, each with what it took and gave up."""
    caller(request, "store:read")
    return list(queries.recoveries()[:RECOVERIES])


@router.post(
    "/snapshots/rehearse",
    response={202: RehearsalOut} | PROBLEMS,
    operation_id="rehearseRestore",
)
def rehearse_restore(request: HttpRequest) -> Status[dict[str, Any]]:
    """Let a worker restore the newest snapshot beside the store and measure it."""
    by = caller(request, "store:write").principal
    return Status(202, {"run_id": services.start_restore_rehearsal(by=by).id})


@router.get(
    "/configs", response={200: list[ConfigOut]} | PROBLEMS, operation_id="listConfigs"
)
def list_configs(request: HttpRequest, section: str = "") -> list[Any]:
    by = caller(request, "config:read").principal
    return list(services.list_configs(by=by, section=section))


@router.get(
    "/configs/document",
    response={200: ConfigDocument} | PROBLEMS,
    operation_id="exportConfig",
)
def export_config(request: HttpRequest) -> dict[str, Any]:
    """Return all settings as one document, without any secret."""
    return services.export_config(by=caller(request, "config:read").principal)


@router.post(
    "/configs/document/diff",
    response={200: ConfigImportOut} | PROBLEMS,
    operation_id="diffConfig",
)
def diff_config(request: HttpRequest, body: ConfigDocument) -> dict[str, Any]:
    by = caller(request, "config:read").principal
    document = body.model_dump()
    changes = services.diff_config(by=by, document=document)
    return {
        "changes": changes,
        "secrets_to_enter": services.secrets_to_enter(document),
        "extensions_to_review": services.extensions_to_review(document),
    }


@router.put(
    "/configs/document",
    response={200: ConfigImportOut} | PROBLEMS,
    operation_id="importConfig",
)
def import_config(request: HttpRequest, body: ConfigDocument) -> dict[str, Any]:
    """Make the settings say what the document says: all of it or nothing."""
    by = caller(request, "config:write").principal
    document = body.model_dump()
    changes = services.import_config(by=by, document=document)
    return {
        "changes": changes,
        "secrets_to_enter": services.secrets_to_enter(document),
        "extensions_to_review": services.extensions_to_review(document),
    }


@router.get(
    "/configs/{section}/{key}",
    response={200: ConfigOut} | PROBLEMS,
    operation_id="getConfig",
)
def get_config(request: HttpRequest, section: str, key: str) -> Any:
    by = caller(request, "config:read").principal
    return services.get_config(by=by, section=section, key=key)


@router.put(
    "/configs/{section}/{key}",
    response={200: ConfigOut} | PROBLEMS,
    operation_id="upsertConfig",
)
def upsert_config(request: HttpRequest, section: str, key: str, body: ConfigIn) -> Any:
    by = caller(request, "config:write").principal
    return services.upsert_config(
        by=by,
        section=section,
        key=key,
        value=body.value,
        expected_version=body.expected_version,
    )


@router.get("/alerts", response={200: AlertPage} | PROBLEMS, operation_id="listAlerts")
def list_alerts(
    request: HttpRequest,
    page: Query[Cursor],
    state: str = "",
    code: str = "",
    origin: str = "",
) -> dict[str, Any]:
    """List alerts, newest first; `state=standing` for what is not over."""
    auth = caller(request, "runs:read")
    check_role(auth.principal, Role.VIEWER, access.default_workspace())
    items, following = cut(queries.alerts(state=state, code=code, origin=origin), page)
    return {"items": items, "next_cursor": following}


@router.post(
    "/alerts/{alert_id}/acknowledge",
    response={200: AlertOut} | PROBLEMS,
    operation_id="acknowledgeAlert",
)
def acknowledge_alert(request: HttpRequest, alert_id: UUID, body: ReasonIn) -> Any:
    by = caller(request, "runs:write").principal
    return services.acknowledge_alert(by=by, alert_id=alert_id, reason=body.reason)


@router.post(
    "/alerts/silences",
    response={201: SilenceOut} | PROBLEMS,
    operation_id="silenceAlert",
)
def silence_alert(request: HttpRequest, body: SilenceIn) -> Status[Any]:
    """Keep the news of a code back for some hours."""
    by = caller(request, "runs:write").principal
    return Status(201, services.silence(by=by, **body.model_dump()))


@router.post(
    "/alerts/breach", response={200: AlertOut} | PROBLEMS, operation_id="makeBreach"
)
def make_breach(request: HttpRequest) -> Any:
    """Send a made-up alert down the whole way: judged, raised, told, cleared."""
    return services.breach(by=caller(request, "runs:write").principal)


@router.post(
    "/alerts/silences/{silence_id}/lift",
    response={200: SilenceOut} | PROBLEMS,
    operation_id="liftSilence",
)
def lift_silence(request: HttpRequest, silence_id: UUID) -> Any:
    by = caller(request, "runs:write").principal
    return services.lift_silence(by=by, silence_id=silence_id)


@router.get(
    "/incidents",
    response={200: IncidentPage} | PROBLEMS,
    operation_id="listIncidents",
)
def list_incidents(
    request: HttpRequest, page: Query[Cursor], state: str = ""
) -> dict[str, Any]:
    """List incidents, newest first; `state=under_way` for what is worked on."""
    auth = caller(request, "runs:read")
    items, following = cut(
        queries.incidents(principal=auth.principal, state=state), page
    )
    return {"items": items, "next_cursor": following}


@router.post(
    "/incidents", response={201: IncidentOut} | PROBLEMS, operation_id="openIncident"
)
def open_incident(request: HttpRequest, body: IncidentIn) -> Status[Any]:
    by = caller(request, "runs:write").principal
    new = services.NewIncident(body.title, body.severity, body.because)
    return Status(201, services.open_incident(by=by, new=new))


@router.get(
    "/incidents/{incident_id}",
    response={200: IncidentOut} | PROBLEMS,
    operation_id="getIncident",
)
def get_incident(request: HttpRequest, incident_id: UUID) -> Any:
    auth = caller(request, "runs:read")
    return queries.get_incident(incident_id, principal=auth.principal)


@router.post(
    "/incidents/{incident_id}/transition",
    response={200: IncidentOut} | PROBLEMS,
    operation_id="transitionIncident",
)
def transition_incident(request: HttpRequest, incident_id: UUID, body: MoveIn) -> Any:
    by = caller(request, "runs:write").principal
    return services.transition_incident(
        by=by, incident_id=incident_id, **body.model_dump()
    )


@router.post(
    "/incidents/{incident_id}/steps/{step}",
    response={200: StepResultOut} | PROBLEMS,
    operation_id="runIncidentStep",
)
def run_incident_step(
    request: HttpRequest, incident_id: UUID, step: str, body: StepIn
) -> Any:
    """Do one step of the checklist now."""
    by = caller(request, "halt:write").principal
    return services.run_step(
        by=by, incident_id=incident_id, step=step, confirm=body.confirm
    )


@router.post(
    "/incidents/{incident_id}/review",
    response={200: IncidentOut} | PROBLEMS,
    operation_id="reviewIncident",
)
def review_incident(request: HttpRequest, incident_id: UUID, body: ReviewIn) -> Any:
    by = caller(request, "runs:write").principal
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
def get_incident_evidence(request: HttpRequest, incident_id: UUID) -> dict[str, Any]:
    """Return the signed bundle."""
    by = caller(request, "audit:read").principal
    return services.evidence(by=by, incident_id=incident_id)


@router.get(
    "/drills", response={200: list[DrillOut]} | PROBLEMS, operation_id="listDrills"
)
def list_drills(request: HttpRequest) -> list[DrillOut]:
    """List the shelf with how fresh each proof is."""
    caller(request, "store:read")
    return [DrillOut.of(each) for each in services.shelf_of_drills()]


@router.post(
    "/drills", response={201: DrillRunOut} | PROBLEMS, operation_id="startDrill"
)
def start_drill(request: HttpRequest, body: DrillIn) -> Status[Any]:
    """Rehearse one in a clone, or play it live; a run carries it."""
    by = caller(request, "store:write").principal
    if not body.live:
        return Status(201, services.start_drill(by=by, slug=body.drill))
    cap = services.Cap(**body.cap.dict())
    row = services.start_live_drill(
        by=by, slug=body.drill, confirm=body.confirm, cap=cap
    )
    return Status(201, row)


@router.get(
    "/drills/{drill_id}",
    response={200: DrillRunOut} | PROBLEMS,
    operation_id="getDrill",
)
def get_drill(request: HttpRequest, drill_id: UUID) -> Any:
    caller(request, "store:read")
    return services.get_drill(drill_id)


@router.post(
    "/drills/{drill_id}/cancel",
    response={200: DrillRunOut} | PROBLEMS,
    operation_id="cancelDrill",
)
def cancel_drill(request: HttpRequest, drill_id: UUID) -> Any:
    """End a drill now; what it started dies with it."""
    by = caller(request, "store:write").principal
    return services.cancel_drill(by=by, drill_id=drill_id)
