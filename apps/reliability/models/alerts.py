"""Alerts, what silences them, and where the news of them goes.

Invariants: of one code, key and origin one alert stands; an alert is raised,
acknowledged and cleared once; the news of it is written in the transaction that
raises it, and sent later.
"""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare(
    "alert.raised",
    "alert.escalated",
    "alert.acknowledged",
    "alert.cleared",
    "alert.silenced",
    "alert.silence_lifted",
    "alert.webhook_saved",
    "alert.webhook_removed",
    "alert.notice_failed",
)


class AlertCode(models.TextChoices):
    """Every alert there is. Source: contracts, "Telemetry, alerts, SLOs"."""

    USAGE_FAILURE = "USAGE_FAILURE_RATE_HIGH"
    USAGE_FALLBACK = "USAGE_FALLBACK_RATE_HIGH"
    USAGE_DURATION = "USAGE_AVERAGE_DURATION_HIGH"
    HANDOFF_FAILURE = "HANDOFF_FAILURE_RATE_HIGH"
    HANDOFF_ADJUSTED = "HANDOFF_ROUTE_ADJUSTED_RATE_HIGH"
    ESCALATION = "LANE_ESCALATION_UNEXPECTED"
    SINK = "AUDIT_SINK_INGESTION_FAILING"
    BLACKOUT = "PROVIDER_BLACKOUT"
    ROLLBACK = "STORE_ROLLBACK_DETECTED"
    CHAIN = "AUDIT_CHAIN_BROKEN"
    BUDGET = "BUDGET_NEAR_LIMIT"
    LOOP = "LOOP_GUARD_TRIPPED"
    SCHEDULE = "SCHEDULE_MISSED"
    CHANNEL = "CHANNEL_DOWN"
    SNAPSHOT = "SNAPSHOT_OVERDUE"
    DRILL = "DRILL_OVERDUE"
    VAULT = "VAULT_SEALED"


class Level(models.TextChoices):
    WARNING = "warning"
    CRITICAL = "critical"


class AlertState(models.TextChoices):
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    CLEARED = "cleared"


A = AlertState
ALERT = Transitions(
    "alert",
    initial=A.FIRING,
    table={A.FIRING: [A.ACKNOWLEDGED, A.CLEARED], A.ACKNOWLEDGED: [A.CLEARED]},
)
STANDING = (A.FIRING, A.ACKNOWLEDGED)


class AlertOrigin(models.TextChoices):
    REAL = "real"
    DRILL = "drill"
    SYNTHETIC = "synthetic"


class AlertQuerySet(models.QuerySet["Alert"]):
    def standing(self) -> Self:
        return self.filter(state__in=STANDING)

    def real(self) -> Self:
        return self.filter(origin=AlertOrigin.REAL)


class Alert(Row):
    """A rule that fired: what it saw, since when, and who knows of it."""

    code = models.CharField(max_length=40, choices=AlertCode.choices)
    #: Which lane, budget or schedule; "" for the whole install.
    key = models.CharField(max_length=120, blank=True, default="")
    origin = models.CharField(
        max_length=10, choices=AlertOrigin.choices, default=AlertOrigin.REAL
    )
    level = models.CharField(max_length=8, choices=Level.choices)
    state = models.CharField(max_length=12, choices=A.choices, default=A.FIRING)
    summary = models.CharField(max_length=300)
    facts = models.JSONField(default=dict, blank=True)
    trace_id = models.CharField(max_length=32, blank=True, default="")
    seen_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=160, blank=True, default="")
    cleared_at = models.DateTimeField(null=True, blank=True)
    incident = models.ForeignKey(
        "reliability.Incident",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="alerts",
    )
    task_id = models.UUIDField(null=True, blank=True)

    objects = AlertQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["code", "key", "origin"],
                condition=Q(state__in=STANDING),
                name="alert_stands_once",
            ),
            models.CheckConstraint(condition=Q(state__in=A.values), name="alert_state"),
            models.CheckConstraint(
                condition=Q(state=A.CLEARED, cleared_at__isnull=False)
                | (~Q(state=A.CLEARED) & Q(cleared_at__isnull=True)),
                name="alert_cleared_pair",
            ),
        ]
        indexes = [
            # the newest of a state, for the page and the API
            models.Index(fields=["state", "-id"], name="alert_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.key} {self.state}".replace("  ", " ")


class Silence(Row):
    """Until when the news of a code (and key) is kept back, and why."""

    code = models.CharField(max_length=40, choices=AlertCode.choices)
    key = models.CharField(max_length=120, blank=True, default="")
    reason = models.CharField(max_length=300)
    set_by = models.CharField(max_length=160)
    until = models.DateTimeField()
    lifted_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.code} {self.key} until {self.until:%F %T}"

    def covers(self, code: str, key: str, now: datetime) -> bool:
        alike = self.code == code and self.key in ("", key)
        return alike and self.lifted_at is None and now < self.until


class NoticeRoute(models.TextChoices):
    BOARD = "board"
    CHANNEL = "channel"
    WEBHOOK = "webhook"


class NoticeState(models.TextChoices):
    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


N = NoticeState
NOTICE = Transitions(
    "alert notice",
    initial=N.PENDING,
    table={N.PENDING: [N.SENT, N.FAILED]},
)


class Notice(Row):
    """One piece of news on its way to one place."""

    alert = models.ForeignKey(Alert, models.CASCADE, related_name="notices")
    route = models.CharField(max_length=8, choices=NoticeRoute.choices)
    #: Which webhook, for that route.
    webhook_id = models.UUIDField(null=True, blank=True)
    event = models.CharField(max_length=12)
    state = models.CharField(max_length=8, choices=N.choices, default=N.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=N.values), name="notice_state")
        ]
        indexes = [
            # what is to be sent now
            models.Index(
                fields=["due_at"],
                condition=Q(state="pending"),
                name="notice_due",
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} by {self.route}: {self.state}"


class Webhook(Row):
    """An address that is told of every alert, and the secret it checks us by."""

    url = models.URLField(max_length=300, unique=True)
    secret = models.ForeignKey("vault.Secret", models.PROTECT, related_name="+")
    #: The exact host:port that may be inside, written down by an administrator.
    local = models.CharField(max_length=120, blank=True, default="")
    set_by = models.CharField(max_length=160)

    def __str__(self) -> str:
        return self.url


class SloMinute(models.Model):
    """What was judged of an SLO in a minute; of an hour, where that is enough."""

    slo = models.CharField(max_length=24)
    minute = models.DateTimeField()
    total = models.PositiveIntegerField(default=0)
    bad = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["slo", "minute"], name="slominute_once")
        ]

    def __str__(self) -> str:
        return f"{self.slo} {self.minute:%F %R}"


class SloMark(models.Model):
    """Up to which event an SLO was judged; each is judged once."""

    slo = models.CharField(max_length=24, primary_key=True)
    judged_to = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.slo} to {self.judged_to:%F %T}"
