"""Reads of boards. Never writes; always within what the reader may see."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import QuerySet

from apps.access.models import Principal
from apps.common.errors import NotFound

from .models import Board, Task, TaskEvent

MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; empty means any."""

    board: str = ""
    status: str = ""
    after_id: UUID | None = None


def boards(principal: Principal) -> QuerySet[Board]:
    return Board.objects.visible_to(principal).order_by("slug", "id")


def tasks(principal: Principal, wanted: TaskFilter) -> QuerySet[Task]:
    """Return tasks in order of creation, as keyset paging needs it."""
    found = Task.objects.visible_to(principal).select_related(
        "board", "assignee_user", "assignee_profile"
    )
    if wanted.board:
        found = found.filter(board__slug=wanted.board)
    if wanted.status:
        found = found.filter(status=wanted.status)
    if wanted.after_id is not None:
        found = found.filter(id__gt=wanted.after_id)
    return found.order_by("id")


def get_task(principal: Principal, task_id: UUID) -> Task:
    """Raises: NotFound, also for what the reader may not see."""
    found = Task.objects.visible_to(principal).select_related("board", "workspace")
    task = found.filter(id=task_id).first()
    if task is None:
        raise NotFound("There is no such task.")
    return task


def task_events(principal: Principal, task_id: UUID) -> QuerySet[TaskEvent]:
    """Return what happened to a task, first things first. Raises: NotFound."""
    get_task(principal, task_id)
    found = TaskEvent.objects.visible_to(principal).filter(task_id=task_id)
    return found.order_by("version")
