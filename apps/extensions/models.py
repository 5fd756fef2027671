"""Extensions, what they offer, and the forms of them that were reviewed."""

from typing import Any, Self

from django.db import models
from django.db.models import F, Q

from apps.access.models import Principal
from apps.audit import ports as audit_ports
from apps.common import clock
from apps.common.models import AppendOnly, Row
from apps.common.states import Transitions
from apps.gateway.ports import EffectClass, Risk

audit_ports.declare(
    "extension.installed",
    "extension.reviewed",
    "extension.upgraded",
    "extension.enabled",
    "extension.disabled",
    "extension.revoked",
    "extension.removed",
    "extension.rejected",
    "extension.rolled_back",
    "extension.quarantined",
    "extension.risk_supplied",
    "extension.stopped",
    "extension.execution_refused",
    "extension.connection_wanted",
    "extension.connection_asked",
    "extension.connection_refused",
    "extension.connection_failed",
    "extension.connected",
    "extension.token_refreshed",
    "extension.connection_expired",
    "extension.disconnected",
    "extension.token_revoked",
)


class ExtensionType(models.TextChoices):
    SKILL = "skill"
    MCP = "mcp"
    PLUGIN = "plugin"


class Trust(models.TextChoices):
    """How far an extension is let; each level runs isolated."""

    SANDBOXED = "sandboxed"
    REVIEWED = "reviewed"
    TRUSTED = "trusted"
    BLOCKED = "blocked"


class Lifecycle(models.TextChoices):
    PENDING_INSTALL = "pending_install"
    INSTALLED = "installed"
    ENABLED = "enabled"
    DISABLED = "disabled"
    REMOVED = "removed"


T, L = Trust, Lifecycle
TRUST_TRANSITIONS = Transitions(
    "extension_trust",
    initial=T.SANDBOXED,
    table={
        T.SANDBOXED: [T.REVIEWED, T.TRUSTED, T.BLOCKED],
        T.REVIEWED: [T.SANDBOXED, T.TRUSTED, T.BLOCKED],
        T.TRUSTED: [T.SANDBOXED, T.REVIEWED, T.BLOCKED],
        T.BLOCKED: [T.SANDBOXED, T.REVIEWED, T.TRUSTED],
    },
)
LIFECYCLE_TRANSITIONS = Transitions(
    "extension_lifecycle",
    initial=L.PENDING_INSTALL,
    table={
        L.PENDING_INSTALL: [L.INSTALLED, L.REMOVED],
        L.INSTALLED: [L.ENABLED, L.REMOVED],
        L.ENABLED: [L.DISABLED],
        L.DISABLED: [L.ENABLED, L.REMOVED],
        L.REMOVED: [L.PENDING_INSTALL],
    },
)


class Link(models.TextChoices):
    """How an extension stands with the authorization server of its MCP server."""

    WANTED = "wanted"
    CONNECTED = "connected"
    EXPIRED = "expired"
    FAILED = "failed"
    DISCONNECTED = "disconnected"


LINK_TRANSITIONS = Transitions(
    "extension_connection",
    initial=Link.WANTED,
    table={
        Link.WANTED: [Link.CONNECTED, Link.FAILED],
        Link.CONNECTED: [Link.EXPIRED, Link.DISCONNECTED],
        Link.EXPIRED: [Link.CONNECTED, Link.FAILED, Link.DISCONNECTED],
        Link.FAILED: [Link.CONNECTED, Link.WANTED, Link.DISCONNECTED],
        Link.DISCONNECTED: [Link.CONNECTED, Link.FAILED, Link.WANTED],
    },
)


