"""Accounts through which people reach agents.

Invariant: one account of a slug per workspace; states come from `ACCOUNT` alone.
"""

from typing import Self

from django.db import models
from django.db.models import Q

from apps.access.models import Workspace, WorkspaceQuerySet
from apps.audit import ports as audit_ports
from apps.common.models import Row
from apps.common.states import Transitions

audit_ports.declare("channel.opened", "channel.paused", "channel.resumed")


class AccountKind(models.TextChoices):
    WEB = "web"


class AccountState(models.TextChoices):
    ACTIVE = "active"
    PAUSED = "paused"


ACCOUNT = Transitions(
    "channels.account",
    initial=AccountState.ACTIVE,
    table={
        AccountState.ACTIVE: [AccountState.PAUSED],
        AccountState.PAUSED: [AccountState.ACTIVE],
    },
)


class AccountQuerySet(WorkspaceQuerySet):
    def active(self) -> Self:
        return self.filter(state=AccountState.ACTIVE)


class Account(Row):
    """One way in: the web chat of a workspace, later a bot of a vendor."""

    workspace = models.ForeignKey(Workspace, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=16, choices=AccountKind.choices)
    slug = models.SlugField(max_length=40)
    state = models.CharField(
        max_length=16, choices=AccountState.choices, default=AccountState.ACTIVE
    )

    objects = AccountQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint("workspace", "slug", name="channels_account_slug"),
            models.CheckConstraint(
                condition=Q(state__in=AccountState.values),
                name="channels_account_state",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.slug} in {self.workspace_id}"
