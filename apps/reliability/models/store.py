"""What was found when the store went back, and what an operator decided."""

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
