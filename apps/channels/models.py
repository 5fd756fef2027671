"""Accounts, who may speak through them, what came in and what goes out.

Invariants: one account of a slug per workspace; an event of a vendor is kept
once per account; an outgoing message has one key and goes out under it once;
states come from `ACCOUNT`, `OUTBOX` and `PAIRING` alone.
"""

from typing import Any, Self

from django.db import models
from django.db.models import Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.channels.ports import ConversationKey
from apps.common import clock
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare(
    "channel.opened",
    "channel.paused",
    "channel.resumed",
    "channel.changed",
    "channel.denied",
    "channel.refused",
    "channel.pairing_asked",
    "channel.pairing_decided",
    "channel.identity_changed",
    "channel.undelivered",
    "channel.resent",
    "channel.unreadable",
)


class AccountKind(models.TextChoices):
    WEB = "web"
    TELEGRAM = "telegram"
    SLACK = "slack"


class AccountState(models.TextChoices):
    ACTIVE = "active"
    PAUSED = "paused"


class AccountSource(models.TextChoices):
    DESK = "desk"
    ENV = "env"


class HearsBy(models.TextChoices):
    """Whether we ask the vendor, or the vendor calls us."""

    LISTEN = "listen"
    HOOK = "hook"


class Tier(models.TextChoices):
    """What a sender may do; each includes those before it."""

    PUBLIC = "public"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


TIER_ORDER = [Tier.PUBLIC, Tier.OPERATOR, Tier.APPROVER, Tier.ADMIN]


class IdentityState(models.TextChoices):
    ACTIVE = "active"
    BLOCKED = "blocked"


class PairingState(models.TextChoices):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


class OutboxState(models.TextChoices):
    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"


ACCOUNT = Transitions(
    "channels.account",
    initial=AccountState.ACTIVE,
    table={
        AccountState.ACTIVE: [AccountState.PAUSED],
        AccountState.PAUSED: [AccountState.ACTIVE],
    },
)
PAIRING = Transitions(
    "channels.pairing",
    initial=PairingState.PENDING,
    table={
        PairingState.PENDING: [
            PairingState.APPROVED,
            PairingState.REJECTED,
            PairingState.EXPIRED,
        ]
    },
)
#: From `failed` and `unknown` only a person puts a message back.
OUTBOX = Transitions(
    "channels.outbox",
    initial=OutboxState.PENDING,
    table={
        OutboxState.PENDING: [OutboxState.SENDING],
        OutboxState.SENDING: [
            OutboxState.SENT,
            OutboxState.FAILED,
            OutboxState.UNKNOWN,
            OutboxState.PENDING,
        ],
        OutboxState.FAILED: [OutboxState.PENDING],
        OutboxState.UNKNOWN: [OutboxState.PENDING],
    },
)


class AccountQuerySet(WorkspaceQuerySet):
    def active(self) -> Self:
        return self.filter(state=AccountState.ACTIVE)


