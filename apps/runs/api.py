"""Runs, schedules and dead letters over the API."""

from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from apps.access.policies import caller
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.runs import queries, services
from apps.runs.models import Run, Schedule
from apps.runs.schemas import DeadLetterIn, ReasonIn, RunOut, RunPage, ScheduleOut

router = Router(tags=["runs"], by_alias=True)


@router.get("/runs", response={200: RunPage} | PROBLEMS, operation_id="listRuns")
def list_runs(
    request: HttpRequest, page: Query[Cursor], state: str = "", trace_id: str = ""
) -> dict[str, object]:
    auth = caller(request, "runs:read")
    rows = Run.objects.visible_to(auth.principal)
    if state:
        rows = rows.filter(state=state)
    if trace_id:
        rows = rows.filter(trace_id=trace_id)
    items, following = cut(rows, page)
    return {"items": items, "next_cursor": following}


@router.get("/runs/{run_id}", response={200: RunOut} | PROBLEMS, operation_id="getRun")
def get_run(request: HttpRequest, run_id: UUID) -> Run:
    auth = caller(request, "runs:read")
    return queries.get_run(run_id, principal=auth.principal)


@router.post(
    "/runs/{run_id}/cancel",
    response={200: RunOut} | PROBLEMS,
    operation_id="cancelRun",
)
def cancel_run(request: HttpRequest, run_id: UUID, body: ReasonIn) -> Run:
    auth = caller(request, "runs:write")
    return services.cancel(by=auth.principal, run_id=run_id, reason=body.reason)


@router.get(
    "/schedules",
    response={200: list[ScheduleOut]} | PROBLEMS,
    operation_id="listSchedules",
)
def list_schedules(request: HttpRequest) -> list[Schedule]:
    auth = caller(request, "runs:read")
    return queries.schedules(principal=auth.principal)


@router.get(
    "/dead-letters",
    response={200: list[RunOut]} | PROBLEMS,
    operation_id="listDeadLetters",
)
def list_dead_letters(request: HttpRequest) -> list[Run]:
    auth = caller(request, "runs:read")
    return list(queries.dead_letters(principal=auth.principal))


@router.post(
    "/dead-letters/{run_id}",
    response={200: RunOut} | PROBLEMS,
    operation_id="actOnDeadLetter",
)
def act_on_dead_letter(request: HttpRequest, run_id: UUID, body: DeadLetterIn) -> Run:
    auth = caller(request, "runs:write")
    return services.act_on_dead_letter(
        by=auth.principal, run_id=run_id, action=body.action, reason=body.reason
    )
