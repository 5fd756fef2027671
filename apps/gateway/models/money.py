"""What may be spent, what is set aside now, and what each window took."""

from datetime import timedelta

from django.db import models
from django.db.models import F, Q

from apps.access.models import Workspace, WorkspaceQuerySet
from apps.common.models import Row

from .core import Call

#: From this share of its limit on a budget warns. Units: percent.
WARN_PERCENT = 80


class BudgetScope(models.TextChoices):
    GLOBAL = "global"
    WORKSPACE = "workspace"
    PROFILE = "profile"
    SESSION = "session"
    USER = "user"
    AUTOMATION = "automation"
    PROVIDER = "provider"


#: Scopes that cover everything in reach and so name nobody.
NAMELESS = frozenset({BudgetScope.GLOBAL, BudgetScope.WORKSPACE})


class BudgetUnit(models.TextChoices):
    MICROS = "micros", "USD"
    TOKENS = "tokens", "tokens"
    CALLS = "calls", "calls"
    TURNS = "turns", "turns"


class OnExceed(models.TextChoices):
    BLOCK = "block"
    WARN = "warn"
    DOWNGRADE_LANE = "downgrade_lane"


class BudgetWindow(models.TextChoices):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"

    @property
    def length(self) -> timedelta:
        """How long a rolling window is."""
        hours = {"hour": 1, "day": 24, "week": 168, "month": 720}
        return timedelta(hours=hours[self.value])


class Budget(Row):
    """A limit on what may be spent in a window, with what is set aside now.

    Invariant: a budget that blocks never reserves beyond its limit; a rolling
    one's `spent` is the sum of its slices.
    """

    workspace = models.ForeignKey(Workspace, models.CASCADE, null=True, blank=True)
    scope = models.CharField(max_length=16, choices=BudgetScope.choices)
    scope_key = models.CharField(max_length=160, blank=True)
    unit = models.CharField(max_length=8, choices=BudgetUnit.choices)
    window = models.CharField(max_length=8, choices=BudgetWindow.choices)
    is_rolling = models.BooleanField(default=False)
    timezone = models.CharField(max_length=64, default="UTC")
    on_exceed = models.CharField(
        max_length=16, choices=OnExceed.choices, default=OnExceed.BLOCK
    )
    limit = models.BigIntegerField()
    spent = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    #: What settlements took above their reservations in this window.
    overrun = models.BigIntegerField(default=0)
    window_started_at = models.DateTimeField(null=True, blank=True)
    #: When this window's warning was given.
    warned_at = models.DateTimeField(null=True, blank=True)
    #: Since when an overrun refuses everything, until the window or a person ends it.
    blocked_at = models.DateTimeField(null=True, blank=True)
    is_active = models.BooleanField(default=True)
    version = models.PositiveIntegerField(default=1)

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(reserved__gte=0, spent__gte=0), name="budget_not_negative"
            ),
            models.CheckConstraint(
                condition=~Q(window="total", is_rolling=True),
                name="budget_total_does_not_roll",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.scope_key} {self.limit} {self.unit}/{self.window}"


class BudgetSlice(models.Model):
    """What a rolling budget took in one sixtieth of its window."""

    budget = models.ForeignKey(Budget, models.CASCADE, related_name="slices")
    starts_at = models.DateTimeField()
    amount = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint("budget", "starts_at", name="budgetslice_once")
        ]

    def __str__(self) -> str:
        return f"{self.amount} from {self.starts_at:%F %T}"


class Reservation(Row):
    """What one call has set aside in one budget until it is settled."""

    call = models.ForeignKey(Call, models.CASCADE, related_name="reservations")
    budget = models.ForeignKey(Budget, models.CASCADE)
    amount = models.BigIntegerField()
    settled_amount = models.BigIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint("call", "budget", name="reservation_once")
        ]
        indexes = [
            # what is still set aside, for the sweep
            models.Index(
                F("created_at"),
                condition=Q(settled_amount__isnull=True),
                name="reservation_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of {self.budget_id} for {self.call_id}"
