"""What models were asked and what it took, grouped for people and for files.

Units: tokens, micro-USD, milliseconds. Statistics count the origin `real` unless
another is named.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.access.models import Principal
from apps.access.queries import workspaces_of
from apps.agents.engine import usage_hours
from apps.agents.models import AgentProfile
from apps.common import clock, units
from apps.common.periods import hour_of
from apps.providers.models import Lane

#: The page and the API show at most so many groups; the file has them all.
MOST_GROUPS = 500
CHART_PIXELS = 160
#: What a page narrows its groups by.
NARROWS = ("provider", "lane", "profile")
HOURS_SHOWN, HOURS_PIXELS = 24, 48
COLUMNS = (
    "day",
    "provider",
    "model",
    "lane",
    "lane_change",
    "lane_reason",
    "profile",
    "calls",
    "failures",
    "fallbacks",
    "degraded",
    "tokens_in",
    "tokens_out",
    "micros",
    "average_ms",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One lane's part of one day's bar. Units: per cent across, pixels down."""

    lane: str
    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Money by day and lane; calls where nothing cost anything."""

    unit: str
    pieces: list[Piece]
    labels: list[tuple[float, str]]
    most: int
    days: int


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour's bar of the last day. Units: per cent across, pixels down."""

    x: float
    y: float
    height: float
    says: str


@dataclass(frozen=True, slots=True)
class LastDay:
    """What the hours up to this one spent, or asked where nothing cost anything."""

    unit: str
    micros: int
    calls: int
    failures: int
    most: int
    bars: list[Hour]
    first: datetime
    middle: datetime


@dataclass(frozen=True, slots=True)
class Latency:
    """The average answer time by day, as a line. Units: `points` in the box of 100
    by 24 that the page draws; the times in milliseconds."""

    points: str
    slowest_ms: int
    newest_ms: int


def groups(*, principal: Principal, days: int, origin: str = "real") -> list[Any]:
    """Group usage by day, provider, model, lane and profile, newest day first.

    Reads: the workspaces that the principal belongs to, from a full hour on.
    Shape: COLUMNS.
    """
    mine = list(workspaces_of(principal).values_list("id", flat=True))
    since = clock.now() - timedelta(days=days)
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for row in usage_hours.by_day(since=since, origin=origin, workspaces=mine):
        key = (row["day"], *(row[name] for name in usage_hours.COMMON))
        sums[key].update({name: row[name] for name in usage_hours.SUMS})
    slugs = dict(AgentProfile.objects.values_list("id", "slug"))
    told = [_told(key, each, slugs) for key, each in sums.items()]
    told.sort(key=itemgetter(*COLUMNS[1:7]))
    return sorted(told, key=itemgetter("day"), reverse=True)


