"""The call ledger, and what the pipeline decides by."""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common.models import Row, SoleRow
from apps.common.states import Transitions
from apps.gateway.ports import CallKind as CallKind
from apps.gateway.ports import EffectClass

audit_ports.declare(
    "call.denied",
    "call.held",
    "call.started",
    "call.settled",
    "call.outcome_settled",
    "approval.requested",
    "approval.decided",
    "approval.expired",
    "grant.made",
    "grant.revoked",
    "halt.set",
    "halt.lifted",
    "budget.set",
    "budget.archived",
    "budget.near_limit",
    "budget.overrun",
    "budget.unblocked",
    "setting.changed",
)
audit_ports.keep_whole("call.started")


class CallState(models.TextChoices):
    REQUESTED = "requested"
    DENIED = "denied"
    AWAITING_APPROVAL = "awaiting_approval"
    AUTHORIZED = "authorized"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


S = CallState
CALL_TRANSITIONS = Transitions(
    "call",
    initial=S.REQUESTED,
    table={
        S.REQUESTED: [S.DENIED, S.AWAITING_APPROVAL, S.AUTHORIZED],
        S.AWAITING_APPROVAL: [S.AUTHORIZED, S.DENIED],
        S.AUTHORIZED: [S.EXECUTING, S.FAILED],
        S.EXECUTING: [S.SUCCEEDED, S.FAILED, S.UNKNOWN],
        S.UNKNOWN: [S.SUCCEEDED, S.FAILED],
    },
)
#: A key with a call in one of these states may not start another.
HOLDING = [S.EXECUTING, S.SUCCEEDED, S.UNKNOWN]
#: In flight, in doubt, or waiting for a person; as the index of these is written.
UNFINISHED = [S.EXECUTING, S.UNKNOWN, S.AWAITING_APPROVAL]


class CallQuerySet(WorkspaceQuerySet):
    """Reads calls in the words of the ledger."""

    def unfinished(self, state: CallState) -> Self:
        """Keep the calls of one unfinished state, by the index of the unfinished."""
        return self.filter(state__among=UNFINISHED, state=state)


