"""Boards through the API."""

from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Field, Router

from apps.access.models import Principal
from apps.access.policies import Authenticated, check_scope
from apps.access.queries import workspaces_of
from apps.common.errors import FieldProblem, Invalid, NotFound

from . import queries, services
from .models import Board, Task, TaskEvent
from .schemas import TaskEventList, TaskIn, TaskOut, TaskPage, TransitionIn

router = Router(tags=["boards"], by_alias=True)


@router.get(
    "/tasks", response=TaskPage, operation_id="listTasks", url_name="list_tasks"
)
def list_tasks(
    request: HttpRequest,
    board: str = "",
    status: str = "",
    cursor: str = "",
    limit: Annotated[int, Field(ge=1, le=queries.MOST_ROWS)] = 100,
) -> dict[str, Any]:
    """List tasks, oldest first; `cursor` of one page asks for the next."""
    principal = _principal(request, "boards:read")
    after = _uuid("cursor", cursor) if cursor else None
    wanted = queries.TaskFilter(board=board, status=status, after_id=after)
    rows = list(queries.tasks(principal, wanted)[: limit + 1])
    more = len(rows) > limit
    rows = rows[:limit]
    return {
        "items": [_shown(row) for row in rows],
        "cursor": str(rows[-1].id) if more else "",
    }


@router.post(
    "/tasks", response=TaskOut, operation_id="upsertTask", url_name="upsert_task"
)
def upsert_task(request: HttpRequest, body: TaskIn) -> dict[str, Any]:
    """Add a task, or replace what one says (with `taskId`, `expectedVersion`)."""
    principal = _principal(request, "boards:write")
    task = services.upsert_task(
        by=principal,
        board=_board(principal, body.board),
        draft=_draft(body),
        task_id=body.taskId,
        expected_version=body.expectedVersion,
    )
    return _shown(task)


@router.post(
    "/tasks/{task_id}/transition",
    response=TaskOut,
    operation_id="transitionTask",
    url_name="transition_task",
)
def transition_task(
    request: HttpRequest, task_id: UUID, body: TransitionIn
) -> dict[str, Any]:
    """Move a task to another status."""
    principal = _principal(request, "boards:write")
    task = services.transition_task(
        by=principal,
        task_id=task_id,
        status=body.status,
        expected_version=body.expectedVersion,
        reason=body.reason,
    )
    return _shown(task)


@router.get(
    "/tasks/{task_id}/events",
    response=TaskEventList,
    operation_id="listTaskEvents",
    url_name="list_task_events",
)
def list_task_events(request: HttpRequest, task_id: UUID) -> dict[str, Any]:
    """List what happened to a task."""
    principal = _principal(request, "boards:read")
    rows = queries.task_events(principal, task_id)[: queries.MOST_ROWS]
    return {"items": [_told(row) for row in rows]}


def _principal(request: HttpRequest, scope: str) -> Principal:
    auth: Authenticated = request.auth  # type: ignore[attr-defined]
    check_scope(auth, scope)
    return auth.principal


def _board(principal: Principal, slug: str) -> Board:
    """Find a board that the caller sees; the default one is made at first use."""
    found: Board | None = queries.boards(principal).filter(slug=slug).first()
    if found is not None:
        return found
    workspace = workspaces_of(principal).first()
    if slug != "default" or workspace is None:
        raise NotFound(f"There is no board {slug}.")
    return services.ensure_board(
        by=principal, workspace=workspace, slug=slug, title="Tasks"
    )


def _draft(body: TaskIn) -> services.TaskDraft:
    kind, given = body.assigneeKind, body.assigneeId
    return services.TaskDraft(
        title=body.title,
        body=body.body,
        priority=body.priority,
        due_date=body.dueDate,
        assignee_kind=kind,
        assignee_user_id=_uuid("assigneeId", given) if kind == "user" else None,
        assignee_agent=given if kind == "agent" else "",
        assignee_profile_id=(
            _uuid("assigneeId", given) if kind == "agent_profile" else None
        ),
        session_id=body.sessionId,
        run_id=body.runId,
        incident_id=body.incidentId,
    )


def _uuid(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Invalid(
            f"{name} is not an id.", fields=(FieldProblem(name, "not a UUID", "UUID"),)
        ) from error


def _shown(task: Task) -> dict[str, Any]:
    assignee = task.assignee_user_id or task.assignee_profile_id or task.assignee_agent
    return {
        "id": str(task.id),
        "board": task.board.slug,
        "title": task.title,
        "body": task.body,
        "status": task.status,
        "statusReason": task.status_reason,
        "priority": task.priority,
        "dueDate": task.due_date,
        "assigneeKind": task.assignee_kind,
        "assigneeId": str(assignee or ""),
        "sessionId": task.session_id,
        "runId": task.run_id,
        "incidentId": task.incident_id,
        "version": task.version,
        "createdAt": task.created_at,
    }


def _told(event: TaskEvent) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "type": event.type,
        "fromStatus": event.from_status,
        "toStatus": event.to_status,
        "version": event.version,
        "actor": event.actor_label,
        "reason": event.reason,
        "changes": event.changes,
        "occurredAt": event.created_at,
    }
