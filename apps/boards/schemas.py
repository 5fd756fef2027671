"""What the API takes and shows of boards. Public names are camelCase."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from ninja import Field, Schema

from apps.common.schemas import In, Out


class BoardIn(In):
    slug: str = Field(max_length=64)
    title: str = Field(max_length=160)
    workspace: str = ""


class BoardChangeIn(In):
    expected_version: int
    title: str | None = Field(None, max_length=160)
    archived: bool | None = None


class BoardOut(Out):
    id: str
    slug: str
    title: str
    workspace: str
    version: int
    archived_at: datetime | None
    tasks: dict[str, int] = Field(default_factory=dict)


class BoardList(Out):
    items: list[BoardOut]


class TaskQuery(Schema):
    """Which tasks to list; empty means any.

    `who`: `mine`, `agents`, `nobody`, a user's id, or `@slug`. `due`: `overdue`
    or `week`. `urgent`: priorities 0 and 1. `marked`: conflicted and stale ones.
    """

    board: str = ""
    status: str = ""
    who: str = ""
    due: str = ""
    urgent: bool = False
    marked: bool = False
    text: str = ""


class TaskCursor(Schema):
    cursor: str = ""
    limit: int = Field(100, ge=1, le=500)


class TaskIn(Schema):
    board: str = "default"
    taskId: UUID | None = None  # noqa: N815
    expectedVersion: int | None = None  # noqa: N815
    title: str = Field(max_length=200)
    body: str = Field("", max_length=20_000)
    priority: int = 1
    dueDate: date | None = None  # noqa: N815
    assigneeKind: str = ""  # noqa: N815
    assigneeId: str = ""  # noqa: N815
    sessionId: UUID | None = None  # noqa: N815
    runId: UUID | None = None  # noqa: N815
    incidentId: UUID | None = None  # noqa: N815
    url: str = Field("", max_length=500)


class TransitionIn(Schema):
    status: str
    expectedVersion: int  # noqa: N815
    reason: str = Field("", max_length=300)


class VersionIn(In):
    expected_version: int
    reason: str = Field("", max_length=300)


class MarkIn(In):
    mark: str
    reason: str = Field(min_length=1, max_length=300)


class CommentIn(In):
    text: str = Field(max_length=20_000)


class TaskOut(Schema):
    id: str
    board: str
    title: str
    body: str
    status: str
    column: str
    statusReason: str  # noqa: N815
    nextStep: str  # noqa: N815
    priority: int
    dueDate: date | None  # noqa: N815
    assigneeKind: str  # noqa: N815
    assigneeId: str  # noqa: N815
    sessionId: UUID | None  # noqa: N815
    runId: UUID | None  # noqa: N815
    incidentId: UUID | None  # noqa: N815
    url: str
    isWorking: bool  # noqa: N815
    version: int
    createdAt: datetime  # noqa: N815
    updatedAt: datetime | None  # noqa: N815


class TaskPage(Schema):
    items: list[TaskOut]
    cursor: str


class TaskEventOut(Schema):
    id: str
    type: str
    fromStatus: str  # noqa: N815
    toStatus: str  # noqa: N815
    version: int
    actor: str
    reason: str
    changes: dict[str, Any]
    occurredAt: datetime  # noqa: N815


class TaskEventList(Schema):
    items: list[TaskEventOut]


class CommentOut(Out):
    id: str
    text: str
    actor: str
    actor_kind: str
    run_id: UUID | None
    trace_id: str
    created_at: datetime


class CommentList(Out):
    items: list[CommentOut]
