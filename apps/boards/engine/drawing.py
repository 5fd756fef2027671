"""A board as a page shows it: columns of cards, and the address that chose them.

Hides: how a filter and a place in a column are written in an address.
Invariant: drawing a board reads a fixed number of rows and statements.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import QueryDict

from apps.access.models import Principal
from apps.boards import policies, queries
from apps.boards.models import MARKS, NEXT_STEP, WORKING, Board, Task, TaskStatus
from apps.common import clock
from apps.runs.models import Run

LABELS = {
    TaskStatus.TODO: "To do",
    TaskStatus.IN_PROGRESS: "In progress",
    TaskStatus.BLOCKED: "Blocked",
    TaskStatus.DONE: "Done",
}
#: Whose cards the filter offers by name.
WHO = {"": "Everyone", "mine": "Mine", "agents": "Agents", "nobody": "Nobody"}
DUE = {"": "Any due date", "overdue": "Overdue", "week": "Next 7 days"}
FILTERS = ("who", "due", "urgent", "marked", "q", *WORKING)


@dataclass(frozen=True, slots=True)
class Card:
    """One task as the board draws it."""

    task: Task
    who: str
    run: Run | None
    is_overdue: bool
    is_marked: bool
    next_step: str


def region(params: QueryDict, principal: Principal, found: Board) -> dict[str, Any]:
    """The cards that the address asks for, and the address itself."""
    wanted = queries.TaskFilter(
        who=text(params.get("who", "")),
        due=params.get("due", ""),
        urgent=params.get("urgent") == "1",
        marked=params.get("marked") == "1",
        text=text(params.get("q", "")),
    )
    after = {str(status): params.get(status, "") for status in WORKING}
    columns = queries.columns(principal, found, wanted, after)
    ids = [task.run_id for column in columns for task in column.tasks if task.run_id]
    runs = Run.objects.visible_to(principal).filter(id__in=ids)
    run_of = {run.id: run for run in runs.only("id", "state", "trace_id")}
    drawn = [
        {
            "status": column.status,
            "label": LABELS[TaskStatus(column.status)],
            "count": column.count,
            "cards": [draw(task, run_of) for task in column.tasks],
            "next": query(params, {column.status: column.next}),
            "has_next": bool(column.next),
            "top": query(params, {column.status: ""}),
            "is_later": bool(column.after),
        }
        for column in columns
    ]
    may_write = found.archived_at is None and policies.can_write(
        principal, found.workspace
    )
    return {
        "board": found,
        "columns": drawn,
        "query": query(params, {}),
        "wanted": wanted,
        "is_filtered": wanted != queries.TaskFilter(),
        "may_write": may_write,
        "marks": sum(task.status in MARKS for each in columns for task in each.tasks),
    }


def draw(task: Task, run_of: dict[UUID, Run]) -> Card:
    due = task.due_date
    is_done = task.board_column == TaskStatus.DONE
    return Card(
        task=task,
        who=who(task),
        run=run_of.get(task.run_id) if task.run_id else None,
        is_overdue=due is not None and due < clock.now().date() and not is_done,
        is_marked=task.status in MARKS,
        next_step=NEXT_STEP.get(TaskStatus(task.status), ""),
    )


def who(task: Task) -> str:
    if task.assignee_user is not None:
        return task.assignee_user.username
    if task.assignee_profile is not None:
        return f"@{task.assignee_profile.slug}"
    return task.assignee_agent


def text(value: str) -> str:
    return value.replace("\0", "").strip()[:200]


def query(params: QueryDict, changed: dict[str, str]) -> str:
    """The filters of an address, with some of them changed; empty ones left out."""
    kept = QueryDict(mutable=True)
    for name in FILTERS:
        value = changed.get(name, params.get(name, ""))
        if value:
            kept[name] = value
    return kept.urlencode()
