"""One drill: a rehearsal and its negative control, or a live one; what was seen and how
it was graded."""

from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare(
    "drill.started",
    "drill.finished",
    "drill.cancelled",
    "drill.fault_made",
    "drill.fault_mended",
)


class DrillState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    DEVIATED = "deviated"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


class DrillMode(models.TextChoices):
    REHEARSAL = "rehearsal", "in a clone"
    LIVE = "live", "on this install"


D = DrillState
_ENDS = [D.PASSED, D.DEVIATED, D.FAILED, D.CANCELLED, D.ABORTED]
DRILL_LIFECYCLE = Transitions(
    "drill",
    initial=D.QUEUED,
    table={D.QUEUED: [D.RUNNING, D.FAILED, D.CANCELLED], D.RUNNING: _ENDS},
)


class DrillRun(Row):
    """A drill that was asked for. Its run in `runs` carries it."""

    slug = models.SlugField(max_length=40)
    mode = models.CharField(
        max_length=10, choices=DrillMode.choices, default=DrillMode.REHEARSAL
    )
    #: Of a live one, how much it may touch: {"turns", "seconds", "hurt"}.
    cap = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=12, choices=D.choices, default=D.QUEUED)
    run_id = models.UUIDField(unique=True)
    asked_by = models.CharField(max_length=160)
    definition = models.CharField(max_length=64)
    #: What its proof stands on: digests of experiment, code and policy.
    basis = models.JSONField(default=dict, blank=True)
    isolation = models.CharField(max_length=120, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    verdict = models.JSONField(default=dict, blank=True)
    problem = models.CharField(max_length=500, blank=True)
    evidence_sha256 = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=D.values), name="drillrun_state"
            ),
            models.UniqueConstraint(
                fields=["slug"],
                condition=Q(state__in=[D.QUEUED, D.RUNNING]),
                name="drillrun_one_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["mode"],
                condition=Q(state__in=[D.QUEUED, D.RUNNING], mode="live"),
                name="drillrun_one_live",
            ),
            models.CheckConstraint(
                condition=Q(mode__in=DrillMode.values), name="drillrun_mode"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.slug} {self.state}"

    @property
    def is_over(self) -> bool:
        return self.state in _ENDS

    @property
    def is_live(self) -> bool:
        return self.mode == DrillMode.LIVE


class DrillStep(models.Model):
    """One line of a drill's notebook, as it went on."""

    drill = models.ForeignKey(DrillRun, models.CASCADE, related_name="steps")
    part = models.CharField(max_length=8)
    at_ms = models.PositiveIntegerField()
    tone = models.CharField(max_length=12)
    text = models.CharField(max_length=300)
    data = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.part} {self.at_ms} ms: {self.text}"

    @property
    def seconds(self) -> float:
        return self.at_ms / 1000
