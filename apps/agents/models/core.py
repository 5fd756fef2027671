"""Profiles, pins, conversations, turns, steps and deltas.

A turn is one message and what came of it. Its steps are the journal: what was
planned, started and done. Deltas are a stream for open pages, not a record.
"""

from typing import Any, Self

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Exists, OuterRef, Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common import clock
from apps.common.models import Row
from apps.common.states import Transitions
from apps.providers.models import Lane

audit_ports.declare(
    "turn.started",
    "turn.answered",
    "turn.truncated",
    "turn.failed",
    "turn.cancelled",
    "turn.routed",
    "turn.escalated",
    "profile.saved",
    "profile.pinned",
    "profile.unpinned",
)
audit_ports.keep_whole("turn.started")

SLUG = RegexValidator(r"\A[a-z0-9_-]{2,32}\Z", "Use 2 to 32 of a-z, 0-9, _ and -.")
DEFAULT_PROFILE = "primary"


class SafetyMode(models.TextChoices):
    """How much an agent may do before a person is asked: strict asks before each
    change and before anything is sent, whatever was granted, and binds the agents
    that it hands work to."""

    STANDARD = "standard"
    STRICT = "strict"


class PinScope(models.TextChoices):
    SESSION = "session"
    USER = "user"
    WORKSPACE = "workspace"
    GLOBAL = "global"


class TurnState(models.TextChoices):
    OPEN = "open"
    ANSWERED = "answered"
    TRUNCATED = "truncated"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepKind(models.TextChoices):
    MODEL = "model"
    TOOL = "tool"
    HANDOFF = "handoff"
    ROUTE = "route"
    PLAN = "plan"


class StepState(models.TextChoices):
    PLANNED = "planned"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


class DeltaKind(models.TextChoices):
    TEXT = "text"
    RESET = "reset"


TURN = Transitions(
    "agents.turn",
    initial=TurnState.OPEN,
    table={
        TurnState.OPEN: [
            TurnState.ANSWERED,
            TurnState.TRUNCATED,
            TurnState.FAILED,
            TurnState.CANCELLED,
        ]
    },
)

#: An unknown step is settled by whoever settles its call.
STEP = Transitions(
    "agents.step",
    initial=StepState.PLANNED,
    table={
        StepState.PLANNED: [StepState.STARTED],
        StepState.STARTED: [StepState.DONE, StepState.FAILED, StepState.UNKNOWN],
        StepState.UNKNOWN: [StepState.DONE, StepState.FAILED],
    },
)


class ProfileQuerySet(WorkspaceQuerySet):
    def active(self) -> Self:
        return self.filter(is_active=True)


class AgentProfile(Row):
    """Who an agent is: its prompt, its lane, its reach and its limits."""

    workspace = models.ForeignKey(
        Workspace, on_delete=models.PROTECT, related_name="agent_profiles"
    )
    slug = models.CharField(max_length=32, validators=[SLUG])
    title = models.CharField(max_length=120)
    description = models.TextField(blank=True, default="")
    system_prompt = models.TextField(blank=True, default="")
    lane = models.CharField(max_length=8, choices=Lane, default=Lane.WORKER)
    pinned_model = models.ForeignKey(
        "providers.Model",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    #: Ordered: [{"provider": slug, "model": name or ""}, …]
    fallbacks = models.JSONField(default=list, blank=True)
    allowed_capabilities = models.JSONField(default=list, blank=True)
    allowed_handoff_targets = models.JSONField(default=list, blank=True)
    #: Which lane which kind of work asks for: {"heartbeat": "local", …}
    lane_policy = models.JSONField(default=dict, blank=True)
    #: Thresholds and risk weights of routing; what is missing is the default.
    routing = models.JSONField(default=dict, blank=True)
    #: What one turn, with all it hands over, may spend; null is no share.
    turn_budget_micros = models.BigIntegerField(
        null=True, blank=True, validators=[MinValueValidator(0)]
    )
    max_tool_calls = models.PositiveIntegerField(default=16)
    max_turns = models.PositiveIntegerField(
        default=12, validators=[MinValueValidator(1)]
    )
    max_depth = models.PositiveIntegerField(default=5)
    context_window_tokens = models.PositiveIntegerField(default=16_000)
    max_output_tokens = models.PositiveIntegerField(default=2_048)
    safety_mode = models.CharField(
        max_length=8, choices=SafetyMode, default=SafetyMode.STANDARD
    )
    version = models.PositiveIntegerField(default=1)
    is_active = models.BooleanField(default=True)
    updated_at = models.DateTimeField(default=clock.now)

    objects = ProfileQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "slug"], name="agents_agentprofile_slug_once"
            ),
            models.CheckConstraint(
                condition=Q(version__gte=1),
                name="agents_agentprofile_version_counts_from_one",
            ),
        ]

    def __str__(self) -> str:
        return f"@{self.slug}"


