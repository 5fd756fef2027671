"""Runs: one piece of background work each.

Invariants: states come from `LIFECYCLE` alone and a CHECK repeats it; one run of
a serial key is running.
"""

from datetime import datetime, timedelta
from typing import Self

from django.db import models
from django.db.models import F, Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common import clock
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare(
    "run.finished",
    "run.parked",
    "run.dead_lettered",
    "run.cancelled",
    "run.dead_letter_acted",
    "run.held_stale",
)
audit_ports.keep_whole("schedule.fired", "run.finished", "run.parked")


#: No lease is this long: one that ends later was taken before the clock was set back.
LONGEST_LEASE = timedelta(minutes=5)


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
        # To `waiting_operator`: a run older than a restore is held as stale.
        State.QUEUED: [
            State.RUNNING,
            State.WAITING_OPERATOR,
            State.CANCELLED,
            State.DEAD_LETTER,
        ],
        State.RUNNING: [
            State.QUEUED,
            *WAITING,
            *FINISHED,
            State.CANCELLED,
            State.DEAD_LETTER,
        ],
        **{
            waiting: [
                State.QUEUED,
                *(
                    []
                    if waiting == State.WAITING_OPERATOR
                    else [State.WAITING_OPERATOR]
                ),
                State.CANCELLED,
                State.DEAD_LETTER,
            ]
            for waiting in WAITING
        },
        State.DEAD_LETTER: [State.QUEUED, State.DISMISSED],
    },
)
#: A parent no longer waits for a child in one of these.
SETTLED = (*sorted(LIFECYCLE.terminal), State.DEAD_LETTER)
#: Every other state, in the order of the index that holds these runs alone.
UNSETTLED = tuple(state for state in State if state not in SETTLED)
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
    is_listed_by_age = True

    def due(self, now: datetime) -> Self:
        """Keep queued runs whose time has come; their key may still be busy."""
        return self.filter(state=State.QUEUED, due_at__lte=now)

    def in_line(self) -> Self:
        """Order as claimed: urgent first, then as they came."""
        return self.order_by("-priority", "due_at", "id")

    def expired(self, now: datetime) -> Self:
        """Keep running runs whose worker stopped renewing, by this clock or another."""
        over = Q(lease_until__lte=now) | Q(lease_until__gt=now + LONGEST_LEASE)
        return self.filter(over, state=State.RUNNING)

    def overslept(self, now: datetime) -> Self:
        """Keep waiting runs whose time to go on has come."""
        return self.filter(state__in=WAITING, wake_at__lte=now)

    def waiting(self) -> Self:
        return self.filter(state__in=WAITING)

    def unsettled(self) -> Self:
        return self.filter(state__among=UNSETTLED)

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
            # desk, schedules: what is not over, however much is
            models.Index(
                F("id"), condition=Q(state__in=UNSETTLED), name="run_unsettled"
            ),
            # desk: newest of a state; who waits; one trace
            models.Index(fields=["state", "-created_at"], name="run_state_newest"),
            models.Index(fields=["trace_id"], name="run_trace"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def took(self) -> float | None:
        """From its making to its end. Units: seconds."""
        if self.finished_at is None:
            return None
        return (self.finished_at - self.created_at).total_seconds()
