"""Boards through the API."""

from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Field, Query, Router

from apps.access.models import Principal
from apps.access.policies import caller
from apps.access.queries import workspaces_of
from apps.boards import queries, services
from apps.boards.models import (
    NEXT_STEP,
    Board,
    Task,
    TaskComment,
    TaskEvent,
    TaskStatus,
)
from apps.boards.schemas import (
    BoardChangeIn,
    BoardIn,
    BoardList,
    BoardOut,
    CommentIn,
    CommentList,
    CommentOut,
    MarkIn,
    TaskCursor,
    TaskEventList,
    TaskIn,
    TaskOut,
    TaskPage,
    TaskQuery,
    TransitionIn,
    VersionIn,
)
from apps.common.errors import FieldProblem, Invalid, NotFound
from apps.common.schemas import PROBLEMS
from apps.common.scopes import needs

router = Router(tags=["boards"], by_alias=True)


@router.get(
    "/boards",
    response={200: BoardList, **PROBLEMS},
    operation_id="listBoards",
    url_name="list_boards",
)
@needs("boards:read")
def list_boards(request: HttpRequest, archived: bool = False) -> dict[str, Any]:
    """List the boards the caller sees, with how many tasks stand in each column."""
    principal = _principal(request)
    found = queries.boards(principal)
    rows = list(found.filter(archived_at__isnull=not archived)[: queries.MOST_ROWS])
    counts = queries.counts(principal, [row.id for row in rows])
    return {"items": [_board_shown(row, counts[row.id]) for row in rows]}


@router.post(
    "/boards",
    response={200: BoardOut, **PROBLEMS},
    operation_id="createBoard",
    url_name="create_board",
)
@needs("boards:write")
def create_board(request: HttpRequest, body: BoardIn) -> dict[str, Any]:
    """Make a board; `workspace` is needed only by who belongs to several."""
    principal = _principal(request)
    found = workspaces_of(principal)
    if body.workspace:
        found = found.filter(slug=body.workspace)
    workspace = found.first()
    if workspace is None:
        raise NotFound("There is no such workspace, or it is not yours.")
    board = services.create_board(
        by=principal, workspace=workspace, slug=body.slug, title=body.title
    )
    return _board_shown(board, {})


@router.post(
    "/boards/{board_id}",
    response={200: BoardOut, **PROBLEMS},
    operation_id="updateBoard",
    url_name="update_board",
)
@needs("boards:write")
def update_board(
    request: HttpRequest, board_id: UUID, body: BoardChangeIn
) -> dict[str, Any]:
    """Rename a board, archive it, or bring it back."""
    principal = _principal(request)
    board = services.update_board(
        by=principal,
        board_id=board_id,
        expected_version=body.expected_version,
        title=body.title,
        archived=body.archived,
    )
    return _board_shown(board, queries.counts(principal, [board.id])[board.id])


@router.get(
    "/tasks",
    response={200: TaskPage, **PROBLEMS},
    operation_id="listTasks",
    url_name="list_tasks",
)
@needs("boards:read")
def list_tasks(
    request: HttpRequest, wanted: Query[TaskQuery], page: Query[TaskCursor]
) -> dict[str, Any]:
    """List tasks, oldest first; `cursor` of one page asks for the next."""
    principal = _principal(request)
    after = _uuid("cursor", page.cursor) if page.cursor else None
    chosen = queries.TaskFilter(after_id=after, **wanted.dict())
    rows = list(queries.tasks(principal, chosen)[: page.limit + 1])
    more = len(rows) > page.limit
    rows = rows[: page.limit]
    return {
        "items": [_shown(row) for row in rows],
        "cursor": str(rows[-1].id) if more else "",
    }


@router.get(
    "/tasks/{task_id}",
    response={200: TaskOut, **PROBLEMS},
    operation_id="getTask",
    url_name="get_task",
)
@needs("boards:read")
def get_task(request: HttpRequest, task_id: UUID) -> dict[str, Any]:
    """Show one task."""
    return _shown(queries.get_task(_principal(request), task_id))


@router.post(
    "/tasks",
    response={200: TaskOut, **PROBLEMS},
    operation_id="upsertTask",
    url_name="upsert_task",
)
@needs("boards:write")
def upsert_task(request: HttpRequest, body: TaskIn) -> dict[str, Any]:
    """Add a task, or replace what one says (with `taskId`, `expectedVersion`).

    The header `Idempotency-Key` makes a repeated addition the same task. A task
    given to an agent profile starts a turn for it.
    """
    principal = _principal(request)
    task = services.upsert_task(
        by=principal,
        board=_board(principal, body.board),
        draft=_draft(body),
        task_id=body.taskId,
        expected_version=body.expectedVersion,
        request_key=_key(request),
    )
    return _shown(task)


@router.post(
    "/tasks/{task_id}/transition",
    response={200: TaskOut, **PROBLEMS},
    operation_id="transitionTask",
    url_name="transition_task",
)
@needs("boards:write")
def transition_task(
    request: HttpRequest, task_id: UUID, body: TransitionIn
) -> dict[str, Any]:
    """Move a task to another status."""
    principal = _principal(request)
    task = services.transition_task(
        by=principal,
        task_id=task_id,
        status=body.status,
        expected_version=body.expectedVersion,
        reason=body.reason,
    )
    return _shown(task)


