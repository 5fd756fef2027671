"""Lanes by routes: whether each may be asked, and what it did in the last day.

Hides: how attempts become figures and a line. Units: milliseconds, micro-USD; the
line lies in a box of 100 by 24.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, Sum

from apps.common import clock
from apps.common.periods import UtcHour, hour_of
from apps.providers import queries
from apps.providers.models import Attempt, Outcome

HOURS = 24
#: The slowest twentieth is told of the last hour's newest so many answers.
LATELY, MOST_ANSWERS = timedelta(hours=1), 5_000
LINE_TOP, LINE_BOTTOM = 3, 21


@dataclass(frozen=True, slots=True)
class Did:
    """What one route did."""

    tried: int
    answered: int
    micros: int
    average_ms: int
    p95_ms: int | None
    line: str

    @property
    def area(self) -> str:
        """What lies under the line, closed along the ground."""
        first, last = self.line.split(" ")[0], self.line.split(" ")[-1]
        return f"{first.split(',')[0]},24 {self.line} {last.split(',')[0]},24"


@dataclass(frozen=True, slots=True)
class Cell:
    """One route in one lane. `tone` colours its line where it deviates."""

    health: queries.RouteHealth
    did: Did | None

    @property
    def tone(self) -> str:
        return {"open": "critical", "half_open": "attention"}.get(self.health.state, "")


@dataclass(frozen=True, slots=True)
class Row:
    """One lane and its routes, best first."""

    lane: str
    state: str
    cells: list[Cell]


def rows(*, with_aside: bool) -> list[Row]:
    """Describe every lane. The built-in model, while it stands back, only if asked."""
    lanes = queries.lanes_health()
    ids = [each.route.id for lane in lanes for each in lane.routes]
    did = _did(ids)
    return [
        Row(
            lane.lane,
            lane.state,
            [
                Cell(each, did.get(each.route.id))
                for each in lane.routes
                if with_aside or not each.is_aside
            ],
        )
        for lane in lanes
    ]


def of_routes(ids: list[UUID]) -> dict[UUID, Did]:
    """What these routes did in the last day."""
    return _did(ids)


def _did(ids: list[UUID]) -> dict[UUID, Did]:
    first = hour_of(clock.now()) - timedelta(hours=HOURS - 1)
    tried = Attempt.objects.filter(route_id__in=ids, outcome=Outcome.ATTEMPTED)
    answers = Q(error_class="")
    by_hour = (
        tried.filter(created_at__gte=first)
        .annotate(hour=UtcHour("created_at"))
        .values("route_id", "hour")
        .annotate(
            tried=Count("id"),
            answered=Count("id", filter=answers),
            took=Sum("duration_ms", filter=answers),
            cost=Sum("micros"),
        )
        .order_by("route_id", "hour")
    )
    hours: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for each in by_hour:
        hours[each["route_id"]].append(each)
    slow = _slowest(tried.filter(answers)) if hours else {}
    return {
        route: _summed(found, slow.get(route), first) for route, found in hours.items()
    }


def _summed(hours: list[dict[str, Any]], p95_ms: int | None, first: datetime) -> Did:
    sums = Counter[str]()
    for each in hours:
        sums.update({name: each[name] or 0 for name in ("tried", "answered")})
        sums.update({"took": each["took"] or 0, "cost": each["cost"] or 0})
    average = round(sums["took"] / sums["answered"]) if sums["answered"] else 0
    line = _line(hours, first)
    return Did(sums["tried"], sums["answered"], sums["cost"], average, p95_ms, line)


def _line(hours: list[dict[str, Any]], first: datetime) -> str:
    """The average of each hour; nothing of fewer than two hours."""
    averages = [
        ((each["hour"] - first) / timedelta(hours=1), each["took"] / each["answered"])
        for each in hours
        if each["answered"]
    ]
    if len(averages) < 2:
        return ""
    most = max(value for _, value in averages) or 1
    drop = (LINE_BOTTOM - LINE_TOP) / most
    return " ".join(
        f"{place * 100 / (HOURS - 1):.1f},{LINE_BOTTOM - value * drop:.1f}"
        for place, value in averages
    )


def _slowest(answers: Any) -> dict[UUID, int]:
    """By route: what nineteen of twenty answers of the last hour stayed below."""
    lately = answers.filter(created_at__gte=clock.now() - LATELY)
    newest = lately.order_by("-created_at").values_list("route_id", "duration_ms")
    took: dict[UUID, list[int]] = defaultdict(list)
    for route, milliseconds in newest[:MOST_ANSWERS]:
        took[route].append(milliseconds)
    return {
        route: sorted(each)[min(len(each) - 1, len(each) * 19 // 20)]
        for route, each in took.items()
    }
