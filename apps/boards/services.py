"""The only writers of boards and tasks."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max

from apps.access.models import Principal, User, Workspace
from apps.agents.models import AgentProfile
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid, InvalidTransition, NotFound

from .errors import VersionConflict
from .models import (
    MARKS,
    TASK_TRANSITIONS,
    AssigneeKind,
    Board,
    Task,
    TaskEvent,
    TaskEventType,
)
from .policies import check_may_write
from .queries import get_task

MOST_TITLE_CHARACTERS = 200
HIGHEST_PRIORITY = 3
#: What `upsert_task` writes; a status is not among them.
FIELDS = (
    "title",
    "body",
    "priority",
    "due_date",
    "assignee_kind",
    "assignee_user_id",
    "assignee_agent",
    "assignee_profile_id",
    "session_id",
    "run_id",
    "incident_id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDraft:
    """What a task says. A change replaces all of it."""

    title: str
    body: str = ""
    priority: int = 1
    due_date: date | None = None
    assignee_kind: str = ""
    assignee_user_id: UUID | None = None
    assignee_agent: str = ""
    assignee_profile_id: UUID | None = None
    session_id: UUID | None = None
    run_id: UUID | None = None
    incident_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a task, as its event tells it."""

    type: TaskEventType
    before: Task
    fields: dict[str, Any]
    reason: str = ""


@transaction.atomic
def ensure_board(
    *, by: Principal, workspace: Workspace, slug: str, title: str
) -> Board:
    """Return a board, making it at first use. Raises: RoleRequired."""
    found = Board.objects.filter(workspace=workspace, slug=slug).first()
    if found is not None:
        return found
    check_may_write(by, workspace)
    board = Board.objects.create(workspace=workspace, slug=slug, title=title)
    audit.record(
        type="board.created",
        actor=by.actor,
        subject=("board", str(board.id)),
        workspace_id=workspace.id,
        data={"slug": slug},
    )
    return board


