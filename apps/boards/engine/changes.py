"""One change of one task: written onto the version that was read, then told.

Invariants: a change, its event and its audit entry are one commit; whoever was
second is refused and told what the first one did.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db.models import F

from apps.access.models import Principal
from apps.audit import services as audit
from apps.boards import queries
from apps.boards.errors import VersionConflict
from apps.boards.models import (
    WORKING,
    Board,
    Task,
    TaskEvent,
    TaskEventType,
    TaskStatus,
)
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid

#: A task without a due date stands behind every one that has one.
NEVER = date(9999, 12, 31)
REASON_LENGTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a task: the fields that change, and why."""

    type: TaskEventType
    before: Task
    fields: dict[str, Any]
    reason: str = ""


def place(status: str, priority: int, due_date: date | None) -> int:
    """Return where a task stands in its column, the first lowest.

    Urgent before due before the rest; what is done stands newest first.
    """
    if status == TaskStatus.DONE:
        return -int(clock.now().timestamp())
    due = due_date or NEVER
    return priority * 100_000_000 + due.year * 10_000 + due.month * 100 + due.day


def create(by: Principal, board: Board, fields: dict[str, Any], key: str) -> Task:
    """Write a new task with its event."""
    task = Task.objects.create(
        workspace_id=board.workspace_id,
        board=board,
        position=place(TaskStatus.TODO, fields["priority"], fields["due_date"]),
        updated_at=clock.now(),
        request_key=key or None,
        **fields,
    )
    said = {name: value for name, value in fields.items() if value}
    _tell(by, task, Change(type=TaskEventType.CREATED, before=task, fields=said))
    return task


def apply(by: Principal, change: Change) -> Task:
    """Write a change onto the version that was read. Raises: VersionConflict."""
    before = change.before
    held = Task.objects.filter(id=before.id, version=before.version)
    changed = held.update(
        **change.fields,
        **_follows(before, change.fields),
        version=F("version") + 1,
        updated_at=clock.now(),
    )
    if changed != 1:
        raise conflict(before, before.version)
    task = Task.objects.select_related("board", "workspace").get(id=before.id)
    _tell(by, task, change)
    return task


def check_version(task: Task, expected: int | None) -> None:
    """Refuse who has not read the newest version. Raises: Invalid, VersionConflict."""
    if expected is None:
        raise Invalid(
            "Say which version you changed.",
            fields=(FieldProblem("expectedVersion", "missing", "an integer"),),
        )
    if task.version != expected:
        raise conflict(task, expected)


def conflict(task: Task, expected: int) -> VersionConflict:
    """Say who changed what since the version that was read."""
    missed = queries.missed_changes(task.id, expected)
    now = missed[-1].version if missed else task.version
    told = " ".join(queries.in_words(event) for event in missed[-3:])
    return VersionConflict(
        f"This task is at version {now}, not {expected}. {told}".strip(),
        version=now,
        expectedVersion=expected,
        changes=[
            {
                "by": event.actor_label,
                "what": queries.in_words(event),
                "version": event.version,
                "occurredAt": event.created_at.isoformat(),
            }
            for event in missed
        ],
    )


def _follows(before: Task, fields: dict[str, Any]) -> dict[str, Any]:
    """What a change brings with it: the column, and the place in it."""
    status = fields.get("status", before.status)
    column = status if status in WORKING else before.board_column
    moved = column != before.board_column
    if not moved and not {"priority", "due_date"} & set(fields):
        return {"board_column": column}
    if not moved and column == TaskStatus.DONE:
        return {"board_column": column}
    priority = fields.get("priority", before.priority)
    due_date = fields.get("due_date", before.due_date)
    return {"board_column": column, "position": place(column, priority, due_date)}


def _tell(by: Principal, task: Task, change: Change) -> None:
    source = "" if change.type == TaskEventType.CREATED else change.before.status
    TaskEvent.objects.create(
        workspace_id=task.workspace_id,
        task_id=task.id,
        type=change.type,
        from_status=source,
        to_status=task.status,
        version=task.version,
        actor_kind=by.actor.kind,
        actor_id=by.actor.id,
        actor_label=by.actor.label,
        reason=change.reason[:REASON_LENGTH],
        changes={name: _plain(value) for name, value in change.fields.items()},
    )
    audit.record(
        type=f"task.{change.type.removeprefix('task_')}",
        actor=by.actor,
        subject=("task", str(task.id)),
        workspace_id=task.workspace_id,
        decision=task.status,
        reason=change.reason[:REASON_LENGTH],
        data={
            "version": task.version,
            "from": source,
            "to": task.status,
            "fields": sorted(change.fields),
        },
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | str) else str(value)
