"""Workspaces, the people and agents in them, and their tokens."""

from datetime import datetime
from typing import Any, Self

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common import clock, ids
from apps.common.actor import Actor
from apps.common.lookups import Unindexed
from apps.common.models import Row, SoleRow

audit_ports.declare(
    "user.created",
    "token.issued",
    "token.revoked",
    "token.limited",
    "access.signed_in",
    "access.refused",
    "access.locked",
    "access.session_ended",
    "access.policy_set",
    "user.role_set",
    "user.activated",
    "user.deactivated",
    "user.password_set",
    "second_factor.begun",
    "second_factor.confirmed",
    "second_factor.removed",
    "second_factor.recovery_used",
)


class Role(models.TextChoices):
    """What a person may do in a workspace; each includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


#: Roles from least to most.
ROLE_ORDER = [Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN]


class PrincipalKind(models.TextChoices):
    HUMAN = "human"
    AGENT = "agent"
    AUTOMATION = "automation"
    SYSTEM = "system"


class Workspace(Row):
    """A tenant: conversations, boards, budgets and runs belong to one."""

    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=120)

    def __str__(self) -> str:
        return self.slug


class User(AbstractUser):
    """A person who can sign in."""

    id = models.UUIDField(primary_key=True, default=ids.new_id, editable=False)

    def __str__(self) -> str:
        return self.username


class Membership(Row):
    """A person's role in a workspace."""

    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    workspace = models.ForeignKey(Workspace, models.CASCADE)
    role = models.CharField(max_length=16, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint("user", "workspace", name="membership_once"),
            models.CheckConstraint(
                condition=Q(role__in=Role.values), name="membership_role"
            ),
        ]
        # What the pages of the desk ask for, by role.
        permissions = [
            ("look", "May look at the desk"),
            ("act", "May act on the desk"),
            ("approve", "May approve on the desk"),
            ("administer", "May administer the install"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role} in {self.workspace_id}"


class Principal(Row):
    """Anything that can act: a human, an agent, an automation, the system."""

    kind = models.CharField(max_length=16, choices=PrincipalKind.choices)
    key = models.CharField(max_length=160, unique=True)
    label = models.CharField(max_length=160)
    user = models.OneToOneField(User, models.CASCADE, null=True, blank=True)
    workspace = models.ForeignKey(Workspace, models.CASCADE, null=True, blank=True)
    is_active = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=PrincipalKind.values), name="principal_kind"
            ),
            models.CheckConstraint(
                condition=Q(user__isnull=True) | Q(kind=PrincipalKind.HUMAN),
                name="principal_user_is_human",
            ),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def actor(self) -> Actor:
        """The principal as the lower floors record it."""
        return Actor(self.kind, str(self.id), self.label)


class WorkspaceQuerySet(models.QuerySet[Any]):
    """Base of every QuerySet whose rows belong to a workspace."""

    #: Most rows belong to one workspace and the newest are wanted: SQLite, told
    #: nothing, would read all of the workspace and sort them.
    is_listed_by_age = False

    def visible_to(self, principal: Principal) -> Self:
        """Keep what this principal may see: the system everything, a human
        the workspaces they belong to, an agent its own."""
        if not principal.is_active:
            return self.none()
        if principal.kind == PrincipalKind.SYSTEM:
            return self
        if principal.kind == PrincipalKind.HUMAN:
            member = Membership.objects.filter(user__principal=principal)
            mine = member.values("workspace")
            if self.is_listed_by_age:
                return self.alias(of=Unindexed("workspace_id")).filter(of__in=mine)
            return self.filter(workspace__in=mine)
        return self.filter(workspace_id=principal.workspace_id)


class TokenQuerySet(models.QuerySet["Token"]):
    def live(self, now: datetime) -> Self:
        """Keep tokens that are neither revoked nor expired, of active owners."""
        return self.filter(
            Q(expires_at__isnull=True) | Q(expires_at__gt=now),
            revoked_at__isnull=True,
            principal__is_active=True,
        )


class Token(Row):
    """A bearer token, known only by its hash."""

    principal = models.ForeignKey(Principal, models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=120)
    digest = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)
    source = models.CharField(max_length=16, default="issued")
    rate_per_minute = models.PositiveIntegerField(default=6000)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TokenQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.name} ({self.digest[:8]})"

    @property
    def is_live(self) -> bool:
        expired = self.expires_at is not None and self.expires_at <= clock.now()
        return self.revoked_at is None and not expired


class Lockout(models.Model):
    """How often a door was tried in vain: one row per account and address.

    The key is a hash, so the table tells nobody which names were tried.
    """

    key = models.CharField(max_length=64, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    since = models.DateTimeField(default=clock.now)
    locked_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            # old rows are cleared by age
            models.Index(fields=["since"], name="access_lockout_since")
        ]

    def __str__(self) -> str:
        return self.key[:8]


class SignIn(Row):
    """One browser session of a person, as the list of sessions shows it."""

    user = models.ForeignKey(User, models.CASCADE, related_name="sign_ins")
    session_key = models.CharField(max_length=40, unique=True, editable=False)
    address = models.CharField(max_length=45, blank=True)
    browser = models.CharField(max_length=200, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            # a person's sessions, newest first
            models.Index(fields=["user", "-id"], name="access_sign_in_user")
        ]

    def __str__(self) -> str:
        return f"{self.user_id} from {self.address} {self.created_at:%F %T}"


class ExternalIdentity(Row):
    """Who a person is at the identity provider: the same subject is the same person."""

    user = models.OneToOneField(User, models.CASCADE, related_name="external_identity")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)

    class Meta:
        verbose_name_plural = "external identities"
        constraints = [
            models.UniqueConstraint("issuer", "subject", name="external_identity_once")
        ]

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"


class SecondFactor(Row):
    """The key of a person's authenticator; the key itself lies in the vault.

    `last_step` is the newest time step whose code was used: no code works twice.
    """

    user = models.OneToOneField(User, models.CASCADE, related_name="second_factor")
    secret = models.ForeignKey("vault.Secret", models.PROTECT)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    last_step = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"second factor of {self.user_id}"


class RecoveryCode(Row):
    """A code for the day the authenticator is lost, known by its hash, used once."""

    user = models.ForeignKey(User, models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint("user", "digest", name="recovery_code_once")
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.digest[:8]}"


class AccessPolicy(SoleRow):
    """What entering takes, decided by an administrator."""

    second_factor_required = models.BooleanField(default=False)

    def __str__(self) -> str:
        return "second factor required" if self.second_factor_required else "open"


class KeyedAnswer(Row):
    """What a write with an `Idempotency-Key` was answered, for the repeat of it.

    `status` is 0 while the first request is under way.
    """

    principal = models.ForeignKey(Principal, models.CASCADE)
    key = models.CharField(max_length=200)
    request_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(default=0)
    content_type = models.CharField(max_length=100, blank=True)
    body = models.TextField(blank=True)
    is_kept = models.BooleanField(default=True)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint("principal", "key", name="keyed_answer_once")
        ]
        indexes = [
            # what is over is cleared
            models.Index(fields=["expires_at"], name="access_keyed_expiry")
        ]

    def __str__(self) -> str:
        return f"{self.principal_id} {self.key}"
