"""A new run enters the queue.

Invariants: one insert; the doorbell rings only after the commit.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.access.models import Principal, Workspace
from apps.audit import services as audit
from apps.common import clock, failpoints, ids, statements
from apps.common.errors import Invalid
from apps.runs.engine import pressure, settle
from apps.runs.models import Run, Trigger
from apps.runs.ports import handlers


@dataclass(frozen=True, slots=True)
class NewRun:
    """All that can be said about a run before it starts."""

    kind: str
    payload: dict[str, Any]
    principal: Principal
    workspace: Workspace
    trigger: str = Trigger.MESSAGE
    trace_id: str | None = None
    serial_key: str = ""
    due_at: datetime | None = None
    parent: Run | None = None
    deadline_at: datetime | None = None
    origin: str = "real"
    priority: int = 0
    max_attempts: int = 5
    run_id: uuid.UUID = field(default_factory=ids.new_id)


def enqueue(new: NewRun) -> Run:
    """Insert the run and ring for it once the transaction at hand commits.

    Raises: Invalid, QueueFull.
    """
    if new.trigger not in Trigger.values:
        raise Invalid(f"Unknown trigger {new.trigger!r}.")
    pressure.check(
        new.trigger, has_parent=new.parent is not None, priority=new.priority
    )
    parent, now = new.parent, clock.now()
    inherited = parent.trace_id if parent else ids.current_trace_id()
    run = Run(
        id=new.run_id,
        workspace_id=new.workspace.id,
        principal_id=new.principal.id,
        kind=new.kind,
        queue=handlers.queue_of(new.kind),
        trigger=new.trigger,
        origin=new.origin,
        payload=new.payload,
        serial_key=new.serial_key,
        priority=new.priority,
        due_at=new.due_at or now,
        deadline_at=new.deadline_at,
        max_attempts=new.max_attempts,
        parent_id=parent.id if parent else None,
        root_id=parent.root_id if parent else new.run_id,
        trace_id=new.trace_id or inherited or ids.new_trace_id(),
        epoch=audit.epoch(),
    )
    statements.insert(run)
    if run.due_at <= now:
        settle.ring_later(run)
    failpoints.reach("run.enqueued")
    return run