class Account(Row):
    """One way in: the web chat of a workspace, or a bot of a vendor."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=16, choices=AccountKind.choices)
    slug = models.SlugField(max_length=40)
    state = models.CharField(
        max_length=16, choices=AccountState.choices, default=AccountState.ACTIVE
    )
    source = models.CharField(
        max_length=8, choices=AccountSource.choices, default=AccountSource.DESK
    )
    #: The names of its secrets and how it is reached; never a secret itself.
    settings = models.JSONField(default=dict, blank=True)
    secret = models.ForeignKey(
        "vault.Secret", models.PROTECT, null=True, blank=True, related_name="+"
    )
    #: Where receiving goes on; moves in the transaction of the update.
    cursor = models.BigIntegerField(default=0)
    #: The last proof that we hear, and the last message that went out.
    heard_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    #: What went wrong last in hearing; "" once we hear again.
    trouble = models.CharField(max_length=300, blank=True, default="")
    #: Since when it should hear: it is young, was resumed or got another token.
    awaited_since = models.DateTimeField(default=clock.now)
    #: The vendor refused us for good, until somebody mends it.
    refused_at = models.DateTimeField(null=True, blank=True)
    #: What the vendor calls our bot.
    bot_name = models.CharField(max_length=80, blank=True, default="")
    #: What the vendor keeps for us and we have not fetched; null is not known.
    pending = models.PositiveIntegerField(null=True, blank=True)
    hears_by = models.CharField(
        max_length=8, choices=HearsBy.choices, default=HearsBy.LISTEN
    )
    #: The only senders, and the only groups, that are heard; empty is any.
    allowed_senders = models.JSONField(default=list, blank=True)
    allowed_chats = models.JSONField(default=list, blank=True)
    #: What one sender may write in a minute.
    per_minute = models.PositiveSmallIntegerField(default=20)
    #: The chats that are told of alerts and asked for approvals.
    alerts_to = models.CharField(max_length=80, blank=True, default="")
    approvals_to = models.CharField(max_length=80, blank=True, default="")
    #: A chat where our own word must come back as an event; see engine/canary.
    canary_chat = models.CharField(max_length=80, blank=True, default="")
    #: The word that is posted and was not heard yet, when it was last posted, since
    #: when it is waited for, and what kept it from being posted.
    canary_token = models.CharField(max_length=32, blank=True, default="")
    canary_tried_at = models.DateTimeField(null=True, blank=True)
    canary_waits_since = models.DateTimeField(null=True, blank=True)
    canary_trouble = models.CharField(max_length=300, blank=True, default="")
    #: No message goes out before; the vendor asked for it.
    hold_until = models.DateTimeField(null=True, blank=True)

    objects = AccountQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint("workspace", "slug", name="channels_account_slug"),
            models.CheckConstraint(
                condition=Q(state__in=AccountState.values),
                name="channels_account_state",
            ),
            models.CheckConstraint(
                condition=Q(hears_by__in=HearsBy.values),
                name="channels_account_hears_by",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.slug} in {self.workspace_id}"


class ChannelIdentity(Row):
    """Who a sender is here. The vendor's user id counts, never a name."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="identities")
    external_user = models.CharField(max_length=80)
    display = models.CharField(max_length=120, blank=True, default="")
    principal = models.ForeignKey(Principal, models.PROTECT, related_name="+")
    tier = models.CharField(max_length=10, choices=Tier.choices, default=Tier.PUBLIC)
    state = models.CharField(
        max_length=10, choices=IdentityState.choices, default=IdentityState.ACTIVE
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "external_user"], name="channels_identity_once"
            ),
            models.CheckConstraint(
                condition=Q(tier__in=Tier.values), name="channels_identity_tier"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.display or self.external_user} ({self.tier})"


