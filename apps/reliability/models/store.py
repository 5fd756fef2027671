"""What was found when the store went back, what an operator decided, and how long
bringing a copy back took."""

from datetime import timedelta

from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare(
    "snapshot.created",
    "snapshot.verified",
    "snapshot.pruned",
    "store.alarm_raised",
    "store.rehearsed",
    "store.restored",
)


class RollbackState(models.TextChoices):
    SEEN = "seen"
    CLASSIFIED = "classified"
    ACCEPTED = "accepted"
    WITHDRAWN = "withdrawn"


S = RollbackState
ROLLBACK_LIFECYCLE = Transitions(
    "rollback",
    initial=S.SEEN,
    table={
        S.SEEN: [S.CLASSIFIED, S.WITHDRAWN],
        S.CLASSIFIED: [S.ACCEPTED, S.WITHDRAWN],
    },
)


class Rollback(Row):
    """One alarm of the store. The alarm itself stands beside the witness, because
    this row goes away with the store that it is about."""

    alarm_id = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=12, choices=S.choices, default=S.SEEN)
    problem = models.CharField(max_length=500)
    detected_at = models.DateTimeField()
    witness_size = models.BigIntegerField(default=0)
    witness_head = models.CharField(max_length=64, blank=True)
    store_size = models.BigIntegerField(default=0)
    store_head = models.CharField(max_length=64, blank=True)
    fork = models.BigIntegerField(null=True, blank=True)
    events_lost = models.BigIntegerField(default=0)
    conflicted = models.PositiveIntegerField(default=0)
    stale = models.PositiveIntegerField(default=0)
    lost = models.PositiveIntegerField(default=0)
    effects_held = models.PositiveIntegerField(default=0)
    epoch_before = models.CharField(max_length=32, blank=True)
    decided_by = models.CharField(max_length=160, blank=True)
    decided_reason = models.CharField(max_length=300, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=S.values), name="rollback_state"
            )
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.alarm_id}"

    @property
    def mark(self) -> str:
        """By this its stale runs are found."""
        return f"rollback:{self.alarm_id}"


class RecoveryKind(models.TextChoices):
    REHEARSED = "rehearsed"
    RESTORED = "restored"


class Recovery(Row):
    """One copy of the store brought back, for real or beside the store to prove that
    it can be: how long it took (RTO), how old it was and what it lacked (RPO)."""

    kind = models.CharField(max_length=12, choices=RecoveryKind.choices)
    source = models.CharField(max_length=500)
    vendor = models.CharField(max_length=20)
    ok = models.BooleanField()
    problem = models.CharField(max_length=500, blank=True)
    #: From the first step until a store stands that passed a whole verification.
    took_ms = models.PositiveBigIntegerField(help_text="milliseconds")
    #: How old the copy's newest content was when the restore began.
    age_seconds = models.PositiveBigIntegerField(default=0)
    events = models.BigIntegerField(default=0)
    events_lost = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    by = models.CharField(max_length=160)

    class Meta:
        verbose_name_plural = "recoveries"
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=RecoveryKind.values), name="recovery_kind"
            ),
            models.CheckConstraint(
                condition=Q(ok=True, problem="") | Q(ok=False) & ~Q(problem=""),
                name="recovery_says_why_not",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.source} {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def recovery_seconds(self) -> float:
        """RTO, as measured."""
        return self.took_ms / 1000

    @property
    def age(self) -> timedelta:
        return timedelta(seconds=self.age_seconds)

    @property
    def lost_seconds(self) -> int:
        """RPO, as measured: nothing where the copy lacked nothing."""
        return self.age_seconds if self.events_lost else 0
