"""Workspaces, the people and agents in them, and their tokens."""

from datetime import datetime
from typing import Any, Self

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q

from apps.audit import ports as audit_ports
from apps.common import clock, ids
from apps.common.actor import Actor
from apps.common.models import Row

audit_ports.declare(
    "user.created",
    "token.issued",
    "token.revoked",
    "access.signed_in",
    "access.refused",
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

    def visible_to(self, principal: Principal) -> Self:
        """Keep what this principal may see: the system everything, a human
        the workspaces they belong to, an agent its own."""
        if not principal.is_active:
            return self.none()
        if principal.kind == PrincipalKind.SYSTEM:
            return self
        if principal.kind == PrincipalKind.HUMAN:
            mine = Membership.objects.filter(user__principal=principal)
            return self.filter(workspace__in=mine.values("workspace"))
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
