"""Runs, their schedules and slots, and the processes that carry them.

Invariants: states come from `LIFECYCLE` alone and a CHECK repeats it; one run of
a serial key is running; one slot per schedule and moment.
"""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import F, Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common import clock
from apps.common.models import Row, SoleRow
from apps.common.states import Transitions

audit_ports.declare(
    "run.finished",
    "run.parked",
    "run.dead_lettered",
    "run.cancelled",
    "run.dead_letter_acted",
    "schedule.created",
    "schedule.updated",
    "schedule.fired",
    "schedule.missed",
)


class State(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING_CHILD = "waiting_child"
    WAITING_TOOL = "waiting_tool"
    WAITING_APPROVAL = "waiting_approval"
    WAITING_TIMER = "waiting_timer"
    WAITING_PROVIDER = "waiting_provider"
    WAITING_VAULT = "waiting_vault"
    WAITING_OPERATOR = "waiting_operator"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TRUNCATED = "truncated"
    CANCELLED = "cancelled"
    DEAD_LETTER = "dead_letter"
    DISMISSED = "dismissed"


WAITING = tuple(state for state in State if state.startswith("waiting_"))
FINISHED = (State.SUCCEEDED, State.FAILED, State.TRUNCATED)

LIFECYCLE = Transitions(
    "run",
    initial=State.QUEUED,
    table={
        State.QUEUED: [State.RUNNING, State.CANCELLED, State.DEAD_LETTER],
        State.RUNNING: [
            State.QUEUED,
            *WAITING,
            *FINISHED,
            State.CANCELLED,
            State.DEAD_LETTER,
        ],
        **{
            waiting: [State.QUEUED, State.CANCELLED, State.DEAD_LETTER]
            for waiting in WAITING
        },
        State.DEAD_LETTER: [State.QUEUED, State.DISMISSED],
    },
)
#: A parent no longer waits for a child in one of these.
SETTLED = (*sorted(LIFECYCLE.terminal), State.DEAD_LETTER)
#: From here a run may be cancelled.
CANCELLABLE = tuple(LIFECYCLE.sources(State.CANCELLED))


class Trigger(models.TextChoices):
    MESSAGE = "message"
    API = "api"
    SCHEDULE = "schedule"
    EVENT = "event"
    MANUAL = "manual"
    HEARTBEAT = "heartbeat"
    HANDOFF = "handoff"
    DRILL = "drill"
    REPLAY = "replay"


class Reason(models.TextChoices):
    """Why a run is a dead letter."""

    POISON = "poison"
    CONFLICTED_HISTORY = "conflicted_history"
    LOST_BY_ROLLBACK = "lost_by_rollback"
    IN_DOUBT_EFFECT = "in_doubt_effect"
    POLICY = "policy"
    BUDGET = "budget"
    LOOP_GUARD = "loop_guard"
    OPERATOR = "operator"


class RunQuerySet(WorkspaceQuerySet):
    def due(self, now: datetime) -> Self:
        """Keep queued runs whose time has come; their key may still be busy."""
        return self.filter(state=State.QUEUED, due_at__lte=now)

    def in_line(self) -> Self:
        """Order as claimed: urgent first, then as they came."""
        return self.order_by("-priority", "due_at", "id")

    def expired(self, now: datetime) -> Self:
        """Keep running runs whose worker stopped renewing."""
        return self.filter(state=State.RUNNING, lease_until__lte=now)

    def overslept(self, now: datetime) -> Self:
        """Keep waiting runs whose time to go on has come."""
        return self.filter(state__in=WAITING, wake_at__lte=now)

    def waiting(self) -> Self:
        return self.filter(state__in=WAITING)

    def unsettled(self) -> Self:
        return self.exclude(state__in=SETTLED)

    def dead_letters(self) -> Self:
        return self.filter(state=State.DEAD_LETTER)


class Run(Row):
    """One piece of background work, from queue to end."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    principal = models.ForeignKey(Principal, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=64)
    queue = models.CharField(max_length=32, default="default")
    state = models.CharField(max_length=20, choices=State.choices, default=State.QUEUED)
    reason = models.CharField(max_length=64, blank=True, default="")
    trigger = models.CharField(max_length=16, choices=Trigger.choices)
    origin = models.CharField(max_length=16, default="real")
    payload = models.JSONField(default=dict, blank=True)
    serial_key = models.CharField(max_length=120, blank=True, default="")
    priority = models.SmallIntegerField(default=0)
    due_at = models.DateTimeField(default=clock.now)
    wake_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=80, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.BigIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=5)
    parent = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="children"
    )
    root_id = models.UUIDField(editable=False)
    trace_id = models.CharField(max_length=32)
    epoch = models.CharField(max_length=64, blank=True, default="")
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    error_code = models.CharField(max_length=80, blank=True, default="")
    error_detail = models.TextField(blank=True, default="")
    result = models.JSONField(default=dict, blank=True)
    waiting_on = models.CharField(max_length=160, blank=True, default="")

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=State.values), name="run_state"
            ),
            models.CheckConstraint(
                condition=Q(state=State.RUNNING, lease_until__isnull=False)
                | (~Q(state=State.RUNNING) & Q(lease_until__isnull=True)),
                name="run_lease_while_running",
            ),
            models.UniqueConstraint(
                fields=["serial_key"],
                condition=Q(state=State.RUNNING) & ~Q(serial_key=""),
                name="run_one_running_per_key",
            ),
        ]
        indexes = [
            # claim: due runs in line
            models.Index(
                F("queue"), F("due_at"), condition=Q(state=State.QUEUED), name="run_due"
            ),
            # claim: is an older run of this key queued?
            models.Index(
                F("serial_key"),
                F("id"),
                condition=Q(state=State.QUEUED) & ~Q(serial_key=""),
                name="run_key_line",
            ),
            # sweep: expired leases (only running runs have one)
            models.Index(
                F("lease_until"),
                condition=Q(lease_until__isnull=False),
                name="run_lease",
            ),
            # sweep: waiting runs whose time has come
            models.Index(
                F("wake_at"), condition=Q(wake_at__isnull=False), name="run_wake"
            ),
            # desk: newest of a state; who waits; one trace
            models.Index(fields=["state", "-created_at"], name="run_state_newest"),
            models.Index(fields=["trace_id"], name="run_trace"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


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
    next_at = models.DateTimeField(null=True, blank=True)
    run_kind = models.CharField(max_length=64)
    payload = models.JSONField(default=dict, blank=True)

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

    class Meta:
        constraints = [
            models.UniqueConstraint("schedule", "slot_at", name="slot_once"),
            models.CheckConstraint(
                condition=Q(state__in=SlotState.values), name="slot_state"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} at {self.slot_at.isoformat()}"


class WorkerBeat(Row):
    """A worker process and when it was last heard of."""

    process = models.CharField(max_length=80, unique=True)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    kinds = models.JSONField(default=list, blank=True)
    in_flight = models.PositiveIntegerField(default=0)
    concurrency = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=16, default="working")
    beat_at = models.DateTimeField(default=clock.now)
    schema_version = models.CharField(max_length=64, blank=True, default="")

    def __str__(self) -> str:
        return self.process


class ClockLease(SoleRow):
    """Which of the clock processes does the clock's jobs."""

    owner = models.CharField(max_length=80, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.owner or "nobody"
