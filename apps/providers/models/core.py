"""Providers, their models and prices, the routes of each lane, and what happened.

Invariants: a lane's positions are unique; a route has at most one breaker;
attempts and usage rows are append-only. Prices are integer micro-USD per
million tokens. Rows are written by this app's services and engine only.
"""

from datetime import date, datetime
from typing import Self

from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common.models import AppendOnly, Row
from apps.common.states import Transitions
from apps.providers import ports

audit_ports.declare(
    "provider.saved",
    "price.saved",
    "provider.removed",
    "provider.key_rejected",
    "provider.key_restored",
    "provider.tested",
    "provider.found",
    "provider.key_staged",
    "provider.key_tested",
    "provider.key_shadowed",
    "provider.key_refused",
    "provider.key_promoted",
    "provider.key_revoked",
    "provider.key_dropped",
    "route.saved",
    "route.removed",
    "breaker.opened",
    "breaker.closed",
    "lanes.held",
    "lanes.released",
)


class Lane(models.TextChoices):
    LOCAL = "local"
    WORKER = "worker"
    BRAIN = "brain"

    @property
    def rank(self) -> int:
        return [Lane.LOCAL, Lane.WORKER, Lane.BRAIN].index(self)


class Kind(models.TextChoices):
    OPENAI = "openai", "OpenAI"
    OPENAI_COMPATIBLE = "openai_compatible", "OpenAI-compatible"
    ANTHROPIC = "anthropic", "Anthropic"
    GEMINI = "gemini", "Gemini"
    SCRIPTED = "scripted", "Scripted (built in)"


class KeyState(models.TextChoices):
    OK = "ok"
    REJECTED = "rejected"


class KeyStage(models.TextChoices):
    """How far the change to a new key has come."""

    SETTLED = "settled", "one key"
    STAGED = "staged", "stored, untested"
    TESTED = "tested", "tested"
    SHADOW = "shadow", "on trial with real calls"
    REFUSED = "refused", "refused by the provider"
    PROMOTED = "promoted", "in use, the old one kept"


KEY_STAGE = Transitions(
    "provider_key",
    initial=KeyStage.SETTLED,
    table={
        KeyStage.SETTLED: [KeyStage.STAGED],
        KeyStage.STAGED: [KeyStage.TESTED, KeyStage.REFUSED, KeyStage.SETTLED],
        KeyStage.TESTED: [KeyStage.SHADOW, KeyStage.REFUSED, KeyStage.SETTLED],
        KeyStage.SHADOW: [KeyStage.PROMOTED, KeyStage.REFUSED, KeyStage.SETTLED],
        KeyStage.REFUSED: [KeyStage.STAGED, KeyStage.TESTED, KeyStage.SETTLED],
        KeyStage.PROMOTED: [KeyStage.SETTLED],
    },
)


class Source(models.TextChoices):
    ENV = "env", "found by itself"
    DESK = "desk", "entered by an operator"


class ErrorClass(models.TextChoices):
    AUTH = "auth"
    RATE_LIMITED = "rate_limited"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_BYTE = "timeout_first_byte"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_DEADLINE = "timeout_deadline"
    SERVER_ERROR = "server_error"
    BAD_RESPONSE = "bad_response"
    CONTENT_REFUSED = "content_refused"
    CONTEXT_OVERFLOW = "context_overflow"
    NETWORK = "network"


class SkipReason(models.TextChoices):
    DISABLED = "disabled"
    BREAKER_OPEN = "breaker_open"
    OVER_BUDGET = "over_budget"
    NO_CAPABILITY = "no_capability"
    HALTED = "halted"
    NOT_GRANTED = "not_granted"
    VAULT_SEALED = "vault_sealed"


class LaneChange(models.TextChoices):
    NONE = "none"
    PLANNED = "planned"
    OPERATOR_PIN = "operator_pin"
    FALLBACK = "fallback"


class LaneReason(models.TextChoices):
    """Why a call was answered, or tried, in its lane."""

    ASKED = "asked", "the caller asked for it"
    PROFILE = "profile", "the agent's own lane"
    WORK_POLICY = "work_policy", "the agent's policy for this kind of work"
    HARD_TASK = "hard_task", "raised: a hard task"
    STUCK = "stuck", "raised: a tool call failed or an answer was cut"
    OPERATOR_PIN = "operator_pin", "an operator pinned the model"
    PROFILE_FALLBACK = "profile_fallback", "a fallback that the agent names"
    LANE_UNSTAFFED = "lane_unstaffed", "the lane has no route of its own"
    LANE_FAILED = "lane_failed", "the lane's own routes did not answer"
    OVER_BUDGET = "over_budget", "a budget lowered the lane"


#: Above the agent's own lane, because its operator planned for this.
ESCALATIONS = frozenset({LaneReason.HARD_TASK, LaneReason.STUCK})


class BreakerState(models.TextChoices):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


