"""Boards, their tasks, and what happened to each task."""

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from apps.access.models import User, Workspace, WorkspaceQuerySet
from apps.agents.models import AgentProfile
from apps.audit import ports as audit_ports
from apps.common.models import AppendOnly, AppendOnlyQuerySet, Row
from apps.common.states import Transitions

audit_ports.declare(
    "board.created",
    "task.created",
    "task.updated",
    "task.transitioned",
    "task.marked",
)


class TaskStatus(models.TextChoices):
    TODO = "todo"
    IN_PROGRESS = "in_progress"
    BLOCKED = "blocked"
    DONE = "done"
    CONFLICTED = "conflicted"
    STALE = "stale"


S = TaskStatus
#: What a person or an agent may ask for.
WORKING = (S.TODO, S.IN_PROGRESS, S.BLOCKED, S.DONE)
#: What history says about a task; set by `mark_task` alone.
MARKS = (S.CONFLICTED, S.STALE)

#: A marked task is taken up again from `todo`, by somebody who has looked.
TASK_TRANSITIONS = Transitions(
    "task",
    initial=S.TODO,
    table={
        S.TODO: [S.IN_PROGRESS, S.BLOCKED, S.DONE, *MARKS],
        S.IN_PROGRESS: [S.TODO, S.BLOCKED, S.DONE, *MARKS],
        S.BLOCKED: [S.TODO, S.IN_PROGRESS, S.DONE, *MARKS],
        S.DONE: [S.TODO, *MARKS],
        S.STALE: [S.TODO, S.CONFLICTED],
        S.CONFLICTED: [S.TODO],
    },
)


class AssigneeKind(models.TextChoices):
    USER = "user"
    AGENT = "agent"
    AGENT_PROFILE = "agent_profile"


class TaskEventType(models.TextChoices):
    CREATED = "task_created"
    UPDATED = "task_updated"
    TRANSITIONED = "task_transitioned"
    MARKED = "task_marked"


class Board(Row):
    """A list of tasks that belong together."""

    workspace = models.ForeignKey(Workspace, models.CASCADE)
    slug = models.SlugField(max_length=64)
    title = models.CharField(max_length=160)

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "slug"], name="board_slug_once"
            )
        ]

    def __str__(self) -> str:
        return self.slug


class Task(Row):
    """One thing to do. `version` grows with each change."""

    workspace = models.ForeignKey(Workspace, models.CASCADE)
    board = models.ForeignKey(Board, models.CASCADE, related_name="tasks")
    title = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    status = models.CharField(max_length=12, choices=S.choices, default=S.TODO)
    status_reason = models.CharField(max_length=300, blank=True)
    priority = models.PositiveSmallIntegerField(default=1)
    due_date = models.DateField(null=True, blank=True)
    assignee_kind = models.CharField(
        max_length=16, choices=AssigneeKind.choices, blank=True
    )
    assignee_user = models.ForeignKey(User, models.SET_NULL, null=True, blank=True)
    assignee_agent = models.CharField(max_length=40, blank=True)
    assignee_profile = models.ForeignKey(
        AgentProfile, models.SET_NULL, null=True, blank=True
    )
    session_id = models.UUIDField(null=True, blank=True)
    run_id = models.UUIDField(null=True, blank=True)
    incident_id = models.UUIDField(null=True, blank=True)
    version = models.PositiveIntegerField(default=1)
    position = models.IntegerField(default=0)
    updated_at = models.DateTimeField(null=True, blank=True)

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=S.values), name="task_status"
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=0, priority__lte=3), name="task_priority"
            ),
        ]
        indexes = [
            # one column of a board, in order
            models.Index(
                fields=["board", "status", "position", "id"], name="task_by_column"
            ),
            # the task that a finished run moves
            models.Index(
                fields=["run_id"], condition=Q(run_id__isnull=False), name="task_by_run"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title} ({str(self.id)[-8:]})"


class TaskEventQuerySet(  # type: ignore[override]  # both bases name as_manager
    AppendOnlyQuerySet, WorkspaceQuerySet
):
    """Read and insert, within what the reader may see."""


class TaskEvent(AppendOnly):
    """One change of one task. Plain ids: a record outlives what it tells of."""

    workspace = models.ForeignKey(Workspace, models.PROTECT)
    task_id = models.UUIDField()
    type = models.CharField(max_length=20, choices=TaskEventType.choices)
    from_status = models.CharField(max_length=12, blank=True)
    to_status = models.CharField(max_length=12, blank=True)
    version = models.PositiveIntegerField()
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64)
    actor_label = models.CharField(max_length=160)
    reason = models.CharField(max_length=300, blank=True)
    changes = models.JSONField(default=dict)

    objects: ClassVar[Any] = TaskEventQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["task_id", "version"], name="taskevent_once_per_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.task_id} v{self.version}"