@router.post(
    "/tasks/{task_id}/start",
    response={200: TaskOut, **PROBLEMS},
    operation_id="startTask",
    url_name="start_task",
)
@needs("boards:write")
def start_task(request: HttpRequest, task_id: UUID, body: VersionIn) -> dict[str, Any]:
    """Ask the assigned agent again."""
    principal = _principal(request)
    task = services.start_task(
        by=principal, task_id=task_id, expected_version=body.expected_version
    )
    return _shown(task)


@router.post(
    "/tasks/{task_id}/mark",
    response={200: TaskOut, **PROBLEMS},
    operation_id="markTask",
    url_name="mark_task",
)
@needs("boards:write")
def mark_task(request: HttpRequest, task_id: UUID, body: MarkIn) -> dict[str, Any]:
    """Say what history says about a task: `conflicted` or `stale`."""
    principal = _principal(request)
    return _shown(
        services.mark_task(
            by=principal, task_id=task_id, mark=body.mark, reason=body.reason
        )
    )


@router.post(
    "/tasks/{task_id}/revalidate",
    response={200: TaskOut, **PROBLEMS},
    operation_id="revalidateTask",
    url_name="revalidate_task",
)
@needs("boards:write")
def revalidate_task(
    request: HttpRequest, task_id: UUID, body: VersionIn
) -> dict[str, Any]:
    """Say that a stale task still holds; it returns to its column."""
    principal = _principal(request)
    task = services.revalidate_task(
        by=principal,
        task_id=task_id,
        reason=body.reason,
        expected_version=body.expected_version,
    )
    return _shown(task)


@router.get(
    "/tasks/{task_id}/events",
    response={200: TaskEventList, **PROBLEMS},
    operation_id="listTaskEvents",
    url_name="list_task_events",
)
@needs("boards:read")
def list_task_events(
    request: HttpRequest, task_id: UUID, after: Annotated[int, Field(ge=0)] = 0
) -> dict[str, Any]:
    """List what happened to a task; `after` is the last version seen."""
    principal = _principal(request)
    found = queries.task_events(principal, task_id).filter(version__gt=after)
    return {"items": [_told(row) for row in found[: queries.MOST_ROWS]]}


@router.get(
    "/tasks/{task_id}/comments",
    response={200: CommentList, **PROBLEMS},
    operation_id="listTaskComments",
    url_name="list_task_comments",
)
@needs("boards:read")
def list_task_comments(
    request: HttpRequest, task_id: UUID, after: UUID | None = None
) -> dict[str, Any]:
    """List what was said of a task; `after` is the last comment seen."""
    principal = _principal(request)
    found = queries.task_comments(principal, task_id)
    if after is not None:
        found = found.filter(id__gt=after)
    return {"items": [_said(row) for row in found[: queries.MOST_ROWS]]}


@router.post(
    "/tasks/{task_id}/comments",
    response={200: CommentOut, **PROBLEMS},
    operation_id="commentOnTask",
    url_name="comment_on_task",
)
@needs("boards:write")
def comment_on_task(
    request: HttpRequest, task_id: UUID, body: CommentIn
) -> dict[str, Any]:
    """Say something of a task; `Idempotency-Key` makes a repeat the same comment."""
    principal = _principal(request)
    comment = services.comment_on_task(
        by=principal, task_id=task_id, text=body.text, key=_key(request)
    )
    return _said(comment)


def _principal(request: HttpRequest) -> Principal:
    return caller(request).principal


def _key(request: HttpRequest) -> str:
    return request.headers.get("Idempotency-Key", "")


def _board(principal: Principal, slug: str) -> Board:
    """Find a board that the caller sees; the default one is made at first use."""
    if "\0" in slug:
        raise NotFound("There is no such board.")
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
        url=body.url,
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
        "column": task.board_column,
        "statusReason": task.status_reason,
        "nextStep": NEXT_STEP.get(TaskStatus(task.status), ""),
        "priority": task.priority,
        "dueDate": task.due_date,
        "assigneeKind": task.assignee_kind,
        "assigneeId": str(assignee or ""),
        "sessionId": task.session_id,
        "runId": task.run_id,
        "incidentId": task.incident_id,
        "url": task.url,
        "isWorking": task.turn_id is not None,
        "version": task.version,
        "createdAt": task.created_at,
        "updatedAt": task.updated_at,
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


def _said(comment: TaskComment) -> dict[str, Any]:
    return {
        "id": str(comment.id),
        "text": comment.text,
        "actor": comment.actor_label,
        "actor_kind": comment.actor_kind,
        "run_id": comment.run_id,
        "trace_id": comment.trace_id,
        "created_at": comment.created_at,
    }


def _board_shown(board: Board, tasks: dict[str, int]) -> dict[str, Any]:
    return {
        "id": str(board.id),
        "slug": board.slug,
        "title": board.title,
        "workspace": board.workspace.slug,
        "version": board.version,
        "archived_at": board.archived_at,
        "tasks": tasks,
    }