BREAKER = Transitions(
    "breaker",
    initial=BreakerState.CLOSED,
    table={
        BreakerState.CLOSED: [BreakerState.OPEN],
        BreakerState.OPEN: [BreakerState.HALF_OPEN, BreakerState.CLOSED],
        BreakerState.HALF_OPEN: [BreakerState.CLOSED, BreakerState.OPEN],
    },
)


class Provider(Row):
    """A server that can answer, and the key it wants."""

    slug = models.SlugField(max_length=40, unique=True)
    kind = models.CharField(max_length=20, choices=Kind)
    base_url = models.URLField(max_length=300, blank=True)
    secret = models.ForeignKey(
        "vault.Secret", null=True, blank=True, on_delete=models.SET_NULL
    )
    enabled = models.BooleanField(default=True)
    state = models.CharField(max_length=10, choices=KeyState, default=KeyState.OK)
    state_detail = models.CharField(max_length=300, blank=True)
    #: The key that is coming, or, once promoted, the one that is going.
    other_secret = models.ForeignKey(
        "vault.Secret",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    key_stage = models.CharField(
        max_length=10, choices=KeyStage, default=KeyStage.SETTLED
    )
    key_detail = models.CharField(max_length=300, blank=True)
    #: Real calls that the new key has answered while on trial.
    shadow_answers = models.PositiveIntegerField(default=0)
    source = models.CharField(max_length=10, choices=Source, default=Source.DESK)
    settings = models.JSONField(default=dict, blank=True)
    #: Grows with every change; part of the key of cached clients.
    revision = models.PositiveIntegerField(default=1)
    #: The server asked for silence until then (Retry-After), in every process.
    quiet_until = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=Kind.values), name="providers_provider_kind"
            ),
            models.CheckConstraint(
                condition=Q(key_stage__in=KeyStage.values),
                name="providers_provider_stage",
            ),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def target(self) -> ports.Target:
        return ports.Target(
            provider_id=str(self.pk),
            slug=self.slug,
            kind=self.kind,
            base_url=self.base_url,
            revision=self.revision,
            settings=self.settings,
        )


class Model(Row):
    """A model of a provider, with its prices and limits."""

    provider = models.ForeignKey(
        Provider, on_delete=models.CASCADE, related_name="models"
    )
    name = models.CharField(max_length=120)
    context_window_tokens = models.PositiveIntegerField(default=32_768)
    max_output_tokens = models.PositiveIntegerField(default=4096)
    input_micros = models.PositiveBigIntegerField(default=0)
    output_micros = models.PositiveBigIntegerField(default=0)
    cached_micros = models.PositiveBigIntegerField(default=0)
    supports_tools = models.BooleanField(default=True)
    #: Since when these prices hold; without a day they always did.
    dated = models.DateField(null=True, blank=True)
    #: The first day of the next price that is known; from then on, ask `prices`.
    next_price_on = models.DateField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "name"], name="providers_model_name"
            )
        ]

    def __str__(self) -> str:
        return f"{self.provider.slug}/{self.name}"

    def tariff(self, day: date) -> ports.Tariff:
        """Return the prices of a day. Reads a row only once a newer price holds."""
        if self.next_price_on is not None and day >= self.next_price_on:
            found = self.prices.filter(starts_on__lte=day).order_by("-starts_on")
            if (price := found.first()) is not None:
                tariff: ports.Tariff = price.tariff
                return tariff
        return ports.Tariff(self.input_micros, self.output_micros, self.cached_micros)


class Route(Row):
    """One place in a lane: which model, and how long it may take."""

    lane = models.CharField(max_length=10, choices=Lane)
    position = models.PositiveSmallIntegerField()
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="routes")
    enabled = models.BooleanField(default=True)
    connect_seconds = models.FloatField(default=5.0)
    first_byte_seconds = models.FloatField(default=30.0)
    idle_seconds = models.FloatField(default=20.0)
    wall_seconds = models.FloatField(default=180.0)
    max_bytes = models.PositiveIntegerField(default=4_000_000)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["lane", "position"], name="providers_route_position"
            ),
            models.UniqueConstraint(
                fields=["lane", "model"], name="providers_route_model"
            ),
            models.CheckConstraint(
                condition=Q(lane__in=Lane.values), name="providers_route_lane"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.lane} {self.position}: {self.model}"

    @property
    def deadlines(self) -> ports.Deadlines:
        return ports.Deadlines(
            connect=self.connect_seconds,
            first_byte=self.first_byte_seconds,
            idle=self.idle_seconds,
            wall=self.wall_seconds,
            max_bytes=self.max_bytes,
        )


#: Stands for an error class where somebody holds a route open.
HELD = "held"


class BreakerQuerySet(models.QuerySet["Breaker"]):
    def held(self, now: datetime) -> Self:
        """Keep those that somebody, such as a live drill, holds open."""
        held = self.filter(state=BreakerState.OPEN, last_error_class=HELD)
        return held.filter(probe_at__gt=now)


