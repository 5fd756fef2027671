"""The processes that carry runs, and which of them is the clock."""

from django.db import models

from apps.common import clock
from apps.common.models import Row, SoleRow


class WorkerBeat(Row):
    """A worker process and when it was last heard of."""

    process = models.CharField(max_length=80, unique=True)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    kinds = models.JSONField(default=list, blank=True)
    in_flight = models.PositiveIntegerField(default=0)
    concurrency = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=16, default="working")
    beat_at = models.DateTimeField(default=clock.now)
    schema_version = models.CharField(max_length=64, blank=True, default="")

    def __str__(self) -> str:
        return self.process


class ClockLease(SoleRow):
    """Which of the clock processes does the clock's jobs."""

    owner = models.CharField(max_length=80, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.owner or "nobody"
