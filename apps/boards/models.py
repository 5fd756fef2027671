"""Boards, their tasks, and what happened to each task."""

from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import F, Q

from apps.access.models import User, Workspace, WorkspaceQuerySet
from apps.agents.models import AgentProfile
from apps.audit import ports as audit_ports
from apps.common.models import AppendOnly, AppendOnlyQuerySet, Row
from apps.common.states import Transitions

audit_ports.declare(
    "board.created",
    "board.updated",
    "task.created",
    "task.updated",
    "task.transitioned",
    "task.marked",
    "task.commented",
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

#: A marked task stands still: a person takes it up again from `todo`, or a stale
#: one is checked again and returns to the column it stood in.
TASK_TRANSITIONS = Transitions(
    "task",
    initial=S.TODO,
    table={
        S.TODO: [S.IN_PROGRESS, S.BLOCKED, S.DONE, *MARKS],
        S.IN_PROGRESS: [S.TODO, S.BLOCKED, S.DONE, *MARKS],
        S.BLOCKED: [S.TODO, S.IN_PROGRESS, S.DONE, *MARKS],
        S.DONE: [S.TODO, *MARKS],
        S.STALE: [S.TODO, S.IN_PROGRESS, S.BLOCKED, S.DONE, S.CONFLICTED],
        S.CONFLICTED: [S.TODO],
    },
)
#: What a person does about a mark; shown beside its reason.
NEXT_STEP = {
    S.CONFLICTED: (
        "Compare what its run did with what the task says, then take it up again: "
        "it returns to To do."
    ),
    S.STALE: (
        "Check it again: if what its run did still holds, it returns to its column."
    ),
}


class AssigneeKind(models.TextChoices):
    USER = "user"
    AGENT = "agent"
    AGENT_PROFILE = "agent_profile"


class TaskEventType(models.TextChoices):
    CREATED = "task_created"
    UPDATED = "task_updated"
    TRANSITIONED = "task_transitioned"
    MARKED = "task_marked"


class BoardQuerySet(WorkspaceQuerySet):
    def open(self) -> Self:
        """Keep the boards that are in use."""
        return self.filter(archived_at__isnull=True)


class Board(Row):
    """A list of tasks that belong together. An archived one is kept and rests."""

    workspace = models.ForeignKey(Workspace, models.CASCADE)
    slug = models.SlugField(max_length=64)
    title = models.CharField(max_length=160)
    version = models.PositiveIntegerField(default=1)
    archived_at = models.DateTimeField(null=True, blank=True)

    objects = BoardQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "slug"], name="board_slug_once"
            )
        ]

    def __str__(self) -> str:
        return self.slug


class TaskQuerySet(WorkspaceQuerySet):
    is_listed_by_age = True


class Task(Row):
    """One thing to do. `version` grows with each change.

    `board_column` is the status, or where the task stood when it was marked.
    `position` follows from priority and due date (`engine.changes.place`).
    `turn_id` names the turn whose result is awaited.
    """

    workspace = models.ForeignKey(Workspace, models.CASCADE)
    board = models.ForeignKey(Board, models.CASCADE, related_name="tasks")
    title = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    status = models.CharField(max_length=12, choices=S.choices, default=S.TODO)
    board_column = models.CharField(max_length=12, default=S.TODO)
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
    url = models.CharField(max_length=500, blank=True, default="")
    turn_id = models.UUIDField(null=True, blank=True)
    version = models.PositiveIntegerField(default=1)
    position = models.BigIntegerField(default=0)
    request_key = models.CharField(max_length=200, null=True, blank=True, unique=True)
    updated_at = models.DateTimeField(null=True, blank=True)

    objects = TaskQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=S.values), name="task_status"
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=0, priority__lte=3), name="task_priority"
            ),
            models.CheckConstraint(
                condition=Q(board_column__in=WORKING)
                & (Q(status=F("board_column")) | Q(status__in=MARKS)),
                name="task_column",
            ),
        ]
        indexes = [
            # one column of a board, in order
            models.Index(
                fields=["board", "board_column", "position", "id"],
                name="task_in_column",
            ),
            # home: how many tasks are where, counted in the index alone
            models.Index(
                fields=["board", "board_column", "status", "workspace"],
                name="task_counts",
            ),
            # home: what a person has to look at
            models.Index(
                fields=["position", "id"],
                condition=Q(status__in=MARKS),
                name="task_marked",
            ),
            # the tasks whose turn is awaited
            models.Index(
                fields=["turn_id"],
                condition=Q(turn_id__isnull=False),
                name="task_by_turn",
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


class CommentQuerySet(  # type: ignore[override]  # both bases name as_manager
    AppendOnlyQuerySet, WorkspaceQuerySet
):
    """Read and insert, within what the reader may see."""


class TaskComment(AppendOnly):
    """What somebody said of a task, or what an agent answered.

    `key` makes a repeat of the same comment the same row.
    """

    workspace = models.ForeignKey(Workspace, models.PROTECT)
    task_id = models.UUIDField()
    text = models.TextField()
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64)
    actor_label = models.CharField(max_length=160)
    run_id = models.UUIDField(null=True, blank=True)
    trace_id = models.CharField(max_length=32, blank=True)
    key = models.CharField(max_length=200, null=True, blank=True, unique=True)

    objects: ClassVar[Any] = CommentQuerySet.as_manager()

    class Meta:
        indexes = [
            # the comments of one task, in order
            models.Index(fields=["task_id", "id"], name="taskcomment_of_task"),
        ]

    def __str__(self) -> str:
        return f"comment {self.id} on {self.task_id}"
