"""Reads of boards. Never writes; always within what the reader may see."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.urls import reverse

from apps.access.models import Principal, User, Workspace
from apps.agents.models import AgentProfile
from apps.boards.models import (
    MARKS,
    WORKING,
    AssigneeKind,
    Board,
    Task,
    TaskComment,
    TaskEvent,
    TaskEventType,
    TaskStatus,
)
from apps.common import clock
from apps.common.errors import NotFound
from apps.common.search import MOST_HITS, Hit, Words

MOST_ROWS = 500
#: How many cards one column shows at a time.
COLUMN_SIZE = 25
#: How many changes a conflict names.
MOST_MISSED = 10
#: How many people or agents a choice of assignees offers.
MOST_CHOICES = 200


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; empty means any.

    `who` is `mine`, `agents`, `nobody`, a user's id or `@slug` of an agent;
    `due` is `overdue` or `week`; `urgent` keeps priorities 0 and 1.
    """

    board: str = ""
    status: str = ""
    after_id: UUID | None = None
    who: str = ""
    due: str = ""
    urgent: bool = False
    marked: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One page of one column, how many there are, and where the next page starts."""

    status: str
    tasks: list[Task]
    count: int
    after: str
    next: str


def boards(principal: Principal) -> QuerySet[Board]:
    """Return the boards a principal may see, also archived ones."""
    found: QuerySet[Board] = Board.objects.visible_to(principal)
    return found.select_related("workspace").order_by("slug", "id")


def get_board(principal: Principal, board_id: UUID) -> Board:
    """Raises: NotFound, also for what the reader may not see."""
    board = boards(principal).filter(id=board_id).first()
    if board is None:
        raise NotFound("There is no such board, or it is not yours to see.")
    return board


def tasks(principal: Principal, wanted: TaskFilter) -> QuerySet[Task]:
    """Return tasks in order of creation, as keyset paging needs it."""
    found = Task.objects.visible_to(principal).select_related(
        "board", "assignee_user", "assignee_profile"
    )
    found = found.filter(_matches(principal, wanted))
    if wanted.after_id is not None:
        found = found.filter(id__gt=wanted.after_id)
    return found.order_by("id")


def columns(
    principal: Principal, board: Board, wanted: TaskFilter, after: dict[str, str]
) -> list[Column]:
    """Return one page of each column of a board.

    Reads: five queries, at most `COLUMN_SIZE + 1` rows a column.
    Shape: `after` maps a status to the cursor that a former page gave.
    """
    found = Task.objects.visible_to(principal).filter(board=board)
    found = found.filter(_matches(principal, wanted))
    sizes = found.order_by().values_list("board_column").annotate(rows=Count("id"))
    counts = dict(sizes)
    return [
        _column(found, status.value, counts.get(status, 0), after.get(status, ""))
        for status in WORKING
    ]


def _column(found: QuerySet[Task], status: str, count: int, after: str) -> Column:
    rows = found.filter(board_column=status)
    cursor = _parsed(after)
    if cursor is not None:
        position, task_id = cursor
        rows = rows.filter(
            Q(position__gt=position) | Q(position=position, id__gt=task_id)
        )
    rows = rows.select_related("assignee_user", "assignee_profile")
    page = list(rows.order_by("position", "id")[: COLUMN_SIZE + 1])
    more = len(page) > COLUMN_SIZE
    page = page[:COLUMN_SIZE]
    follows = f"{page[-1].position}.{page[-1].id.hex}" if more else ""
    return Column(status, page, count, after if cursor else "", follows)


def _parsed(cursor: str) -> tuple[int, UUID] | None:
    position, _, task_id = cursor.partition(".")
    if len(position) > 18:
        return None
    try:
        return int(position), UUID(task_id)
    except ValueError:
        return None


def _matches(principal: Principal, wanted: TaskFilter) -> Q:
    """What a filter asks for, as one condition."""
    if any("\0" in each for each in (wanted.board, wanted.status, wanted.text)):
        return Q(pk__in=())
    found = _assigned(principal, wanted.who)
    today = clock.now().date()
    if wanted.board:
        found &= Q(board__slug=wanted.board)
    if wanted.status:
        found &= Q(status=wanted.status)
    if wanted.urgent:
        found &= Q(priority__lte=1)
    if wanted.marked:
        found &= Q(status__among=MARKS)
    if wanted.due == "overdue":
        found &= Q(due_date__lt=today) & ~Q(board_column=TaskStatus.DONE)
    if wanted.due == "week":
        found &= Q(due_date__gte=today, due_date__lte=today + timedelta(days=7))
    if wanted.text:
        found &= Q(title__icontains=wanted.text)
    return found


def _assigned(principal: Principal, who: str) -> Q:
    if not who:
        return Q()
    if who == "mine":
        return Q(assignee_user_id=principal.user_id, assignee_user_id__isnull=False)
    if who == "agents":
        return Q(assignee_kind__in=(AssigneeKind.AGENT, AssigneeKind.AGENT_PROFILE))
    if who == "nobody":
        return Q(assignee_kind="")
    if who.startswith("@") and "\0" not in who:
        return Q(assignee_profile__slug=who[1:]) | Q(assignee_agent=who[1:])
    try:
        return Q(assignee_user_id=UUID(who))
    except ValueError:
        return Q(pk__in=())


def get_task(principal: Principal, task_id: UUID) -> Task:
    """Raises: NotFound, also for what the reader may not see."""
    found = Task.objects.visible_to(principal).select_related(
        "board", "workspace", "assignee_user", "assignee_profile"
    )
    task = found.filter(id=task_id).first()
    if task is None:
        raise NotFound("There is no such task.")
    return task


def task_events(principal: Principal, task_id: UUID) -> QuerySet[TaskEvent]:
    """Return what happened to a task, first things first. Raises: NotFound."""
    get_task(principal, task_id)
    found = TaskEvent.objects.visible_to(principal).filter(task_id=task_id)
    return found.order_by("version")


def task_comments(principal: Principal, task_id: UUID) -> QuerySet[TaskComment]:
    """Return what was said of a task, first things first. Raises: NotFound."""
    get_task(principal, task_id)
    found = TaskComment.objects.visible_to(principal).filter(task_id=task_id)
    return found.order_by("id")


def missed_changes(task_id: UUID, version: int) -> list[TaskEvent]:
    """Return what happened to a task after a version, first things first."""
    found = TaskEvent.objects.filter(task_id=task_id, version__gt=version)
    return list(found.order_by("-version")[:MOST_MISSED])[::-1]


#: Fields as a person calls them; what is not listed needs no word.
WORDS = {
    "title": "the title",
    "body": "the description",
    "priority": "the priority",
    "due_date": "the due date",
    "assignee_kind": "the assignee",
    "assignee_user_id": "the assignee",
    "assignee_profile_id": "the assignee",
    "assignee_agent": "the assignee",
    "session_id": "a link",
    "run_id": "a link",
    "incident_id": "a link",
    "url": "a link",
}


def in_words(event: TaskEvent) -> str:
    """Tell one event as a sentence: who did what."""
    who, to = event.actor_label, event.to_status.replace("_", " ")
    if event.type == TaskEventType.CREATED:
        return f"{who} made it."
    if event.type == TaskEventType.MARKED:
        return f"{who} marked it {to}."
    if event.type == TaskEventType.TRANSITIONED:
        source = event.from_status.replace("_", " ")
        return f"{who} moved it from {source} to {to}."
    names = list(dict.fromkeys(WORDS[name] for name in event.changes if name in WORDS))
    return f"{who} changed {', '.join(names) or 'what it waits for'}."


def people(workspace: Workspace) -> QuerySet[User]:
    """Return whom a task of a workspace may be given to."""
    found = User.objects.filter(memberships__workspace=workspace, is_active=True)
    return found.order_by("username")[:MOST_CHOICES]


def agents(workspace: Workspace) -> QuerySet[AgentProfile]:
    """Return the agents that a task of a workspace may be given to."""
    found = AgentProfile.objects.active().filter(workspace=workspace)
    return found.order_by("slug")[:MOST_CHOICES]


def counts(principal: Principal, board_ids: list[UUID]) -> dict[UUID, dict[str, int]]:
    """Count the tasks of boards by column, and those that are marked, at once."""
    found: dict[UUID, dict[str, int]] = {board_id: {} for board_id in board_ids}
    rows: Any = Task.objects.visible_to(principal).filter(board__in=board_ids)
    for board_id, column, status, number in (
        rows.order_by()
        .values_list("board_id", "board_column", "status")
        .annotate(rows=Count("id"))
    ):
        sums = found[board_id]
        sums[column] = sums.get(column, 0) + number
        if status in MARKS:
            sums["marked"] = sums.get("marked", 0) + number
    return found


def find(words: Words, principal: Principal) -> Iterator[Hit]:
    """Find tasks by id or by the words of their title."""
    tasks = Task.objects.visible_to(principal).select_related("board")
    named = Q(pk=words.id) if words.id else Q(title__icontains=words.text)
    for task in tasks.filter(named).order_by("-pk")[:MOST_HITS]:
        url = reverse("boards:task", args=[task.pk])
        detail = f"{task.board.title}, {task.get_status_display()}"
        yield Hit("Task", task.title, url, detail, is_exact=words.id is not None)