class Call(Row):
    """One proposed effect: what was asked, decided, done, and what it took."""

    workspace = models.ForeignKey(Workspace, models.PROTECT)
    principal = models.ForeignKey(Principal, models.PROTECT)
    kind = models.CharField(max_length=16, choices=CallKind.choices)
    capability = models.CharField(max_length=200)
    state = models.CharField(max_length=20, choices=S.choices)
    effect_class = models.CharField(max_length=16, choices=EffectClass.choices)
    idempotency_key = models.CharField(max_length=64)
    args_digest = models.CharField(max_length=64)
    arguments = models.TextField(blank=True)
    stage = models.CharField(max_length=20, blank=True)
    reason_code = models.CharField(max_length=64, blank=True)
    facts = models.JSONField(default=dict)
    error_code = models.CharField(max_length=64, blank=True)
    error_detail = models.TextField(blank=True)
    result = models.TextField(blank=True)
    result_digest = models.CharField(max_length=64, blank=True)
    run_id = models.UUIDField(null=True, blank=True)
    turn_id = models.UUIDField(null=True, blank=True)
    step_id = models.UUIDField(null=True, blank=True)
    root_id = models.UUIDField(null=True, blank=True)
    parent_call_id = models.UUIDField(null=True, blank=True)
    depth = models.PositiveSmallIntegerField(default=0)
    agent = models.CharField(max_length=40, blank=True)
    lane = models.CharField(max_length=16, blank=True)
    trace_id = models.CharField(max_length=32, blank=True)
    fence = models.BigIntegerField(default=0)
    epoch = models.CharField(max_length=40, blank=True)
    reserved_micros = models.BigIntegerField(default=0)
    micros = models.BigIntegerField(default=0)
    tokens_in = models.BigIntegerField(default=0)
    tokens_out = models.BigIntegerField(default=0)
    tokens_cached = models.BigIntegerField(default=0)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = CallQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=S.values), name="call_state"),
            models.UniqueConstraint(
                fields=["idempotency_key"],
                condition=Q(state__in=[str(state) for state in HOLDING]),
                name="call_one_effect_per_key",
            ),
        ]
        indexes = [
            # finding an earlier try of the same effect
            models.Index(fields=["idempotency_key", "id"], name="call_by_key"),
            # one run's calls in order, for its page
            models.Index(fields=["run_id", "id"], name="call_by_run"),
            # one trace in order, for the waterfall
            models.Index(fields=["trace_id", "id"], name="call_by_trace"),
            # the loop guard's repeat count within a tree
            models.Index(
                fields=["root_id", "capability", "args_digest"],
                name="call_by_root",
            ),
            # what is in doubt or in flight, for operators and halts
            models.Index(
                fields=["state", "id"],
                condition=Q(state__in=["executing", "unknown", "awaiting_approval"]),
                name="call_unfinished",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.capability} {self.id}"


class Grant(Row):
    """A standing permission: who may do what to whom, until when, and why."""

    principal = models.ForeignKey(Principal, models.CASCADE, null=True, blank=True)
    workspace = models.ForeignKey(Workspace, models.CASCADE, null=True, blank=True)
    kind = models.CharField(max_length=16, choices=CallKind.choices)
    capabilities = models.JSONField(default=list)
    constraints = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=300)
    is_shipped = models.BooleanField(default=False)
    granted_by = models.CharField(max_length=160)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = WorkspaceQuerySet.as_manager()

    class Meta:
        indexes = [
            # how many are live and which is the newest: asked by every decision
            models.Index(
                fields=["id"], condition=Q(revoked_at__isnull=True), name="grant_live"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {', '.join(self.capabilities)}"


class ApprovalState(models.TextChoices):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    USED = "used"


A = ApprovalState
APPROVAL_TRANSITIONS = Transitions(
    "approval",
    initial=A.PENDING,
    table={
        A.PENDING: [A.APPROVED, A.REJECTED, A.EXPIRED],
        A.APPROVED: [A.USED, A.EXPIRED],
    },
)


class ApprovalMode(models.TextChoices):
    """What happens while nobody answers, and what is shown with the question."""

    ASK = "ask"
    DRY_RUN = "dry_run_approval"
    AUTO_START = "auto_start"


class ApprovalQuerySet(WorkspaceQuerySet):
    """Reads questions by the index of those that are not over."""

    def pending(self) -> Self:
        """Keep what waits for its answer."""
        return self.open().filter(state=A.PENDING)

    def open(self) -> Self:
        """Keep what waits for its answer, or was allowed and is not used yet."""
        return self.filter(state__among=[A.PENDING, A.APPROVED])


class ApprovalRequest(Row):
    """A question to a person, bound to exactly one effect."""

    workspace = models.ForeignKey(Workspace, models.PROTECT)
    call = models.ForeignKey(Call, models.PROTECT, related_name="approvals")
    binding = models.CharField(max_length=64)
    state = models.CharField(max_length=12, choices=A.choices, default=A.PENDING)
    requester = models.ForeignKey(Principal, models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(
        Principal, models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=300, blank=True)
    is_single_operator = models.BooleanField(default=False)
    expires_at = models.DateTimeField()
    mode = models.CharField(
        max_length=20, choices=ApprovalMode.choices, default=ApprovalMode.ASK
    )
    starts_at = models.DateTimeField(null=True, blank=True)
    preview = models.JSONField(default=dict, blank=True)

    objects = ApprovalQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(decided_at__isnull=True, decided_by__isnull=True)
                | Q(decided_at__isnull=False, decided_by__isnull=False),
                name="approvalrequest_decided_pair",
            ),
            models.UniqueConstraint(
                fields=["binding"],
                condition=Q(state__in=["pending", "approved"]),
                name="approvalrequest_one_open",
            ),
            models.CheckConstraint(
                condition=Q(starts_at__isnull=False) | ~Q(mode="auto_start"),
                name="approvalrequest_auto_start_has_a_time",
            ),
        ]
        indexes = [
            # what a person may answer, and what the clock expires
            models.Index(
                fields=["state", "expires_at"],
                condition=Q(state__in=["pending", "approved"]),
                name="approvalrequest_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.state} {self.binding[:12]}"


class PlanStep(Row):
    """One exact call that an approved plan covers, once."""

    approval = models.ForeignKey(
        ApprovalRequest, models.PROTECT, related_name="plan_steps"
    )
    position = models.PositiveSmallIntegerField()
    capability = models.CharField(max_length=200)
    arguments = models.TextField()
    args_digest = models.CharField(max_length=64)
    risk = models.JSONField(default=dict)
    used_call_id = models.UUIDField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint("approval", "position", name="planstep_once"),
        ]

    def __str__(self) -> str:
        return f"{self.position}. {self.capability}"


class HaltQuerySet(models.QuerySet["Halt"]):
    def active(self) -> Self:
        return self.filter(lifted_at__isnull=True)


class Halt(Row):
    """An operator's stop: everything, or one lane, agent, extension or run."""

    scope = models.CharField(max_length=200)
    reason = models.CharField(max_length=300)
    set_by = models.CharField(max_length=160)
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.CharField(max_length=160, blank=True)

    objects = HaltQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["scope"],
                condition=Q(lifted_at__isnull=True),
                name="halt_one_active",
            )
        ]

    def __str__(self) -> str:
        return f"{self.scope}: {self.reason}"

    @property
    def since(self) -> datetime:
        return self.created_at


class CallTree(models.Model):
    """One tree of work: the row under which its handoffs are counted one by one."""

    root_id = models.UUIDField(primary_key=True)
    handoffs = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"tree {self.root_id}"


class Strictness(models.TextChoices):
    OBSERVE = "observe"
    ENFORCE = "enforce"
    HARDENED = "hardened"


class Setting(SoleRow):
    """How strict contracts are, and the limits of the loop guard."""

    strictness = models.CharField(
        max_length=10, choices=Strictness.choices, default=Strictness.HARDENED
    )
    max_depth = models.PositiveSmallIntegerField(default=5)
    max_turns_per_root = models.PositiveIntegerField(default=50)
    max_fan_out = models.PositiveSmallIntegerField(default=8)
    max_same_edge = models.PositiveSmallIntegerField(default=6)
    max_same_call = models.PositiveSmallIntegerField(default=4)
    max_root_seconds = models.PositiveIntegerField(default=3600)
    max_root_micros = models.BigIntegerField(default=20_000_000)
    #: Grows with every grant that is made or revoked, in the same transaction.
    grants_version = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"strictness {self.strictness}"
