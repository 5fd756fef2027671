"""What agents and people keep for later, and the words by which it is found."""

from typing import Self

from django.db import models
from django.db.models import Q

from apps.access.models import Principal, Workspace, WorkspaceQuerySet
from apps.agents.models.core import Conversation
from apps.audit import ports as audit_ports
from apps.common import clock
from apps.common.models import Row

audit_ports.declare("memory.saved", "memory.corrected", "memory.deleted")


class MemoryScope(models.TextChoices):
    SESSION = "session"
    USER = "user"
    WORKSPACE = "workspace"
    GLOBAL = "global"


class MemoryQuerySet(WorkspaceQuerySet):
    def within(self, principal: Principal, session_id: str) -> Self:
        """Keep what one conversation of one person may recall."""
        mine = Q(scope=MemoryScope.USER, key=str(principal.id))
        here = Q(scope=MemoryScope.SESSION, key=session_id) if session_id else Q()
        shared = Q(scope=MemoryScope.WORKSPACE)
        return self.filter(shared | mine | here if session_id else shared | mine)

    def shown_to(self, principal: Principal) -> Self:
        """Keep what a person may see: the workspace's, and what is about them."""
        own = Conversation.objects.filter(principal=principal).values_list("id")
        keys = [str(each) for (each,) in own]
        mine = self.visible_to(principal).filter(
            Q(scope=MemoryScope.WORKSPACE)
            | Q(scope=MemoryScope.USER, key=str(principal.id))
            | Q(scope=MemoryScope.SESSION, key__in=keys)
        )
        # What is for everybody is seen by whoever is somewhere at home.
        everybody = Q(scope=MemoryScope.GLOBAL)
        shared = self.filter(Q(id__in=mine.values("id")) | everybody)
        return shared if principal.is_active else self.none()


class Memory(Row):
    """One thing kept for later, with who wrote it down and where it came from."""

    workspace = models.ForeignKey(
        Workspace, on_delete=models.PROTECT, related_name="memories"
    )
    scope = models.CharField(max_length=10, choices=MemoryScope)
    #: The id of the session, user principal or workspace it belongs to; "" of all.
    key = models.CharField(max_length=64, blank=True)
    text = models.TextField()
    digest = models.CharField(max_length=64)
    labels = models.JSONField(default=list, blank=True)
    #: The agent that wrote it down; "" when a person did.
    agent = models.CharField(max_length=40, blank=True, default="")
    by_label = models.CharField(max_length=160)
    turn_id = models.UUIDField(null=True, blank=True)
    trace_id = models.CharField(max_length=32, blank=True, default="")
    #: It stands for the turns of its session up to `turn_id`.
    is_summary = models.BooleanField(default=False)
    updated_at = models.DateTimeField(default=clock.now)

    objects = MemoryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "memories"
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "scope", "key", "digest"],
                name="agents_memory_once",
            )
        ]
        indexes = [
            # the page: newest of a workspace
            models.Index(fields=["workspace", "-id"], name="agents_memory_newest"),
            # a long conversation's context: its newest summary
            models.Index(
                fields=["key", "-id"],
                condition=Q(is_summary=True),
                name="agents_memory_summary",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} memory {self.id}"


class MemoryWord(models.Model):
    """One word of one memory: the index that search reads. Goes with its memory."""

    memory = models.ForeignKey(Memory, on_delete=models.CASCADE, related_name="words")
    word = models.CharField(max_length=40)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["memory", "word"], name="agents_memoryword_once"
            )
        ]
        indexes = [
            # search by a word or its beginning
            models.Index(fields=["word"], name="agents_memoryword_word")
        ]

    def __str__(self) -> str:
        return self.word