class Extension(Row):
    """A skill, MCP server or plugin, with its trust and its state."""

    ext_id = models.SlugField(max_length=80, unique=True)
    type = models.CharField(max_length=8, choices=ExtensionType.choices)
    title = models.CharField(max_length=160)
    description = models.TextField(blank=True)
    trust = models.CharField(max_length=12, choices=T.choices, default=T.SANDBOXED)
    trust_reason = models.CharField(max_length=300, blank=True)
    trust_by = models.CharField(max_length=160, blank=True)
    trust_at = models.DateTimeField(null=True, blank=True)
    lifecycle = models.CharField(
        max_length=16, choices=L.choices, default=L.PENDING_INSTALL
    )
    version = models.CharField(max_length=40, blank=True)
    definition_hash = models.CharField(max_length=64, blank=True)
    reviewed_hash = models.CharField(max_length=64, blank=True)
    #: Where it came from, at which revision, and the SHA-256 of its package.
    source = models.CharField(max_length=500, blank=True)
    revision = models.CharField(max_length=120, blank=True)
    package = models.CharField(max_length=64, blank=True)
    #: How its parts are reached. Shape: `apps.extensions.engine.manifest`.
    parts = models.JSONField(default=list, blank=True)
    #: What they may reach, and when they are cut off; both are reviewed.
    grants = models.JSONField(default=dict, blank=True)
    limits = models.JSONField(default=dict, blank=True)
    #: What a bundle brings that Polar never runs: [{"name", "why"}].
    not_run = models.JSONField(default=list, blank=True)
    #: May run where isolation is not available; shown wherever it is.
    accepts_degraded = models.BooleanField(default=False)
    degraded_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(accepts_degraded=False) | ~Q(degraded_reason=""),
                name="extension_degraded_has_reason",
            ),
            models.CheckConstraint(
                condition=Q(type__in=ExtensionType.values), name="extension_type"
            ),
            models.CheckConstraint(
                condition=Q(trust__in=T.values), name="extension_trust"
            ),
            models.CheckConstraint(
                condition=Q(lifecycle__in=L.values), name="extension_lifecycle"
            ),
            models.CheckConstraint(
                condition=~Q(trust=T.BLOCKED) | ~Q(trust_reason=""),
                name="extension_blocked_has_reason",
            ),
        ]

    def __str__(self) -> str:
        return self.ext_id

    @property
    def is_pinned(self) -> bool:
        """Whether this is, to the letter, what was reviewed."""
        return bool(self.reviewed_hash) and self.definition_hash == self.reviewed_hash


#: The hints of the protocol, in words.
CLAIMS = {
    "readOnlyHint": "reads only",
    "destructiveHint": "may destroy",
    "idempotentHint": "safe to repeat",
    "openWorldHint": "reaches outside",
}


class CapabilityQuerySet(models.QuerySet[Any]):
    def offerable(self) -> Self:
        """Keep what a model may be shown: reviewed, enabled, of known risk."""
        return self.filter(
            ~Q(extension__trust=T.BLOCKED),
            ~Q(risk_level="unknown"),
            extension__lifecycle=L.ENABLED,
            extension__definition_hash=F("extension__reviewed_hash"),
            is_current=True,
        )


class Capability(Row):
    """One thing an extension can do, and what it can do to the world."""

    extension = models.ForeignKey(
        Extension, models.CASCADE, related_name="capabilities"
    )
    capability_id = models.CharField(max_length=120)
    alias = models.CharField(max_length=64, unique=True)
    title = models.CharField(max_length=160)
    description = models.TextField(blank=True)
    input_schema = models.JSONField(default=dict)
    output_schema = models.JSONField(default=dict, blank=True)
    risk_level = models.CharField(max_length=12, default="unknown")
    side_effects = models.CharField(max_length=12, default="none")
    data_egress = models.CharField(max_length=12, default="none")
    risk_reason = models.CharField(max_length=300, blank=True)
    #: Who said the risk: "" (nobody), code, manifest, or an operator by label.
    risk_by = models.CharField(max_length=160, blank=True)
    #: More targets than this in one call need a person.
    bulk_threshold = models.PositiveIntegerField(default=50)
    effect_class = models.CharField(
        max_length=16, choices=EffectClass.choices, default=EffectClass.NON_REPEATABLE
    )
    #: Which part of the extension it belongs to, and its own name there.
    part = models.CharField(max_length=80, blank=True)
    target = models.CharField(max_length=200, blank=True)
    annotations = models.JSONField(default=dict, blank=True)
    is_current = models.BooleanField(default=True)

    objects = CapabilityQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "capabilities"
        constraints = [
            models.UniqueConstraint(
                fields=["extension", "capability_id"], name="capability_once"
            ),
            models.CheckConstraint(
                condition=Q(
                    risk_level__in=["read", "write", "destructive", "unknown"],
                    side_effects__in=["none", "internal", "external"],
                    data_egress__in=["none", "network"],
                ),
                name="capability_risk",
            ),
        ]

    @property
    def claims(self) -> list[str]:
        """What its server says of it. Nobody has looked; no rule goes by it."""
        return [said for name, said in CLAIMS.items() if self.annotations.get(name)]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"{self.extension.ext_id}/{self.capability_id}"

    @property
    def risk(self) -> Risk:
        return Risk(self.risk_level, self.side_effects, self.data_egress)