def last_day(*, principal: Principal) -> LastDay:
    """Lay the last 24 hours out as bars, this one at the right."""
    mine = list(workspaces_of(principal).values_list("id", flat=True))
    first = hour_of(clock.now()) - timedelta(hours=HOURS_SHOWN - 1)
    found = usage_hours.by_hour(since=first, origin="real", workspaces=mine)
    sums = Counter[str]()
    for each in found.values():
        sums.update(each)
    unit = "cost" if sums["cost"] else "calls"
    most = max((each[unit] for each in found.values()), default=0)
    hours = [first + timedelta(hours=place) for place in range(HOURS_SHOWN)]
    return LastDay(
        unit,
        sums["cost"],
        sums["calls"],
        sums["failures"],
        most,
        [
            _bar(place, hour, unit, found.get(hour, {}).get(unit, 0), most)
            for place, hour in enumerate(hours)
        ],
        first,
        hours[HOURS_SHOWN // 2],
    )


def _amount(unit: str, value: int) -> str:
    return units.format_usd(value) if unit == "cost" else f"{value:,} calls"


def _bar(place: int, hour: datetime, unit: str, value: int, most: int) -> Hour:
    slot = 100 / HOURS_SHOWN
    tall = round(value * HOURS_PIXELS / most, 1) if most else 0.0
    said = f"{timezone.localtime(hour):%H:%M}: {_amount(unit, value)}"
    return Hour(round(place * slot, 3), round(HOURS_PIXELS - tall, 1), tall, said)


def _told(
    key: tuple[Any, ...], sums: Counter[str], slugs: dict[UUID, str]
) -> dict[str, Any]:
    day, provider, model, lane, profile, change, reason = key
    return {
        "day": day,
        "provider": provider,
        "model": model,
        "lane": lane,
        "lane_change": change,
        "lane_reason": reason,
        "profile": slugs.get(profile, ""),
        "calls": sums["calls"],
        "failures": sums["failures"],
        "fallbacks": sums["fallbacks"],
        "degraded": sums["lowered"],
        "tokens_in": sums["sum_in"],
        "tokens_out": sums["sum_out"],
        "micros": sums["cost"],
        "average_ms": round(sums["took"] / sums["calls"]),
    }


def table(*, principal: Principal, days: int, origin: str = "real") -> list[Any]:
    """Return the groups that an answer shows."""
    return groups(principal=principal, days=days, origin=origin)[:MOST_GROUPS]


def narrowed(rows: list[dict[str, Any]], asked: dict[str, str]) -> list[dict[str, Any]]:
    """Keep the groups that have all that is asked for."""
    wanted = {name: value for name, value in asked.items() if value}
    return [row for row in rows if all(row[n] == v for n, v in wanted.items())]


def offered(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By what the groups may be narrowed, and the values that there are."""
    return {name: sorted({row[name] for row in rows} - {""}) for name in NARROWS}


def lines(
    *, principal: Principal, days: int, origin: str = "real"
) -> Iterator[list[Any]]:
    """Yield the groups as rows of a file, its header first."""
    yield list(COLUMNS)
    for row in groups(principal=principal, days=days, origin=origin):
        yield [_harmless(row[name]) for name in COLUMNS]


def _harmless(value: Any) -> Any:
    """A cell that a spreadsheet would run as a formula is written as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" else value


def totals(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Add the groups up."""
    names = ("calls", "failures", "fallbacks", "tokens_in", "tokens_out", "micros")
    return {name: sum(row[name] for row in rows) for name in names}


def chart(rows: list[dict[str, Any]], days: int) -> Chart:
    """Lay the days out as stacked bars, lowest lane below."""
    unit = "micros" if any(row["micros"] for row in rows) else "calls"
    sums: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        sums[row["day"]][row["lane"] or Lane.LOCAL] += row[unit]
    last = clock.now().date()
    shown = [last - timedelta(days=back) for back in range(days - 1, -1, -1)]
    most = max((sum(sums[day].values()) for day in shown), default=0)
    pieces, slot = [], 100 / max(len(shown), 1)
    for number, day in enumerate(shown):
        top = float(CHART_PIXELS)
        for lane in (Lane.LOCAL, Lane.WORKER, Lane.BRAIN):
            height = sums[day][lane] * (CHART_PIXELS - 12) / most if most else 0
            top -= height
            if height:
                x, width = round(number * slot + slot * 0.15, 3), round(slot * 0.7, 3)
                pieces.append(Piece(lane, x, width, round(top, 2), round(height, 2)))
    every = max(len(shown) // 6, 1)
    labels = [
        (round((number + 0.5) * slot, 3), f"{day:%d %b}")
        for number, day in enumerate(shown)
        if number % every == 0
    ]
    return Chart(unit, pieces, labels, most, len(shown))


def latency(rows: list[dict[str, Any]], days: int) -> Latency | None:
    """Lay each day's average out as a line; None with fewer than two days."""
    took: dict[date, int] = defaultdict(int)
    calls: dict[date, int] = defaultdict(int)
    for row in rows:
        took[row["day"]] += row["average_ms"] * row["calls"]
        calls[row["day"]] += row["calls"]
    averages = {day: took[day] / calls[day] for day in sorted(calls) if calls[day]}
    if len(averages) < 2:
        return None
    first = clock.now().date() - timedelta(days=days - 1)
    most = max(averages.values()) or 1
    points = (
        f"{max((day - first).days, 0) * 100 / max(days - 1, 1):.1f},"
        f"{22 - value * 20 / most:.1f}"
        for day, value in averages.items()
    )
    newest = list(averages.values())[-1]
    return Latency(" ".join(points), round(most), round(newest))
