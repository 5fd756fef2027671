"""The tables of the log. Only `services` and `engine` write them.

`Event` and `Checkpoint` are append-only, in Python and by trigger; the single
change a trigger lets through is `Event.gseq` from NULL to a number. `Event.body`
is the exact canonical text that was hashed; every other column repeats it so
that it can be searched, and verification compares them.
"""

from typing import Any

from django.db import models
from django.db.models import F, Q

from apps.audit import ports
from apps.common import clock
from apps.common.models import AppendOnly, AppendOnlyQuerySet, SoleRow


class EventQuerySet(AppendOnlyQuerySet):
    """Reads events in the words of the log."""

    def sealed(self) -> "EventQuerySet":
        return self.filter(gseq__isnull=False)

    def unsealed(self) -> "EventQuerySet":
        return self.filter(gseq__isnull=True)

    def of_trace(self, trace_id: str) -> "EventQuerySet":
        # the empty ones are excluded in words, or SQLite would not take the index
        return self.filter(trace_id=trace_id).exclude(trace_id="").order_by("id")

    def of_run(self, run_id: Any) -> "EventQuerySet":
        return self.filter(run_id=run_id).order_by("run_seq")

    def about(self, kind: str, subject_id: str) -> "EventQuerySet":
        found = self.filter(subject_kind=kind, subject_id=subject_id)
        return found.exclude(subject_kind="").order_by("id")


class Event(AppendOnly):
    """One thing that happened, as it is hashed into the tree."""

    created_at = None  # type: ignore[assignment]  # `occurred_at` is part of the hashed body; one time is enough
    gseq = models.BigIntegerField(null=True, editable=False)
    type = models.CharField(max_length=80, choices=ports.choices)
    actor_kind = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=80)
    actor_label = models.CharField(max_length=200)
    workspace_id = models.UUIDField(null=True)
    trace_id = models.CharField(max_length=64, blank=True)
    run_id = models.UUIDField(null=True)
    run_seq = models.BigIntegerField(null=True)
    subject_kind = models.CharField(max_length=40, blank=True)
    subject_id = models.CharField(max_length=200, blank=True)
    decision = models.CharField(max_length=40, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    epoch = models.CharField(max_length=32)
    occurred_at = models.DateTimeField(default=clock.now, editable=False)
    payload_digest = models.CharField(max_length=64, blank=True)
    body = models.TextField()
    digest = models.CharField(max_length=64)

    objects = EventQuerySet.as_manager()  # type: ignore[misc]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["gseq"], name="event_gseq_once"),
            models.UniqueConstraint(
                fields=["run_id", "run_seq"],
                condition=Q(run_id__isnull=False),
                name="event_run_order",
            ),
            models.CheckConstraint(
                condition=Q(run_id__isnull=True, run_seq__isnull=True)
                | Q(run_id__isnull=False, run_seq__gte=1),
                name="event_run_pair",
            ),
        ]
        indexes = [
            # seal: what still waits for a number
            models.Index(
                fields=["id"], condition=Q(gseq__isnull=True), name="event_unsealed"
            ),
            # everything of one trace
            models.Index(
                fields=["trace_id", "id"],
                condition=~Q(trace_id=""),
                name="event_by_trace",
            ),
            # the history of one thing
            models.Index(
                fields=["subject_kind", "subject_id", "id"],
                condition=~Q(subject_kind=""),
                name="event_by_subject",
            ),
            # what one actor did, newest first
            models.Index(fields=["actor_id", "id"], name="event_by_actor"),
            # all of one kind, newest first
            models.Index(fields=["type", "id"], name="event_by_type"),
            # verify: payloads that must be there or have been erased
            models.Index(
                fields=["id"],
                condition=~Q(payload_digest=""),
                name="event_with_payload",
            ),
            # refusals and approvals, newest first
            models.Index(
                fields=["decision", "id"],
                condition=~Q(decision=""),
                name="event_by_decision",
            ),
        ]

    def __str__(self) -> str:
        place = "unsealed" if self.gseq is None else f"#{self.gseq}"
        return f"{place} {self.type} {self.id}"


class RunHead(models.Model):
    """How many events a run has, so that the next one gets its number.

    And the highest fence that wrote any: who carried the run before writes no more.
    """

    run_id = models.UUIDField(primary_key=True)
    last_seq = models.BigIntegerField()
    fence = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(last_seq__gte=1), name="runhead_counts_from_one"
            )
        ]

    def __str__(self) -> str:
        return f"{self.run_id} at {self.last_seq}"


class Payload(models.Model):
    """What an event carries beside its body; may be erased, never altered."""

    event = models.OneToOneField(
        Event, primary_key=True, on_delete=models.PROTECT, related_name="payload"
    )
    salt = models.CharField(max_length=64)
    text = models.TextField()

    def __str__(self) -> str:
        return f"payload of {self.event_id}"


class Head(SoleRow):
    """The one row that says how far the tree has grown, and in which epoch."""

    size = models.BigIntegerField(default=0)
    root = models.CharField(max_length=64)
    #: One hash per set bit of `size`, lowest level first: what extending needs.
    frontier = models.BinaryField(default=bytes)
    epoch = models.CharField(max_length=32)
    #: The size at which this epoch began.
    epoch_size = models.BigIntegerField(default=0)
    #: The standing alarm, for hosts that do not see the witness.
    alarm = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(size__gte=F("epoch_size")), name="head_grows"
            )
        ]

    def __str__(self) -> str:
        return f"{self.size} {self.root[:16]}"


class Tile(models.Model):
    """Up to 256 consecutive nodes of every eighth level of the tree.

    Source: https://c2sp.org/tlog-tiles
    """

    level = models.PositiveSmallIntegerField()
    index = models.BigIntegerField()
    hashes = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["level", "index"], name="tile_place")
        ]

    def __str__(self) -> str:
        return f"tile {self.level}/{self.index}"


class Checkpoint(AppendOnly):
    """A signed statement of the tree's size and root."""

    size = models.BigIntegerField()
    root = models.CharField(max_length=64)
    epoch = models.CharField(max_length=32)
    note = models.TextField()

    class Meta:
        indexes = [
            # the latest checkpoint, and those of a range
            models.Index(fields=["size", "id"], name="checkpoint_by_size")
        ]

    def __str__(self) -> str:
        return f"checkpoint {self.size} {self.id}"


class SinkCursor(models.Model):
    """How far a sink has acknowledged the log without a gap."""

    name = models.CharField(primary_key=True, max_length=80)
    last_seq = models.BigIntegerField(default=-1)
    last_ack_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True)
    #: The epoch that the sink was last told of.
    epoch = models.CharField(max_length=32, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.name} at {self.last_seq}"