@transaction.atomic
def upsert_task(
    *,
    by: Principal,
    board: Board,
    draft: TaskDraft,
    task_id: UUID | None = None,
    expected_version: int | None = None,
) -> Task:
    """Add a task, or replace what one says.

    Raises: Invalid naming the field; VersionConflict; NotFound; RoleRequired.
    Again: the same words change nothing and leave no event.
    """
    check_may_write(by, board.workspace)
    _check_draft(draft, board.workspace)
    if task_id is None:
        return _create(by, board, draft)
    task = get_task(by, task_id)
    if task.board_id != board.id:
        raise NotFound("There is no such task on this board.")
    _check_version(task, expected_version)
    fields = {
        name: getattr(draft, name)
        for name in FIELDS
        if getattr(task, name) != getattr(draft, name)
    }
    if not fields:
        return task
    return _apply(by, Change(type=TaskEventType.UPDATED, before=task, fields=fields))


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

    Raises: InvalidTransition, also for a mark; VersionConflict; NotFound.
    """
    task = get_task(by, task_id)
    check_may_write(by, task.workspace)
    _check_version(task, expected_version)
    if status in MARKS:
        raise InvalidTransition(
            f"{status} is a mark of history; nobody moves a task there by hand.",
            source=task.status,
            target=status,
        )
    TASK_TRANSITIONS.check(task.status, status)
    fields = {"status": status, "status_reason": reason[:300]}
    change = Change(
        type=TaskEventType.TRANSITIONED, before=task, fields=fields, reason=reason
    )
    return _apply(by, change)


@transaction.atomic
def mark_task(*, by: Principal, task_id: UUID, mark: str, reason: str) -> Task:
    """Say what history says about a task: `conflicted` or `stale`.

    Raises: InvalidTransition for anything else.   Again: the same mark stays.
    """
    task = get_task(by, task_id)
    check_may_write(by, task.workspace)
    if mark not in MARKS:
        raise InvalidTransition(
            f"{mark} is not a mark.", source=task.status, target=mark
        )
    if task.status == mark:
        return task
    TASK_TRANSITIONS.check(task.status, mark)
    fields = {"status": mark, "status_reason": reason[:300]}
    change = Change(
        type=TaskEventType.MARKED, before=task, fields=fields, reason=reason
    )
    return _apply(by, change)


def _create(by: Principal, board: Board, draft: TaskDraft) -> Task:
    last = board.tasks.aggregate(last=Max("position"))["last"]
    task = Task.objects.create(
        workspace_id=board.workspace_id,
        board=board,
        position=0 if last is None else last + 1,
        **{name: getattr(draft, name) for name in FIELDS},
    )
    said = {name: getattr(draft, name) for name in FIELDS if getattr(draft, name)}
    change = Change(type=TaskEventType.CREATED, before=task, fields=said)
    _tell(by, task, change)
    return task


def _apply(by: Principal, change: Change) -> Task:
    """Write a change onto the version that was read, then tell it."""
    held = Task.objects.filter(id=change.before.id, version=change.before.version)
    changed = held.update(
        **change.fields, version=F("version") + 1, updated_at=clock.now()
    )
    if changed != 1:
        raise VersionConflict(expected_version=change.before.version)
    task = Task.objects.select_related("board", "workspace").get(id=change.before.id)
    _tell(by, task, change)
    return task


def _tell(by: Principal, task: Task, change: Change) -> None:
    is_new = change.type == TaskEventType.CREATED
    TaskEvent.objects.create(
        workspace_id=task.workspace_id,
        task_id=task.id,
        type=change.type,
        from_status="" if is_new else change.before.status,
        to_status=task.status,
        version=task.version,
        actor_kind=by.actor.kind,
        actor_id=by.actor.id,
        actor_label=by.actor.label,
        reason=change.reason[:300],
        changes={name: _plain(value) for name, value in change.fields.items()},
    )
    audit.record(
        type=f"task.{change.type.removeprefix('task_')}",
        actor=by.actor,
        subject=("task", str(task.id)),
        workspace_id=task.workspace_id,
        decision=task.status,
        reason=change.reason,
        data={
            "version": task.version,
            "from": "" if is_new else change.before.status,
            "to": task.status,
            "fields": sorted(change.fields),
        },
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | str) else str(value)


def _check_version(task: Task, expected: int | None) -> None:
    if expected is None:
        raise Invalid(
            "Say which version you changed.",
            fields=(FieldProblem("expectedVersion", "missing", "an integer"),),
        )
    if task.version != expected:
        raise VersionConflict(
            f"This task is at version {task.version}, not {expected}.",
            version=task.version,
            expected_version=expected,
        )


def _check_draft(draft: TaskDraft, workspace: Workspace) -> None:
    problems = []
    if not draft.title.strip() or len(draft.title) > MOST_TITLE_CHARACTERS:
        expected = f"1 to {MOST_TITLE_CHARACTERS} characters"
        problems.append(FieldProblem("title", "empty or too long", expected))
    if not 0 <= draft.priority <= HIGHEST_PRIORITY:
        problems.append(FieldProblem("priority", "out of range", "0 to 3"))
    problems += _assignee_problems(draft, workspace)
    if problems:
        raise Invalid("This task cannot be kept so.", fields=tuple(problems))


def _assignee_problems(draft: TaskDraft, workspace: Workspace) -> list[FieldProblem]:
    """Exactly the named kind of assignee is set, and it belongs here."""
    given = {
        AssigneeKind.USER.value: draft.assignee_user_id,
        AssigneeKind.AGENT.value: draft.assignee_agent,
        AssigneeKind.AGENT_PROFILE.value: draft.assignee_profile_id,
    }
    if draft.assignee_kind and draft.assignee_kind not in given:
        return [FieldProblem("assigneeKind", "unknown", ", ".join(given))]
    kinds = [kind for kind, value in given.items() if value]
    if kinds != ([draft.assignee_kind] if draft.assignee_kind else []):
        expected = "exactly the assignee that assigneeKind names"
        return [FieldProblem("assigneeKind", "does not fit", expected)]
    return (
        []
        if _is_known(draft, workspace)
        else [FieldProblem("assigneeId", "unknown here", "a member or a profile")]
    )


def _is_known(draft: TaskDraft, workspace: Workspace) -> bool:
    if draft.assignee_user_id is not None:
        members = User.objects.filter(memberships__workspace=workspace)
        return members.filter(id=draft.assignee_user_id).exists()
    if draft.assignee_profile_id is not None:
        profiles = AgentProfile.objects.filter(workspace=workspace)
        return profiles.filter(id=draft.assignee_profile_id).exists()
    return True
