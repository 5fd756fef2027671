"""Health, the store and its snapshots over the API."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Status

from apps.access.policies import caller
from apps.audit import services as audit
from apps.common.schemas import PROBLEMS, Out
from apps.common.scopes import needs
from apps.reliability import queries, services
from apps.reliability.engine.doctor import continuity, examining
from apps.reliability.models import Recovery
from apps.reliability.queries import readiness, rollbacks
from apps.reliability.schemas import (
    CheckResultOut,
    ContinuityBoxOut,
    ReasonIn,
    RecoveryOut,
    RehearsalOut,
    ResumedOut,
    RollbackOut,
    SnapshotOut,
    StoreOut,
)

router = Router(tags=["store"], by_alias=True)
#: How many restores are listed.
RECOVERIES = 50


class CheckOut(Out):
    name: str
    is_ok: bool
    detail: str


@router.get("/health", response={200: list[CheckOut]} | PROBLEMS, operation_id="health")
@needs("runs:read")
def health(request: HttpRequest) -> list[Any]:
    return list(readiness())


@router.get(
    "/continuity",
    response={200: list[ContinuityBoxOut]} | PROBLEMS,
    operation_id="getContinuity",
)
@needs("store:read")
def get_continuity(request: HttpRequest) -> list[ContinuityBoxOut]:
    """Prove each line of the continuity checklist now."""
    return [ContinuityBoxOut.of(box) for box in continuity.boxes()]


@router.get(
    "/doctor",
    response={200: list[CheckResultOut]} | PROBLEMS,
    operation_id="runDoctor",
)
@needs("store:read")
def run_doctor(request: HttpRequest) -> list[CheckResultOut]:
    """Look at everything, but for what reads the whole store."""
    return [CheckResultOut.of(each) for each in examining.examine(slow=False)]


@router.get("/store", response={200: StoreOut} | PROBLEMS, operation_id="getStore")
@needs("audit:read")
def get_store(request: HttpRequest) -> dict[str, Any]:
    """Tell whether the store is the one the witness knows."""
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
@needs("store:write", "admin")
def accept_store(request: HttpRequest, body: ReasonIn) -> Any:
    """Give up the lost future and begin a new epoch."""
    by = caller(request).principal
    return services.accept_rollback(by=by, reason=body.reason)


@router.post(
    "/store/rollbacks/{rollback_id}/resume",
    response={200: ResumedOut} | PROBLEMS,
    operation_id="resumeStale",
)
@needs("store:write")
def resume_stale(
    request: HttpRequest, rollback_id: UUID, body: ReasonIn
) -> dict[str, Any]:
    """Let the runs go on that were held as stale."""
    by = caller(request).principal
    resumed = services.resume_stale(by=by, rollback_id=rollback_id, reason=body.reason)
    return {"run_ids": [run.id for run in resumed]}


@router.get(
    "/snapshots",
    response={200: list[SnapshotOut]} | PROBLEMS,
    operation_id="listSnapshots",
)
@needs("store:read")
def list_snapshots(request: HttpRequest) -> list[services.Snapshot]:
    return services.snapshots()


@router.post(
    "/snapshots", response={201: SnapshotOut} | PROBLEMS, operation_id="createSnapshot"
)
@needs("store:write")
def create_snapshot(request: HttpRequest) -> Status[services.Snapshot]:
    by = caller(request).principal
    return Status(201, services.create_snapshot(by=by))


@router.post(
    "/snapshots/{name}/verify",
    response={200: SnapshotOut} | PROBLEMS,
    operation_id="verifySnapshot",
)
@needs("store:write")
def verify_snapshot(request: HttpRequest, name: str) -> services.Snapshot:
    """Open a copy of it and recompute its log."""
    by = caller(request).principal
    return services.verify_snapshot(by=by, name=name)


@router.get(
    "/recoveries",
    response={200: list[RecoveryOut]} | PROBLEMS,
    operation_id="listRecoveries",
)
@needs("store:read")
def list_recoveries(request: HttpRequest) -> list[Recovery]:
    """The newest restores, real and rehearsed, each with what it took and gave up."""
    return list(queries.recoveries()[:RECOVERIES])


@router.post(
    "/snapshots/rehearse",
    response={202: RehearsalOut} | PROBLEMS,
    operation_id="rehearseRestore",
)
@needs("store:write")
def rehearse_restore(request: HttpRequest) -> Status[dict[str, Any]]:
    """Let a worker restore the newest snapshot beside the store and measure it."""
    by = caller(request).principal
    return Status(202, {"run_id": services.start_restore_rehearsal(by=by).id})
