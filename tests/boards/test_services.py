"""Boards: one way to a status, one event per change, nobody from outside."""

from itertools import product

import pytest

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.audit.models import Event
from apps.boards import queries, services
from apps.boards.errors import VersionConflict
from apps.boards.models import (
    TASK_TRANSITIONS,
    WORKING,
    Task,
    TaskEvent,
    TaskStatus,
)
from apps.common.errors import Denied, Invalid, InvalidTransition, NotFound
from apps.common.models import AppendOnlyError

HAND_MOVES = {
    ("todo", "in_progress"),
    ("todo", "blocked"),
    ("todo", "done"),
    ("in_progress", "todo"),
    ("in_progress", "blocked"),
    ("in_progress", "done"),
    ("blocked", "todo"),
    ("blocked", "in_progress"),
    ("blocked", "done"),
    ("done", "todo"),
    ("stale", "todo"),
    ("conflicted", "todo"),
}
PAIRS = list(product(TaskStatus.values, repeat=2))


def put(task: Task, status: str) -> Task:
    """Set the scene: a task that already stands in a status."""
    column = status if status in WORKING else "todo"
    Task.objects.filter(id=task.id).update(status=status, board_column=column)
    task.refresh_from_db()
    return task


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_transition_by_hand(task, alice, source, target):
    put(task, source)
    move = {"by": alice.principal, "task_id": task.id, "status": target}

    if (source, target) in HAND_MOVES:
        assert services.transition_task(**move, expected_version=1).status == target
    else:
        with pytest.raises(InvalidTransition):
            services.transition_task(**move, expected_version=1)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_mark(task, source, target):
    put(task, source)
    system = access.system_principal()
    mark = {"by": system, "task_id": task.id, "mark": target, "reason": "why"}
    is_mark = target in ("conflicted", "stale")

    if is_mark and (source == target or TASK_TRANSITIONS.allows(source, target)):
        assert services.mark_task(**mark).status == target
    else:
        with pytest.raises(InvalidTransition):
            services.mark_task(**mark)


def test_conflicted_never_becomes_stale():
    assert not TASK_TRANSITIONS.allows("conflicted", "stale")


def test_each_change_leaves_one_event(task, board, alice):
    by = alice.principal
    services.upsert_task(
        by=by,
        board=board,
        draft=services.TaskDraft(title="Water them", priority=3),
        task_id=task.id,
        expected_version=1,
    )
    services.transition_task(
        by=by, task_id=task.id, status="done", expected_version=2, reason="did it"
    )
    services.mark_task(by=by, task_id=task.id, mark="stale", reason="restored")

    told = queries.task_events(by, task.id)
    assert [event.type for event in told] == [
        "task_created",
        "task_updated",
        "task_transitioned",
        "task_marked",
    ]
    assert Event.objects.filter(subject_id=str(task.id)).count() == 4


def test_saying_the_same_again_changes_nothing(task, board, alice):
    again = services.upsert_task(
        by=alice.principal,
        board=board,
        draft=services.TaskDraft(title="Water the plants"),
        task_id=task.id,
        expected_version=1,
    )

    assert again.version == 1
    assert TaskEvent.objects.count() == 1


def test_old_version_is_refused(task, alice):
    services.transition_task(
        by=alice.principal, task_id=task.id, status="done", expected_version=1
    )

    with pytest.raises(VersionConflict):
        services.transition_task(
            by=alice.principal, task_id=task.id, status="todo", expected_version=1
        )


@pytest.mark.parametrize(
    ("draft", "path"),
    [
        ({"title": " "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "x", "priority": 4}, "priority"),
        ({"title": "x", "assignee_kind": "robot"}, "assigneeKind"),
        ({"title": "x", "assignee_kind": "user"}, "assigneeKind"),
        ({"title": "x", "assignee_agent": "rob"}, "assigneeKind"),
    ],
)
def test_draft_is_refused_by_field(board, alice, draft, path):
    with pytest.raises(Invalid) as caught:
        services.upsert_task(
            by=alice.principal, board=board, draft=services.TaskDraft(**draft)
        )

    assert caught.value.fields[0].path == path


def test_assignee_from_outside_is_refused(board, alice, charlie):
    draft = services.TaskDraft(
        title="x", assignee_kind="user", assignee_user_id=charlie.id
    )

    with pytest.raises(Invalid):
        services.upsert_task(by=alice.principal, board=board, draft=draft)


def test_agent_writes_in_its_own_workspace(board, rob):
    draft = services.TaskDraft(title="x", assignee_kind="agent", assignee_agent="rob")

    assert services.upsert_task(by=rob, board=board, draft=draft).status == "todo"


def test_agent_of_another_workspace_is_refused(board, rob):
    rob.workspace_id = None

    with pytest.raises(Denied):
        services.upsert_task(by=rob, board=board, draft=services.TaskDraft(title="x"))


def test_outsider_neither_sees_nor_writes(task, board, charlie):
    with pytest.raises(NotFound):
        queries.get_task(charlie.principal, task.id)
    with pytest.raises(RoleRequired):
        services.upsert_task(
            by=charlie.principal, board=board, draft=services.TaskDraft(title="x")
        )


def test_events_are_never_changed(task):
    with pytest.raises(AppendOnlyError):
        TaskEvent.objects.update(reason="other")
