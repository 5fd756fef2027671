"""Usage summed up by the hour, once, so that a window costs its hours and no more.

Hides: which part of a window comes from the sums and which from the rows.
Invariants: see hourly.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import (
    Count,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    UUIDField,
)

from apps.agents.models import Turn, UsageHour, UsageMark
from apps.common.periods import LONG_AGO, UtcDay, UtcHour, hour_of
from apps.providers.models import Origin, UsageRow

from .hourly import HourlySums

#: What the calls of a group have in common, beside their hour or day.
COMMON = (
    "served_provider",
    "served_model",
    "served_lane",
    "profile_id",
    "lane_change",
    "lane_reason",
)
SUMS = (
    "calls",
    "failures",
    "fallbacks",
    "lowered",
    "sum_in",
    "sum_out",
    "cost",
    "took",
)


def by_day(
    *, since: datetime, origin: str, workspaces: Sequence[UUID]
) -> Iterator[dict[str, Any]]:
    """Yield the groups of each day since the hour of a moment.

    A group comes twice where a day is summed in part: its hours, then its rows.
    """
    mark, since = SUMMED.mark(), hour_of(since)
    mine = Q(origin=origin, workspace_id__in=workspaces)
    # The mark is read first and only moves on: an hour before it has its sums by now.
    hours = UsageHour.objects.filter(mine, hour__gte=since, hour__lt=mark)
    for row in (
        hours.annotate(day=UtcDay("hour"))
        .values("day", *COMMON)
        .annotate(**{f"all_{name}": Sum(name) for name in SUMS})
        .order_by()
    ):
        yield {**row, **{name: row[f"all_{name}"] for name in SUMS}}
    rows = UsageRow.objects.filter(mine, created_at__gte=max(since, mark))
    yield from _grouped(rows.annotate(day=UtcDay("created_at")), "day")


def by_hour(
    *, since: datetime, origin: str, workspaces: Sequence[UUID]
) -> dict[datetime, dict[str, int]]:
    """Return what each hour since a moment's hour had. Shape: calls, failures, cost."""
    mark, since = SUMMED.mark(), hour_of(since)
    mine = Q(origin=origin, workspace_id__in=workspaces)
    summed = UsageHour.objects.filter(mine, hour__gte=since, hour__lt=mark)
    rows = UsageRow.objects.filter(mine, created_at__gte=max(since, mark))
    hours = summed.values_list("hour").annotate(
        Sum("calls"), Sum("failures"), Sum("cost")
    )
    young = (
        rows.annotate(hour=UtcHour("created_at"))
        .values_list("hour")
        .annotate(
            calls=Count("id"),
            failures=Count("id", filter=Q(ok=False)),
            cost=Sum("micros"),
        )
    )
    found: dict[datetime, dict[str, int]] = {}
    for hour, calls, failures, cost in (*hours.order_by(), *young.order_by()):
        held = found.setdefault(hour, {"calls": 0, "failures": 0, "cost": 0})
        held["calls"] += calls
        held["failures"] += failures
        held["cost"] += cost
    return found


def sum_up() -> int:
    """Sum up the hours that are over; return how many were summed, in days or parts.

    Writes: UsageHour and UsageMark.   Again: begins where the last one ended.
    """
    done = SUMMED.sum_up()
    if done:
        mend()
    return done


def mend() -> int:
    """Sum the youngest hours again whose rows are not as many as were summed."""
    wrong = differing(*SUMMED.young())
    for hour in wrong:
        SUMMED.again(hour, hour + timedelta(hours=1))
    return len(wrong)


def rebuild() -> int:
    """Sum every summed hour again from its rows; return how many hours differed."""
    until = SUMMED.mark()
    since, wrong = SUMMED.first(until), differing(LONG_AGO, until)
    while since < until:
        upto = min(since + SUMMED.chunk, until)
        SUMMED.again(since, upto)
        since = upto
    return len(wrong)


def differing(since: datetime, until: datetime) -> list[datetime]:
    """Return the hours whose sums are not those of their rows."""
    span = Q(created_at__gte=since, created_at__lt=until, origin__in=Origin.values)
    rows = UsageRow.objects.filter(span).annotate(hour=UtcHour("created_at"))
    counted = rows.values_list("hour").annotate(Count("id"), Sum("micros"))
    sums = UsageHour.objects.filter(hour__gte=since, hour__lt=until)
    summed = sums.values_list("hour").annotate(Sum("calls"), Sum("cost"))
    return sorted({hour for hour, *_ in set(counted) ^ set(summed)})


def _grouped(rows: QuerySet[UsageRow], *by: str) -> QuerySet[UsageRow, dict[str, Any]]:
    profile = Turn.objects.filter(id=OuterRef("turn_id")).values("profile_id")[:1]
    return (
        rows.annotate(profile_id=Subquery(profile, output_field=UUIDField()))
        .values(*by, *COMMON)
        .annotate(
            calls=Count("id"),
            failures=Count("id", filter=Q(ok=False)),
            fallbacks=Count("id", filter=Q(fallback_used=True)),
            lowered=Count("id", filter=Q(degraded=True)),
            sum_in=Sum("tokens_in"),
            sum_out=Sum("tokens_out"),
            cost=Sum("micros"),
            took=Sum("duration_ms"),
        )
        .order_by()
    )


def _oldest() -> datetime | None:
    return UsageRow.objects.aggregate(at=Min("created_at"))["at"]


def _write(since: datetime, upto: datetime) -> None:
    rows = UsageRow.objects.filter(
        origin__in=Origin.values, created_at__gte=since, created_at__lt=upto
    ).annotate(hour=UtcHour("created_at"))
    found = _grouped(rows, "hour", "origin", "workspace_id")
    UsageHour.objects.bulk_create([UsageHour(**row) for row in found], batch_size=500)


SUMMED = HourlySums(
    marks=UsageMark,
    rows=UsageHour.objects.all,
    write=_write,
    oldest=_oldest,
    settles=timedelta(hours=1),
    chunk=timedelta(days=1),
    most_chunks=40,
)