class ProfileVersion(Row):
    """What a profile said at one version. Old versions are kept."""

    profile = models.ForeignKey(
        AgentProfile, on_delete=models.CASCADE, related_name="versions"
    )
    version = models.PositiveIntegerField()
    body = models.JSONField()
    by_label = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["profile", "version"], name="agents_profileversion_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.profile_id} version {self.version}"


class ProfilePin(Row):
    """Which profile serves a session, a user, a workspace, or everybody."""

    scope = models.CharField(max_length=10, choices=PinScope)
    #: The id of the session, user principal or workspace; "" for global.
    key = models.CharField(max_length=64, blank=True, default="")
    profile = models.ForeignKey(
        AgentProfile, on_delete=models.SET_NULL, null=True, related_name="pins"
    )
    #: Kept so that a broken pin can name what it meant.
    profile_slug = models.CharField(max_length=32)
    by_label = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["scope", "key"], name="agents_profilepin_once"
            ),
            models.CheckConstraint(
                condition=Q(scope=PinScope.GLOBAL, key="")
                | (~Q(scope=PinScope.GLOBAL) & ~Q(key="")),
                name="agents_profilepin_global_has_no_key",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope}:{self.key} → @{self.profile_slug}"


class ConversationQuerySet(WorkspaceQuerySet):
    def recent(self) -> Self:
        return self.order_by("-last_at", "-id")


class Conversation(Row):
    """Messages of one person (or channel) and the answers to them."""

    workspace = models.ForeignKey(
        Workspace, on_delete=models.PROTECT, related_name="conversations"
    )
    principal = models.ForeignKey(
        Principal, on_delete=models.PROTECT, related_name="conversations"
    )
    channel = models.CharField(max_length=40, default="web")
    external_key = models.CharField(max_length=200, blank=True, default="")
    title = models.CharField(max_length=200, blank=True, default="")
    profile = models.ForeignKey(
        AgentProfile, on_delete=models.SET_NULL, null=True, blank=True
    )
    last_at = models.DateTimeField(default=clock.now)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "channel", "external_key"],
                condition=~Q(external_key=""),
                name="agents_conversation_external_key_once",
            )
        ]
        indexes = [
            # conversations visible to somebody, newest first
            models.Index(
                fields=["workspace", "-last_at"], name="agents_conversation_recent"
            )
        ]

    def __str__(self) -> str:
        return self.title or f"conversation {self.id}"


class TurnQuerySet(models.QuerySet[Any]):
    def visible_to(self, principal: Principal) -> Self:
        # asked of each turn: a list of all conversations grows with the store
        mine = Conversation.objects.visible_to(principal)
        return self.filter(Exists(mine.filter(pk=OuterRef("conversation_id"))))

    def open(self) -> Self:
        return self.filter(state=TurnState.OPEN)

    def finished(self) -> Self:
        return self.exclude(state=TurnState.OPEN)


