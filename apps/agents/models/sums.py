"""What models were asked, and who called whom, by the hour: no page counts it again."""

from django.db import models

from apps.common.models import SoleRow
from apps.providers.models import Origin


class UsageHour(models.Model):
    """The calls of one hour that have all of this in common.

    Derived from UsageRow and nothing else: it may be dropped and made again.
    """

    hour = models.DateTimeField()
    origin = models.CharField(max_length=10, choices=Origin)
    #: Plain ids, as in the rows it sums up.
    workspace_id = models.UUIDField(null=True, blank=True)
    profile_id = models.UUIDField(null=True, blank=True)
    served_provider = models.CharField(max_length=40, blank=True)
    served_model = models.CharField(max_length=120, blank=True)
    served_lane = models.CharField(max_length=10, blank=True)
    lane_change = models.CharField(max_length=15)
    lane_reason = models.CharField(max_length=24, blank=True, default="")
    calls = models.PositiveBigIntegerField(default=0)
    failures = models.PositiveBigIntegerField(default=0)
    fallbacks = models.PositiveBigIntegerField(default=0)
    lowered = models.PositiveBigIntegerField(default=0)
    sum_in = models.PositiveBigIntegerField(default=0)
    sum_out = models.PositiveBigIntegerField(default=0)
    cost = models.PositiveBigIntegerField(default=0)
    #: All its calls together. Units: milliseconds.
    took = models.PositiveBigIntegerField(default=0)

    class Meta:
        indexes = [
            # the usage page: one origin's window
            models.Index(fields=["origin", "hour"], name="agents_usagehour_window"),
            # an hour is taken out before it is summed up again
            models.Index(fields=["hour"], name="agents_usagehour_hour"),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%F %R} {self.served_provider}/{self.served_model}"


class UsageMark(SoleRow):
    """Every hour before this is summed up; what came later is counted as it is."""

    summed_to = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"summed to {self.summed_to:%F %R}" if self.summed_to else "not summed"


class Told(models.TextChoices):
    """What the log tells of who called whom."""

    TURN = "turn"  # an agent's turn at a depth
    EDGE = "edge"  # a handoff from caller to called
    CUT = "cut"  # one that the loop guard refused


class RecursionHour(models.Model):
    """How often the log told one thing within one hour.

    Derived from the log and nothing else: it may be dropped and made again.
    """

    hour = models.DateTimeField()
    workspace_id = models.UUIDField(null=True, blank=True)
    told = models.CharField(max_length=4, choices=Told)
    #: Agent and depth of a turn; caller and called of a handoff.
    a = models.CharField(max_length=64, blank=True)
    b = models.CharField(max_length=64, blank=True)
    count = models.PositiveBigIntegerField()

    class Meta:
        indexes = [
            # the heat map's window; an hour that is summed again
            models.Index(fields=["hour"], name="agents_recursionhour_hour"),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%F %R} {self.told} {self.a} {self.b}: {self.count}"

    @property
    def of(self) -> tuple[str, str, str]:
        return self.told, self.a, self.b


class RecursionMark(SoleRow):
    """Every hour before this is summed up; what came later is counted from the log."""

    summed_to = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"summed to {self.summed_to:%F %R}" if self.summed_to else "not summed"