class Version(AppendOnly):
    """One form that an extension has had, kept so that forms can be compared."""

    extension = models.ForeignKey(Extension, models.CASCADE, related_name="versions")
    version = models.CharField(max_length=40, blank=True)
    definition_hash = models.CharField(max_length=64)
    definition = models.JSONField(default=dict)
    source = models.CharField(max_length=500, blank=True)
    revision = models.CharField(max_length=120, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["extension", "definition_hash"], name="version_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.extension_id} {self.version} {self.definition_hash[:12]}"


class Review(AppendOnly):
    """A verdict on exactly one form of an extension."""

    extension = models.ForeignKey(Extension, models.CASCADE, related_name="reviews")
    definition_hash = models.CharField(max_length=64)
    is_approved = models.BooleanField()
    trust = models.CharField(max_length=12, choices=T.choices)
    reason = models.CharField(max_length=300)
    reviewer = models.CharField(max_length=160)

    def __str__(self) -> str:
        verdict = "approved" if self.is_approved else "rejected"
        return f"{verdict} {self.definition_hash[:12]} by {self.reviewer}"


class Certificate(AppendOnly):
    """Signed evidence of one stop: what ended, and what nobody could confirm."""

    extension = models.ForeignKey(
        Extension, models.CASCADE, related_name="certificates"
    )
    #: Canonical JSON; exactly these bytes are signed.
    body = models.TextField()
    digest = models.CharField(max_length=64)
    signature = models.CharField(max_length=128)
    signer = models.CharField(max_length=200)
    unconfirmed = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"certificate {self.digest[:12]} of {self.extension_id}"


class Connection(Row):
    """What an administrator allowed one MCP server's authorization server to give.

    No column holds a token: they lie in the vault, under names made from this row.
    """

    extension = models.ForeignKey(Extension, models.CASCADE, related_name="connections")
    part = models.CharField(max_length=80, blank=True)
    #: The server that a token is for; no other is ever sent it.
    server_url = models.CharField(max_length=500)
    status = models.CharField(max_length=12, choices=Link.choices, default=Link.WANTED)
    #: What is wrong and what to do, in words.
    problem = models.CharField(max_length=300, blank=True)
    #: What the server said when it refused: {"metadata", "scope"}.
    challenge = models.JSONField(default=dict, blank=True)
    #: Shape: `ports.Authority`, and Polar's registration there without its secret.
    authority = models.JSONField(default=dict, blank=True)
    client_id = models.CharField(max_length=2000, blank=True)
    auth_method = models.CharField(max_length=40, blank=True)
    #: With which redirect URI it is registered there.
    redirect_uri = models.CharField(max_length=500, blank=True)
    scope = models.CharField(max_length=2000, blank=True)
    #: Grows with every token, so that two workers never renew the same one.
    version = models.PositiveIntegerField(default=0)
    #: Whoever renews holds it until then.
    renewing_until = models.DateTimeField(null=True, blank=True)
    has_refresh = models.BooleanField(default=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    connected_at = models.DateTimeField(null=True, blank=True)
    connected_by = models.CharField(max_length=160, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["extension", "part"], name="connection_once"
            ),
            models.CheckConstraint(
                condition=Q(status__in=Link.values), name="connection_status"
            ),
            models.CheckConstraint(
                condition=~Q(status=Link.CONNECTED)
                | (Q(connected_at__isnull=False) & ~Q(connected_by="")),
                name="connection_made_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"connection of {self.extension_id} {self.part} ({self.status})"

    @property
    def shown_status(self) -> str:
        """What it is now: a token that ended and cannot be renewed is expired."""
        ended = self.expires_at is not None and self.expires_at <= clock.now()
        if self.status == Link.CONNECTED and ended and not self.has_refresh:
            return str(Link.EXPIRED)
        return str(self.status)

    @property
    def needs_person(self) -> bool:
        """Whether an administrator has to do something before it works."""
        waits = (Link.WANTED, Link.EXPIRED, Link.FAILED)
        return self.shown_status in waits or bool(self.problem)

    @property
    def is_endable(self) -> bool:
        return LINK_TRANSITIONS.allows(self.status, Link.DISCONNECTED)

    def secret_name(self, kind: str) -> str:
        """Name its secret of a kind: access, refresh, client or verifier."""
        return f"oauth/{self.extension.ext_id}/{self.part or 'server'}/{kind}"


class ConnectionAsk(Row):
    """One way to an authorization server and back: one person, once, ten minutes."""

    connection = models.ForeignKey(Connection, models.CASCADE, related_name="asks")
    #: SHA-256 of the state; the state itself is only in the URL that was handed out.
    state_hash = models.CharField(max_length=64, unique=True, editable=False)
    asked_by = models.ForeignKey(Principal, models.CASCADE, related_name="+")
    #: SHA-256 of the session that asked; "" where no browser did.
    session_hash = models.CharField(max_length=64, blank=True, editable=False)
    server_url = models.CharField(max_length=500)
    redirect_uri = models.CharField(max_length=500)
    authority = models.JSONField(default=dict)
    client_id = models.CharField(max_length=2000)
    auth_method = models.CharField(max_length=40)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"ask {self.id} of {self.connection_id}"