class Breaker(Row):
    """Whether a route is trusted to answer just now. No row means closed."""

    route = models.OneToOneField(
        Route, on_delete=models.CASCADE, related_name="breaker"
    )
    state = models.CharField(
        max_length=10, choices=BreakerState, default=BreakerState.CLOSED
    )
    failures = models.PositiveIntegerField(default=0)
    ladder_step = models.PositiveSmallIntegerField(default=0)
    opened_at = models.DateTimeField(null=True, blank=True)
    #: Open: when one probe may go. Half-open: when that probe's claim lapses.
    probe_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=300, blank=True)
    last_error_class = models.CharField(max_length=20, blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)

    objects = BreakerQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state=BreakerState.CLOSED) | Q(probe_at__isnull=False),
                name="providers_breaker_probe",
            )
        ]

    def __str__(self) -> str:
        return f"{self.route_id} {self.state}"


class Origin(models.TextChoices):
    REAL = "real"
    DEMO = "demo"
    DRILL = "drill"
    SYNTHETIC = "synthetic"


class Outcome(models.TextChoices):
    ATTEMPTED = "attempted"
    SKIPPED = "skipped"


class Trace(AppendOnly):
    """Where in the work a row belongs; plain ids, as higher floors own the rows."""

    run_id = models.UUIDField(null=True, blank=True)
    turn_id = models.UUIDField(null=True, blank=True)
    step_id = models.UUIDField(null=True, blank=True)
    trace_id = models.CharField(max_length=32, blank=True)
    origin = models.CharField(max_length=10, choices=Origin, default=Origin.REAL)
    duration_ms = models.PositiveIntegerField(default=0)
    ttft_ms = models.PositiveIntegerField(default=0)
    tokens_in = models.PositiveIntegerField(default=0)
    tokens_out = models.PositiveIntegerField(default=0)
    cached = models.PositiveIntegerField(default=0)
    micros = models.PositiveBigIntegerField(default=0)
    error_class = models.CharField(max_length=20, blank=True)

    class Meta:
        abstract = True


class Attempt(Trace):
    """One route of one plan: tried with this outcome, or left out for this reason."""

    #: Plain id and text: a removed route keeps its history.
    route_id = models.UUIDField(null=True, blank=True)
    route_name = models.CharField(max_length=180)
    lane = models.CharField(max_length=10, blank=True)
    requested_lane = models.CharField(max_length=10, choices=Lane)
    #: Why this lane: what asked for it, or how the plan came to it.
    lane_reason = models.CharField(max_length=24, blank=True, default="")
    outcome = models.CharField(max_length=10, choices=Outcome)
    reason = models.CharField(max_length=20, blank=True)
    detail = models.CharField(max_length=500, blank=True)
    seq = models.PositiveSmallIntegerField()
    call_id = models.UUIDField(null=True, blank=True)

    class Meta:
        indexes = [
            # the trace page and the turn page
            models.Index(fields=["turn_id"], name="providers_attempt_turn"),
            models.Index(fields=["trace_id"], name="providers_attempt_trace"),
            # health of a route: its newest attempts
            models.Index(
                fields=["route_id", "-created_at"], name="providers_attempt_route"
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome=Outcome.ATTEMPTED) | ~Q(reason=""),
                name="providers_attempt_reason",
            )
        ]

    def __str__(self) -> str:
        return f"{self.seq}. {self.route_name}: {self.outcome} {self.reason}".strip()


class UsageRow(Trace):
    """One model call as the caller saw it: asked for, served, and what it cost."""

    workspace_id = models.UUIDField(null=True, blank=True)
    principal_id = models.UUIDField(null=True, blank=True)
    requested_lane = models.CharField(max_length=10, choices=Lane)
    requested_provider = models.CharField(max_length=40, blank=True)
    requested_model = models.CharField(max_length=120, blank=True)
    served_lane = models.CharField(max_length=10, blank=True)
    served_provider = models.CharField(max_length=40, blank=True)
    served_model = models.CharField(max_length=120, blank=True)
    lane_change = models.CharField(
        max_length=15, choices=LaneChange, default=LaneChange.NONE
    )
    #: Why the serving lane; without an answer, why the lane that was asked.
    lane_reason = models.CharField(max_length=24, blank=True, default="")
    degraded = models.BooleanField(default=False)
    fallback_used = models.BooleanField(default=False)
    attempts = models.PositiveSmallIntegerField(default=0)
    ok = models.BooleanField(default=True)

    class Meta:
        indexes = [
            # statistics and alerts read the newest window of one origin
            models.Index(
                fields=["origin", "created_at"], name="providers_usage_window"
            ),
            models.Index(fields=["trace_id"], name="providers_usage_trace"),
        ]

    def __str__(self) -> str:
        return f"{self.created_at:%F %T} {self.served_provider}/{self.served_model}"
