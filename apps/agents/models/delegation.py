"""What one agent asked of another, within which bounds, and what came of it."""

from django.db import models
from django.db.models import Q

from apps.access.models import Workspace, WorkspaceQuerySet
from apps.agents.models.core import Step, Turn
from apps.audit import ports as audit_ports
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare("handoff.started", "handoff.finished")


class Mode(models.TextChoices):
    """Direct: the other's answer is the answer. Delegate: it comes back as a
    result. Fan-out: several work at once and their results come back in order."""

    DIRECT = "direct"
    DELEGATE = "delegate"
    FAN_OUT = "fanout-fanin"


class HandoffState(models.TextChoices):
    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LATE = "late"
    TRUNCATED = "truncated"
    REFUSED = "refused"


#: A refused handoff is born so: nothing was ever opened.
HANDOFF = Transitions(
    "agents.handoff",
    initial=HandoffState.OPEN,
    table={
        HandoffState.OPEN: [
            HandoffState.SUCCEEDED,
            HandoffState.FAILED,
            HandoffState.LATE,
            HandoffState.TRUNCATED,
            HandoffState.REFUSED,
        ]
    },
)


class Handoff(Row):
    """One agent asking another, from the question to the typed result."""

    workspace = models.ForeignKey(
        Workspace, on_delete=models.PROTECT, related_name="handoffs"
    )
    step = models.ForeignKey(Step, on_delete=models.PROTECT, related_name="handoffs")
    position = models.PositiveSmallIntegerField()
    child = models.OneToOneField(
        Turn, on_delete=models.PROTECT, null=True, related_name="handoff"
    )
    call_id = models.UUIDField(null=True, blank=True)
    root_id = models.UUIDField()
    trace_id = models.CharField(max_length=32)
    source = models.CharField(max_length=32)
    #: What was asked for, also when nobody is called so.
    target = models.CharField(max_length=64)
    mode = models.CharField(max_length=12, choices=Mode)
    #: How deep the child stands below the root.
    depth = models.PositiveSmallIntegerField()
    #: The output contract: a JSON schema, or {} for a text that is not empty.
    expects = models.JSONField(default=dict, blank=True)
    #: What was asked for and not given: [{"field", "asked", "given", "why"}, …]
    adjustments = models.JSONField(default=list, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    budget_micros = models.BigIntegerField(null=True, blank=True)
    state = models.CharField(
        max_length=10, choices=HandoffState, default=HandoffState.OPEN
    )
    reason = models.CharField(max_length=64, blank=True, default="")
    micros = models.BigIntegerField(default=0)
    duration_ms = models.PositiveIntegerField(default=0)
    origin = models.CharField(max_length=16, default="real")
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["step", "position"], name="agents_handoff_once"
            ),
            models.CheckConstraint(
                condition=Q(state=HandoffState.OPEN, finished_at__isnull=True)
                | (~Q(state=HandoffState.OPEN) & Q(finished_at__isnull=False)),
                name="agents_handoff_finished_when_not_open",
            ),
            models.CheckConstraint(
                condition=Q(child__isnull=False) | Q(state=HandoffState.REFUSED),
                name="agents_handoff_has_a_child",
            ),
        ]
        indexes = [
            # telemetry: the newest window of one origin
            models.Index(
                fields=["origin", "-created_at"], name="agents_handoff_window"
            ),
            # one tree of work
            models.Index(fields=["root_id", "id"], name="agents_handoff_root"),
        ]

    def __str__(self) -> str:
        return f"@{self.source} → @{self.target} ({self.state})"
