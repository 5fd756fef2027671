"""What the API takes and shows of boards. Public names are camelCase."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from ninja import Field, Schema


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


class TransitionIn(Schema):
    status: str
    expectedVersion: int  # noqa: N815
    reason: str = Field("", max_length=300)


class TaskOut(Schema):
    id: str
    board: str
    title: str
    body: str
    status: str
    statusReason: str  # noqa: N815
    priority: int
    dueDate: date | None  # noqa: N815
    assigneeKind: str  # noqa: N815
    assigneeId: str  # noqa: N815
    sessionId: UUID | None  # noqa: N815
    runId: UUID | None  # noqa: N815
    incidentId: UUID | None  # noqa: N815
    version: int
    createdAt: datetime  # noqa: N815


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