class Turn(Row):
    """One message to an agent, and what came of it."""

    conversation = models.ForeignKey(
        Conversation, on_delete=models.PROTECT, related_name="turns"
    )
    run = models.ForeignKey("runs.Run", on_delete=models.PROTECT, related_name="turns")
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, related_name="children"
    )
    depth = models.PositiveSmallIntegerField(default=0)
    profile = models.ForeignKey(
        AgentProfile, on_delete=models.PROTECT, related_name="turns"
    )
    profile_version = models.PositiveIntegerField()
    principal = models.ForeignKey(
        Principal, on_delete=models.PROTECT, related_name="turns"
    )
    trace_id = models.CharField(max_length=32)
    state = models.CharField(max_length=10, choices=TurnState, default=TurnState.OPEN)
    reason = models.CharField(max_length=40, blank=True, default="")
    message_text = models.TextField()
    labels = models.JSONField(default=list, blank=True)
    #: What a handoff left to it: capabilities, or null for all of its profile.
    scope = models.JSONField(null=True, blank=True)
    #: What a handoff lets it and those below it spend; null is no share.
    budget_micros = models.BigIntegerField(null=True, blank=True)
    answer_text = models.TextField(blank=True, default="")
    header = models.JSONField(default=dict, blank=True)
    served_by = models.CharField(max_length=200, blank=True, default="")
    requested_lane = models.CharField(max_length=8, blank=True, default="")
    #: Why it asks there: the profile, its policy for a kind of work, …
    lane_reason = models.CharField(max_length=24, blank=True, default="")
    lane = models.CharField(max_length=8, blank=True, default="")
    degraded = models.BooleanField(default=False)
    lane_change = models.CharField(max_length=16, blank=True, default="none")
    reply_run_kind = models.CharField(max_length=60, blank=True, default="")
    watched_until = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    #: When a worker first took it up; what came later is not in its context.
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TurnQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state=TurnState.OPEN, finished_at__isnull=True)
                | (~Q(state=TurnState.OPEN) & Q(finished_at__isnull=False)),
                name="agents_turn_finished_when_not_open",
            )
        ]
        indexes = [
            # a conversation's transcript and an agent's context, in order
            models.Index(
                fields=["conversation", "created_at"], name="agents_turn_transcript"
            ),
            # the trace page
            models.Index(fields=["trace_id"], name="agents_turn_trace"),
            # the tick that closes turns whose run has ended
            models.Index(
                fields=["created_at"],
                condition=Q(state=TurnState.OPEN),
                name="agents_turn_open",
            ),
        ]

    def __str__(self) -> str:
        return f"turn {self.id} ({self.state})"


class Step(Row):
    """One entry of a turn's journal: a model call, a tool call, a handoff."""

    turn = models.ForeignKey(Turn, on_delete=models.PROTECT, related_name="steps")
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=StepKind)
    state = models.CharField(max_length=8, choices=StepState, default=StepState.PLANNED)
    request = models.JSONField(default=dict, blank=True)
    result = models.JSONField(default=dict, blank=True)
    call_id = models.UUIDField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    error_code = models.CharField(max_length=60, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["turn", "seq"], name="agents_step_seq_once"
            ),
            models.CheckConstraint(
                condition=Q(state=StepState.PLANNED) | Q(started_at__isnull=False),
                name="agents_step_started_when_not_planned",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} step {self.seq} of turn {self.turn_id}"

    @property
    def is_finished(self) -> bool:
        return self.state in (StepState.DONE, StepState.FAILED)


class Delta(models.Model):
    """A piece of an answer on its way to an open page. Deleted at turn end."""

    turn = models.ForeignKey(Turn, on_delete=models.CASCADE, related_name="deltas")
    attempt = models.PositiveIntegerField()
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=5, choices=DeltaKind, default=DeltaKind.TEXT)
    text = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["turn", "seq"], name="agents_delta_seq_once"
            )
        ]

    def __str__(self) -> str:
        return f"delta {self.seq} of turn {self.turn_id}"


def as_body(profile: AgentProfile) -> dict[str, Any]:
    """Write down everything a version of a profile says. Shape: JSON."""
    body = {name: getattr(profile, name) for name in VERSIONED_FIELDS}
    pinned = profile.pinned_model_id
    return body | {"pinned_model_id": str(pinned) if pinned else None}


#: What makes a new version when it changes.
VERSIONED_FIELDS = (
    "title",
    "description",
    "system_prompt",
    "lane",
    "fallbacks",
    "lane_policy",
    "routing",
    "turn_budget_micros",
    "allowed_capabilities",
    "allowed_handoff_targets",
    "max_tool_calls",
    "max_turns",
    "max_depth",
    "context_window_tokens",
    "max_output_tokens",
    "safety_mode",
    "is_active",
)
