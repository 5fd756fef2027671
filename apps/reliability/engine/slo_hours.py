"""The rows behind two promises, summed up by the hour once they are over.

Hides: which rows count and which of them broke the promise, and how long an hour
stays open. Invariants: an hour counts either by its sums (before the mark) or by its
rows; the mark moves by one conditional UPDATE in the transaction that writes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Count, Min, Q, QuerySet, Sum

from apps.agents.models import Handoff, HandoffState
from apps.common import clock
from apps.common.periods import LONG_AGO, UtcHour, hour_of
from apps.providers.models import Lane, LaneChange, UsageRow
from apps.reliability.models import SloMark, SloMinute

#: An hour is summed up so long after its end: who writes late has written by then.
SETTLES = timedelta(hours=1)
#: What is shown reaches so far back; older rows are not summed up at first.
REACHES_BACK = timedelta(days=31)
#: One transaction sums up so much, one call so many of them.
CHUNK = timedelta(days=1)
MOST_CHUNKS = 40
#: Minutes of the sink's promise older than this are kept as hours.
MINUTES_KEPT = timedelta(days=4)
#: The mark of the sink's folded minutes is called so after its own.
FOLDED = ":hours"

#: An hour, how many there were in it, and how many of them were bad.
Hour = tuple[datetime, int, int]
Counting = Callable[[datetime, datetime], list[Hour]]


@dataclass(frozen=True, slots=True)
class Counted:
    """A promise that is counted from rows by when they were made."""

    slug: str
    #: What counts, and which of it broke the promise.
    rows: Callable[[datetime], QuerySet[Any]]
    bad: Q
    #: What may still change its verdict keeps its hour open.
    undecided: Q | None = None

    def mark(self) -> datetime:
        """Return where the sums end; without any, before every row."""
        return _mark(self.slug) or LONG_AGO

    def hours(self, since: datetime, until: datetime) -> QuerySet[SloMinute]:
        """Return the sums of these hours."""
        rows = SloMinute.objects.filter(slo=self.slug)
        return rows.filter(minute__gte=since, minute__lt=until)

    def kept(self, since: datetime, until: datetime) -> tuple[int, int]:
        """Add the sums of these hours up: all, and the bad ones."""
        found = self.hours(since, until).aggregate(
            all=Sum("total", default=0), wrong=Sum("bad", default=0)
        )
        return found["all"], found["wrong"]

    def by_hour(self, since: datetime, until: datetime, now: datetime) -> list[Hour]:
        """Count the rows of these hours."""
        rows = self.rows(now).filter(created_at__gte=since, created_at__lt=until)
        found = rows.annotate(hour=UtcHour("created_at")).values_list("hour")
        counted = found.annotate(all=Count("pk"), wrong=Count("pk", filter=self.bad))
        return list(counted.order_by())

    def settled(self, now: datetime) -> datetime:
        """Return up to which hour nothing changes any more."""
        until = hour_of(now - SETTLES)
        if self.undecided is None:
            return until
        rows = self.rows(now).model._default_manager.filter(
            self.undecided, created_at__gte=self.mark(), created_at__lt=until
        )
        oldest = rows.aggregate(at=Min("created_at"))["at"]
        return hour_of(oldest) if oldest else until


def _handoffs(now: datetime) -> QuerySet[Handoff]:
    """What was handed over and is over, or late. Refused ones never began."""
    over = ~Q(state=HandoffState.OPEN) | Q(deadline_at__lt=now)
    return Handoff.objects.filter(over, HANDED_OVER)


def _served(now: datetime) -> QuerySet[UsageRow]:
    return UsageRow.objects.filter(origin="real", ok=True)


def _above() -> Q:
    """Served above the lane that was asked, by no pin and no plan."""
    higher = Q()
    for asked in Lane:
        above = [lane for lane in Lane if lane.rank > asked.rank]
        higher |= Q(requested_lane=asked, served_lane__in=above)
    return higher & ~Q(lane_change__in=[LaneChange.OPERATOR_PIN, LaneChange.PLANNED])


HANDED_OVER = Q(origin="real", child__isnull=False)
HANDOFFS = Counted(
    "handoff",
    _handoffs,
    ~Q(state=HandoffState.SUCCEEDED),
    HANDED_OVER & Q(state=HandoffState.OPEN),
)
ESCALATIONS = Counted("escalation", _served, _above())


def sum_up() -> int:
    """Sum up the hours that are over; return how many days or parts of days.

    Writes: SloMinute, one row an hour, and SloMark.   Again: begins where it ended.
    """
    now = clock.now()
    done = _fold_minutes(now)
    for each in (HANDOFFS, ESCALATIONS):
        count = partial(each.by_hour, now=now)
        done += _sum(each.slug, hour_of(now - REACHES_BACK), each.settled(now), count)
    return done


def _sum(slug: str, first: datetime, until: datetime, count: Counting) -> int:
    """Move the mark day by day and write what the hours before it counted."""
    since, done = _mark(slug), 0
    if since is None:
        row, _ = SloMark.objects.get_or_create(slo=slug, defaults={"judged_to": first})
        since = row.judged_to
    while since < until and done < MOST_CHUNKS:
        upto = min(since + CHUNK, until)
        with transaction.atomic():
            mine = SloMark.objects.filter(slo=slug, judged_to=since)
            if not mine.update(judged_to=upto):
                break
            _write(slug.removesuffix(FOLDED), since, upto, count(since, upto))
        since, done = upto, done + 1
    return done


def _write(slug: str, since: datetime, upto: datetime, hours: list[Hour]) -> None:
    kept = SloMinute.objects.filter(slo=slug, minute__gte=since, minute__lt=upto)
    kept.delete()
    SloMinute.objects.bulk_create(
        SloMinute(slo=slug, minute=hour, total=total, bad=bad)
        for hour, total, bad in hours
    )


def _fold_minutes(now: datetime) -> int:
    """Keep the sink's old minutes as hours."""
    minutes = SloMinute.objects.filter(slo="sink")
    oldest = minutes.aggregate(at=Min("minute"))["at"]
    if oldest is None:
        return 0

    def hours(since: datetime, until: datetime) -> list[Hour]:
        span = minutes.filter(minute__gte=since, minute__lt=until)
        found = span.annotate(hour=UtcHour("minute")).values_list("hour")
        counted = found.annotate(all=Sum("total"), wrong=Sum("bad"))
        return list(counted.order_by())

    until = hour_of(now - MINUTES_KEPT)
    return _sum("sink" + FOLDED, min(hour_of(oldest), until), until, hours)


def _mark(slug: str) -> datetime | None:
    found = SloMark.objects.filter(slo=slug).values_list("judged_to", flat=True)
    return found.first()
