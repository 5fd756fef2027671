"""Drills over the API."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Router, Status

from apps.access.policies import caller
from apps.common.schemas import PROBLEMS
from apps.common.scopes import needs
from apps.reliability import services
from apps.reliability.schemas import (
    DrillIn,
    DrillOut,
    DrillRunOut,
)

router = Router(tags=["drills"], by_alias=True)


@router.get(
    "/drills", response={200: list[DrillOut]} | PROBLEMS, operation_id="listDrills"
)
@needs("store:read")
def list_drills(request: HttpRequest) -> list[DrillOut]:
    """List the shelf with how fresh each proof is."""
    return [DrillOut.of(each) for each in services.shelf_of_drills()]


@router.post(
    "/drills", response={201: DrillRunOut} | PROBLEMS, operation_id="startDrill"
)
@needs("store:write")
def start_drill(request: HttpRequest, body: DrillIn) -> Status[Any]:
    """Rehearse one in a clone, or play it live; a run carries it."""
    by = caller(request).principal
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
@needs("store:read")
def get_drill(request: HttpRequest, drill_id: UUID) -> Any:
    return services.get_drill(drill_id)


@router.post(
    "/drills/{drill_id}/cancel",
    response={200: DrillRunOut} | PROBLEMS,
    operation_id="cancelDrill",
)
@needs("store:write")
def cancel_drill(request: HttpRequest, drill_id: UUID) -> Any:
    """End a drill now; what it started dies with it."""
    by = caller(request).principal
    return services.cancel_drill(by=by, drill_id=drill_id)
