"""The only writers of boards and tasks.

Invariants: a change, its event and its audit entry are one commit; two writers of
one version never both win; an agent set to work by a task is asked once.
"""

import re
from collections.abc import Iterable
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F

from apps.access.models import Principal, Workspace
from apps.audit import services as audit
from apps.boards import policies, queries
from apps.boards.engine import changes, drafts, working
from apps.boards.engine.changes import REASON_LENGTH, Change
from apps.boards.engine.drafts import TaskDraft
from apps.boards.errors import VersionConflict
from apps.boards.models import (
    MARKS,
    TASK_TRANSITIONS,
    WORKING,
    AssigneeKind,
    Board,
    Task,
    TaskComment,
    TaskEventType,
    TaskStatus,
)
from apps.common import clock
from apps.common.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    InvalidTransition,
    NotFound,
)

__all__ = ["TaskDraft"]

RUN_KIND = working.RUN_KIND
SLUG = re.compile(r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")
ASSIGNEE = frozenset(
    {"assignee_kind", "assignee_user_id", "assignee_agent", "assignee_profile_id"}
)


@transaction.atomic
def ensure_board(
    *, by: Principal, workspace: Workspace, slug: str, title: str
) -> Board:
    """Return a board, making it at first use. Raises: RoleRequired, Invalid."""
    found: Board | None = Board.objects.filter(workspace=workspace, slug=slug).first()
    if found is not None:
        return found
    return create_board(by=by, workspace=workspace, slug=slug, title=title)


@transaction.atomic
def create_board(
    *, by: Principal, workspace: Workspace, slug: str, title: str
) -> Board:
    """Make a board. Raises: RoleRequired, Invalid, Conflict for a slug in use."""
    policies.check_may_write(by, workspace)
    title = _board_title(title)
    if not SLUG.match(slug):
        expected = "1 to 64 of a-z, 0-9, _ and -"
        problem = FieldProblem("slug", "not a slug", expected)
        raise Invalid("This board cannot be called so.", fields=(problem,))
    board, is_new = Board.objects.get_or_create(
        workspace=workspace, slug=slug, defaults={"title": title}
    )
    if not is_new:
        raise Conflict(f"There is a board {slug} already.", slug=slug)
    _record_board(board, by, "board.created", title=title)
    return board


@transaction.atomic
def update_board(
    *,
    by: Principal,
    board_id: UUID,
    expected_version: int,
    title: str | None = None,
    archived: bool | None = None,
) -> Board:
    """Rename a board, archive it, or bring it back.

    Raises: NotFound, RoleRequired, Invalid, VersionConflict.
    Again: the same words change nothing.
    """
    board = queries.get_board(by, board_id)
    policies.check_may_write(by, board.workspace)
    title = board.title if title is None else _board_title(title)
    was = board.archived_at
    archived_at = (
        was if archived is None else ((was or clock.now()) if archived else None)
    )
    if board.version != expected_version:
        raise VersionConflict(
            f"This board is at version {board.version}, not {expected_version}.",
            version=board.version,
        )
    if (title, archived_at) == (board.title, was):
        return board
    changed = Board.objects.filter(id=board.id, version=expected_version).update(
        title=title, archived_at=archived_at, version=F("version") + 1
    )
    if changed != 1:
        raise VersionConflict("Somebody else changed this board first.")
    board.refresh_from_db()
    _record_board(board, by, "board.updated", title=title, archived=bool(archived_at))
    return board


@transaction.atomic
def upsert_task(
    *,
    by: Principal,
    board: Board,
    draft: TaskDraft,
    task_id: UUID | None = None,
    expected_version: int | None = None,
    request_key: str = "",
) -> Task:
    """Add a task, or replace what one says. An assigned agent profile is asked.

    Raises: Invalid naming the field; VersionConflict; NotFound; RoleRequired;
    BoardArchived.
    Again: the same words change nothing and leave no event; the same
    `request_key` of the same principal gives the task it made.
    """
    policies.check_may_write(by, board.workspace)
    policies.check_open(board)
    drafts.check(draft, board.workspace)
    if task_id is None:
        return _create(by, board, draft, request_key)
    task = queries.get_task(by, task_id)
    if task.board_id != board.id:
        raise NotFound("There is no such task on this board.")
    changes.check_version(task, expected_version)
    fields = {
        name: value
        for name, value in draft.fields().items()
        if getattr(task, name) != value
    }
    if not fields:
        return task
    reassigned = bool(ASSIGNEE & set(fields))
    if reassigned:
        fields |= working.release(by, task)
    task = changes.apply(
        by, Change(type=TaskEventType.UPDATED, before=task, fields=fields)
    )
    return _start_if_wanted(by, task) if reassigned else task


@transaction.atomic
def transition_task(
    *,
    by: Principal,
    task_id: UUID,
    status: str,
    expected_version: int,
    reason: str = "",
) -> Task:
    """Move a task along the table; the one way to set a status by hand.

    Raises: InvalidTransition, also for a mark and out of one anywhere but `todo`;
    VersionConflict; NotFound; BoardArchived.
    """
    task = queries.get_task(by, task_id)
    policies.check_may_write(by, task.workspace)
    policies.check_open(task.board)
    changes.check_version(task, expected_version)
    _check_by_hand(by, task, status)
    fields = {"status": status, "status_reason": _reason(reason)}
    change = Change(
        type=TaskEventType.TRANSITIONED, before=task, fields=fields, reason=reason
    )
    return changes.apply(by, change)


@transaction.atomic
def start_task(*, by: Principal, task_id: UUID, expected_version: int) -> Task:
    """Ask the assigned agent again, with what was said since.

    Raises: Invalid when no agent is assigned; StillWorking; VersionConflict;
    InvalidTransition for a task that is done or marked; Denied; NotFound.
    """
    task = queries.get_task(by, task_id)
    policies.check_may_start(by, task.workspace)
    policies.check_open(task.board)
    changes.check_version(task, expected_version)
    if task.assignee_kind != AssigneeKind.AGENT_PROFILE:
        problem = FieldProblem("assigneeKind", "no agent", "agent_profile")
        raise Invalid("Assign an agent first.", fields=(problem,))
    if task.status != TaskStatus.IN_PROGRESS:
        _check_by_hand(by, task, TaskStatus.IN_PROGRESS)
    return working.start(by, task)


@transaction.atomic
def comment_on_task(
    *, by: Principal, task_id: UUID, text: str, key: str = ""
) -> TaskComment:
    """Say something of a task.

    Raises: Invalid, NotFound, RoleRequired.   Again: the same key of the same
    principal gives the comment it made.
    """
    task = queries.get_task(by, task_id)
    policies.check_may_write(by, task.workspace)
    text = text.strip()
    if not text or len(text) > drafts.MOST_BODY_CHARACTERS or drafts.NUL in text:
        expected = f"1 to {drafts.MOST_BODY_CHARACTERS} characters"
        problem = FieldProblem("text", "empty or too long", expected)
        raise Invalid("This comment cannot be kept.", fields=(problem,))
    row = {
        "workspace_id": task.workspace_id,
        "task_id": task.id,
        "text": text,
        "actor_kind": by.actor.kind,
        "actor_id": by.actor.id,
        "actor_label": by.actor.label,
    }
    if key:
        comment, is_new = TaskComment.objects.get_or_create(
            key=_own_key(by, f"{task.id}:{key}"), defaults=row
        )
        if not is_new:
            return comment
    else:
        comment = TaskComment.objects.create(**row)
    audit.record(
        type="task.commented",
        actor=by.actor,
        subject=("task", str(task.id)),
        workspace_id=task.workspace_id,
        data={"comment": str(comment.id), "characters": len(text)},
    )
    return comment


@transaction.atomic
def mark_task(*, by: Principal, task_id: UUID, mark: str, reason: str) -> Task:
    """Say what history says about a task: `conflicted` or `stale`.

    Raises: InvalidTransition for anything else; Denied for an agent; NotFound.
    Again: the same mark stays.
    """
    task = _held(by, task_id)
    policies.check_may_judge(by, task.workspace)
    if mark not in MARKS:
        raise InvalidTransition(
            f"{mark} is not a mark.", source=task.status, target=mark
        )
    if task.status == mark:
        return task
    TASK_TRANSITIONS.check(task.status, mark)
    fields = {"status": mark, "status_reason": _reason(reason)}
    change = Change(
        type=TaskEventType.MARKED, before=task, fields=fields, reason=reason
    )
    return changes.apply(by, change)


def mark_tasks_of_runs(
    *, by: Principal, run_ids: Iterable[UUID], mark: str, reason: str
) -> list[Task]:
    """Mark every task that links to one of these runs, each in its own commit.

    Again: what has the mark, or the heavier one, is left alone.
    """
    found = Task.objects.visible_to(by).filter(run_id__in=list(run_ids))
    return [
        mark_task(by=by, task_id=task.id, mark=mark, reason=reason)
        for task in found.order_by("id")
        if TASK_TRANSITIONS.allows(task.status, mark)
    ]


@transaction.atomic
def revalidate_task(
    *,
    by: Principal,
    task_id: UUID,
    reason: str,
    expected_version: int | None = None,
) -> Task:
    """Say that a stale task still holds: it returns to the column it stood in.

    Raises: InvalidTransition when it is not stale; VersionConflict; Denied.
    """
    task = _held(by, task_id)
    policies.check_may_judge(by, task.workspace)
    if expected_version is not None:
        changes.check_version(task, expected_version)
    if task.status != TaskStatus.STALE:
        raise InvalidTransition(
            f"Only a stale task is checked again; this one is {task.status}.",
            source=task.status,
            target=task.board_column,
        )
    TASK_TRANSITIONS.check(task.status, task.board_column)
    fields = {"status": task.board_column, "status_reason": _reason(reason)}
    change = Change(
        type=TaskEventType.TRANSITIONED, before=task, fields=fields, reason=reason
    )
    return changes.apply(by, change)


@transaction.atomic
def settle_turn(*, turn_id: UUID) -> bool:
    """Let the result of a turn move the task that awaits it.

    Returns whether something changed.   Again: nothing.
    """
    task_id = Task.objects.filter(turn_id=turn_id).values_list("id", flat=True).first()
    return task_id is not None and working.settle(task_id)


def settle_awaited() -> int:
    """Settle the tasks whose turn ended without saying so, or was set aside.

    Again: idempotent, in any number of processes at once.
    """
    return sum(map(_settle_one, working.with_news()))


@transaction.atomic
def _settle_one(task_id: UUID) -> bool:
    return working.settle(task_id)


def _create(by: Principal, board: Board, draft: TaskDraft, request_key: str) -> Task:
    key = _own_key(by, request_key) if request_key else ""
    if key and (before := _made_with(key, board)) is not None:
        return before
    try:
        with transaction.atomic():
            task = changes.create(by, board, draft.fields(), key)
    except IntegrityError:
        # The same request came twice at once, and the other one was first.
        if not key or (before := _made_with(key, board)) is None:
            raise
        return before
    return _start_if_wanted(by, task)


def _made_with(key: str, board: Board) -> Task | None:
    rows = Task.objects.select_related("board", "workspace")
    found: Task | None = rows.filter(request_key=key).first()
    if found is not None and found.board_id != board.id:
        raise Conflict("This key made a task on another board.")
    return found


def _start_if_wanted(by: Principal, task: Task) -> Task:
    if not working.starts(task):
        return task
    policies.check_may_start(by, task.workspace)
    return working.start(by, task)


def _check_by_hand(by: Principal, task: Task, status: str) -> None:
    if status in MARKS:
        raise InvalidTransition(
            f"{status} is a mark of history; nobody moves a task there by hand.",
            source=task.status,
            target=status,
        )
    if task.status in MARKS:
        policies.check_may_judge(by, task.workspace)
        if status in WORKING and status != TaskStatus.TODO:
            raise InvalidTransition(
                f"A {task.status} task stands still: check it again, or take it "
                "up again from To do.",
                source=task.status,
                target=status,
            )
    TASK_TRANSITIONS.check(task.status, status)


def _held(by: Principal, task_id: UUID) -> Task:
    """Read a task and hold its row until the commit. Raises: NotFound."""
    queries.get_task(by, task_id)
    rows = Task.objects.select_for_update(of=("self",))
    task: Task = rows.select_related("board", "workspace").get(id=task_id)
    return task


def _board_title(title: str) -> str:
    title = title.strip()
    if not title or len(title) > 160 or drafts.NUL in title:
        problem = FieldProblem("title", "empty or too long", "1 to 160 characters")
        raise Invalid("This board cannot be called so.", fields=(problem,))
    return title


def _own_key(by: Principal, key: str) -> str:
    if len(key) > 100 or drafts.NUL in key:
        problem = FieldProblem("Idempotency-Key", "too long", "at most 60 characters")
        raise Invalid("This key is too long.", fields=(problem,))
    return f"{by.id}:{key}"


def _reason(text: str) -> str:
    if drafts.NUL in text:
        problem = FieldProblem("reason", "holds U+0000", "text")
        raise Invalid("This reason cannot be kept.", fields=(problem,))
    return text.strip()[:REASON_LENGTH]


def _record_board(board: Board, by: Principal, event: str, **facts: object) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("board", str(board.id)),
        workspace_id=board.workspace_id,
        data={"slug": board.slug, **facts},
    )