class PairingRequest(Row):
    """A stranger who asks to be let in; a code that they tell an operator."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="pairings")
    external_user = models.CharField(max_length=80)
    display = models.CharField(max_length=120, blank=True, default="")
    code = models.CharField(max_length=8)
    state = models.CharField(
        max_length=10, choices=PairingState.choices, default=PairingState.PENDING
    )
    expires_at = models.DateTimeField()
    decided_by = models.ForeignKey(
        Principal, models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "external_user"],
                condition=Q(state="pending"),
                name="channels_pairing_one_open",
            ),
            models.UniqueConstraint(
                fields=["code"],
                condition=Q(state="pending"),
                name="channels_pairing_code",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.display or self.external_user} ({self.state})"


class InboxMessage(Row):
    """One event of a vendor, kept once, and what came of it."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="inbox")
    external_id = models.CharField(max_length=120)
    external_user = models.CharField(max_length=80, blank=True, default="")
    chat = models.CharField(max_length=80, blank=True, default="")
    topic = models.CharField(max_length=80, blank=True, default="")
    message_id = models.CharField(max_length=80, blank=True, default="")
    envelope = models.JSONField(default=dict, blank=True)
    #: When it was said, by the vendor's clock: what is fetched at once after an
    #: outage was not said at once.
    said_at = models.DateTimeField(default=clock.now)
    #: started | command | renewed | decided | refused | denied | limited | nothing
    #: | same | unreadable
    outcome = models.CharField(max_length=16, blank=True, default="")
    turn_id = models.UUIDField(null=True, blank=True)
    #: The progress mark that the message carries now.
    mark = models.CharField(max_length=16, blank=True, default="")
    #: How many drafts of its answer were shown; none follows once it is answered.
    drafts = models.PositiveSmallIntegerField(default=0)
    is_answered = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "external_id"], name="channels_inbox_once"
            )
        ]
        indexes = [
            # a sender's rate, newest first
            models.Index(
                fields=["account", "external_user", "-said_at"],
                name="channels_inbox_by_sender",
            ),
            # the way back from a turn to its message
            models.Index(
                fields=["turn_id"],
                condition=Q(turn_id__isnull=False),
                name="channels_inbox_by_turn",
            ),
            # how often a chat began anew
            models.Index(
                fields=["account", "chat"],
                condition=Q(outcome="renewed"),
                name="channels_inbox_renewed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.external_id} ({self.outcome})"

    @property
    def key(self) -> ConversationKey:
        """Where an answer to it belongs."""
        return ConversationKey(self.chat, self.topic, self.message_id)


class OutboxQuerySet(models.QuerySet[Any]):
    """Reads messages by the indexes of those that need something yet."""

    def waiting(self) -> Self:
        """Keep what is to be said, or is being said."""
        return self.filter(state__among=[OutboxState.PENDING, OutboxState.SENDING])

    def in_trouble(self) -> Self:
        """Keep what a person has to look at."""
        return self.filter(state__among=[OutboxState.FAILED, OutboxState.UNKNOWN])


class OutboxMessage(Row):
    """One message to go out, in the order of its chat, once."""

    account = models.ForeignKey(Account, models.PROTECT, related_name="outbox")
    chat = models.CharField(max_length=80)
    topic = models.CharField(max_length=80, blank=True, default="")
    reply_to = models.CharField(max_length=80, blank=True, default="")
    text = models.TextField()
    #: Shape: [[label, value], …]
    buttons = models.JSONField(default=list, blank=True)
    state = models.CharField(
        max_length=10, choices=OutboxState.choices, default=OutboxState.PENDING
    )
    dedupe_key = models.CharField(max_length=120, unique=True)
    #: Counts how often a person put it back; part of its effect's key.
    resent = models.PositiveSmallIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(default=clock.now)
    sent_at = models.DateTimeField(null=True, blank=True)
    sent_id = models.CharField(max_length=80, blank=True, default="")
    error = models.CharField(max_length=300, blank=True, default="")
    turn_id = models.UUIDField(null=True, blank=True)
    approval_id = models.UUIDField(null=True, blank=True)
    #: It takes the place of a message that stands in the chat.
    replaces_id = models.CharField(max_length=80, blank=True, default="")
    #: It takes the place of the message that this row became: an answer's draft.
    replaces_row = models.UUIDField(null=True, blank=True)
    #: Whose schedule says it unasked: quiet hours and a cap bind it.
    schedule_id = models.UUIDField(null=True, blank=True)
    #: It was let through, and counted, once.
    admitted = models.BooleanField(default=False)

    objects = OutboxQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=OutboxState.values),
                name="channels_outbox_state",
            )
        ]
        indexes = [
            # what is next in a chat
            models.Index(
                fields=["account", "chat", "id"],
                condition=Q(state__in=["pending", "sending"]),
                name="channels_outbox_next",
            ),
            # where a question is shown
            models.Index(
                fields=["approval_id"],
                condition=Q(approval_id__isnull=False),
                name="channels_outbox_asked",
            ),
            # what a person has to look at
            models.Index(
                fields=["state", "-id"],
                condition=Q(state__in=["failed", "unknown"]),
                name="channels_outbox_trouble",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dedupe_key} ({self.state})"
