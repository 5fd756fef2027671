"""Schedules, their slots, what agents propose, and what was delivered unasked.

Invariants: one slot per schedule and moment; a proposal is decided once.
"""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import F, Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common.models import Row
from apps.common.states import Transitions
from apps.runs.models.run import Run

audit_ports.declare(
    "schedule.created",
    "schedule.updated",
    "schedule.fired",
    "schedule.missed",
    "schedule.run_now",
    "schedule.disabled",
    "schedule.taken_back",
    "automation.proposed",
    "automation.decided",
    "delivery.held_back",
)


class ScheduleKind(models.TextChoices):
    CRON = "cron"
    INTERVAL = "interval"
    ONCE = "once"
    RRULE = "rrule"


class CatchUp(models.TextChoices):
    """What happens to slots that passed while nobody looked."""

    SKIP = "skip"
    ONE = "one"
    ALL = "all"


class Overlap(models.TextChoices):
    """What happens when a slot falls due while an earlier one still runs."""

    FORBID = "forbid"
    QUEUE = "queue"


class ScheduleState(models.TextChoices):
    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


SCHEDULE_LIFECYCLE = Transitions(
    "schedule",
    initial=ScheduleState.ACTIVE,
    table={
        ScheduleState.ACTIVE: [ScheduleState.PAUSED, ScheduleState.DISABLED],
        ScheduleState.PAUSED: [ScheduleState.ACTIVE, ScheduleState.DISABLED],
        ScheduleState.DISABLED: [ScheduleState.ACTIVE],
    },
)


class ScheduleQuerySet(WorkspaceQuerySet):
    def due(self, now: datetime) -> Self:
        return self.filter(state=ScheduleState.ACTIVE, next_at__lte=now)


class Schedule(Row):
    """When runs of one kind fall due, in a person's own time zone."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    principal = models.ForeignKey(Principal, models.PROTECT, related_name="+")
    slug = models.SlugField(max_length=64)
    title = models.CharField(max_length=160)
    kind = models.CharField(max_length=16, choices=ScheduleKind.choices)
    expression = models.CharField(max_length=400)
    timezone = models.CharField(max_length=64, default="UTC")
    catch_up = models.CharField(
        max_length=8, choices=CatchUp.choices, default=CatchUp.ONE
    )
    overlap = models.CharField(
        max_length=8, choices=Overlap.choices, default=Overlap.FORBID
    )
    jitter_seconds = models.PositiveIntegerField(default=0)
    quiet_from = models.TimeField(null=True, blank=True)
    quiet_to = models.TimeField(null=True, blank=True)
    daily_cap = models.PositiveSmallIntegerField(null=True, blank=True)
    state = models.CharField(
        max_length=16, choices=ScheduleState.choices, default=ScheduleState.ACTIVE
    )
    #: Why it was disabled or paused; "" while it is active.
    state_reason = models.CharField(max_length=300, blank=True, default="")
    next_at = models.DateTimeField(null=True, blank=True)
    run_kind = models.CharField(max_length=64)
    payload = models.JSONField(default=dict, blank=True)
    version = models.PositiveIntegerField(default=1)
    #: Planned runs that failed one after another.
    failures = models.PositiveSmallIntegerField(default=0)
    max_failures = models.PositiveSmallIntegerField(default=5)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint("workspace", "slug", name="schedule_slug"),
            models.CheckConstraint(
                condition=Q(state__in=ScheduleState.values), name="schedule_state"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=ScheduleKind.values), name="schedule_kind"
            ),
        ]
        indexes = [
            # clock: schedules with a slot due
            models.Index(
                F("next_at"),
                condition=Q(state=ScheduleState.ACTIVE),
                name="schedule_due",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class SlotState(models.TextChoices):
    FIRED = "fired"
    MISSED = "missed"
    SKIPPED = "skipped"


class Slot(Row):
    """One moment of a schedule and what became of it."""

    schedule = models.ForeignKey(Schedule, models.CASCADE, related_name="slots")
    slot_at = models.DateTimeField()
    run = models.ForeignKey(
        Run, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    state = models.CharField(max_length=8, choices=SlotState.choices)
    #: Why nothing was started; "" when a run was.
    reason = models.CharField(max_length=64, blank=True, default="")
    #: The state in which its run was settled; "" until then.
    outcome = models.CharField(max_length=20, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint("schedule", "slot_at", name="slot_once"),
            models.CheckConstraint(
                condition=Q(state__in=SlotState.values), name="slot_state"
            ),
        ]
        indexes = [
            # clock: planned runs whose end is not yet counted
            models.Index(
                F("slot_at"),
                condition=Q(state=SlotState.FIRED, outcome=""),
                name="slot_unsettled",
            ),
            # alerts, doctor: moments that passed unused lately
            models.Index(
                fields=["created_at"],
                condition=Q(state__in=["missed"]),
                name="slot_missed",
            ),
            # clock: moments ahead of a clock that came back
            models.Index(fields=["slot_at"], name="slot_moment"),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} at {self.slot_at.isoformat()}"


class ProposalState(models.TextChoices):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


PROPOSAL_LIFECYCLE = Transitions(
    "automation proposal",
    initial=ProposalState.PENDING,
    table={ProposalState.PENDING: [ProposalState.APPROVED, ProposalState.REJECTED]},
)


class Proposal(Row):
    """An automation that an agent would like. It is no schedule until approved."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    proposed_by = models.ForeignKey(Principal, models.PROTECT, related_name="+")
    agent = models.CharField(max_length=64, blank=True, default="")
    slug = models.SlugField(max_length=64)
    body = models.JSONField(default=dict)
    state = models.CharField(
        max_length=10, choices=ProposalState.choices, default=ProposalState.PENDING
    )
    trace_id = models.CharField(max_length=32, blank=True, default="")
    decided_by = models.ForeignKey(
        Principal, models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=300, blank=True, default="")
    schedule = models.ForeignKey(
        Schedule, models.SET_NULL, null=True, blank=True, related_name="+"
    )

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=ProposalState.values), name="proposal_state"
            ),
            models.CheckConstraint(
                condition=Q(decided_at__isnull=True, decided_by__isnull=True)
                | Q(decided_at__isnull=False, decided_by__isnull=False),
                name="proposal_decided_pair",
            ),
            models.UniqueConstraint(
                "workspace",
                "slug",
                condition=Q(state=ProposalState.PENDING),
                name="proposal_one_open_per_slug",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.slug} proposed by {self.agent or self.proposed_by_id}"


class DeliveryDay(Row):
    """How much was delivered unasked to one recipient on one local day."""

    workspace = models.ForeignKey(Workspace, models.CASCADE, related_name="+")
    recipient = models.CharField(max_length=160)
    day = models.DateField()
    delivered = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                "workspace", "recipient", "day", name="deliveryday_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.recipient} on {self.day}"
