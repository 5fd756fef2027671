"""The three promises, measured over real rows: budgets, burn rates, bounds.

Invariants: only rows of origin `real` count; a share is called too high only where
the 95 % Wilson lower bound says so, so that three bad calls of four are no breach
of everything; what cannot be measured is unknown, not fine.
Source: docs/decisions on SLOs; Wilson 1927, interval for a proportion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import sqrt
from typing import Any

from django.db import transaction
from django.db.models import Count, DateField, F, Func, Q, QuerySet, Sum

from apps.agents.models import Handoff, HandoffState
from apps.audit import queries as audit
from apps.audit.models import Event
from apps.common import ids
from apps.providers.models import Lane, LaneChange, UsageRow
from apps.reliability.models import SloMark, SloMinute

#: 97.5th percentile of the normal distribution: a 95 % interval.
Z = 1.959964
#: How long the sink may take to acknowledge an event.
ACK_WITHIN = timedelta(minutes=5)
CHART_DAYS = 30
#: An older gap is judged from here on: what was not watched is not invented.
LONGEST_GAP = timedelta(hours=6)

WINDOWS = {
    "5m": timedelta(minutes=5),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "3d": timedelta(days=3),
}
#: Long window, short window, burn rate, what it means. Source: SRE Workbook, ch. 5.
PAIRS = (
    ("1h", "5m", 14.4, "critical"),
    ("6h", "30m", 6.0, "critical"),
    ("3d", "6h", 1.0, "warning"),
)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many there were, and how many of them broke the promise."""

    total: int = 0
    bad: int = 0

    @property
    def share(self) -> float:
        return self.bad / self.total if self.total else 0.0

    @property
    def low(self) -> float:
        return wilson_low(self.bad, self.total)


def wilson_low(bad: int, total: int) -> float:
    """Return the lower bound of the share that `bad` of `total` show."""
    if not total:
        return 0.0
    share, z2 = bad / total, Z * Z
    spread = Z * sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, (share + z2 / (2 * total) - spread) / (1 + z2 / total))


@dataclass(frozen=True, slots=True)
class Slo:
    """One promise. `budget` is the share that may be missed."""

    slug: str
    title: str
    means: str
    code: str
    budget: float
    tallies: Callable[[datetime], dict[str, Tally]]
    days: Callable[[datetime], dict[datetime, Tally]]


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows: at which multiple of the budget errors come in."""

    long: str
    short: str
    factor: float
    level: str
    long_rate: float
    short_rate: float
    is_burning: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How one promise is kept now."""

    slo: Slo
    tallies: dict[str, Tally]
    burns: tuple[Burn, ...]

    @property
    def level(self) -> str:
        """`critical`, `warning`, or "" while no pair burns."""
        found = {burn.level for burn in self.burns if burn.is_burning}
        return next((name for name in ("critical", "warning") if name in found), "")

    @property
    def state(self) -> str:
        if not self.tallies["3d"].total:
            return "unknown"
        return self.level or "ok"


def standings(now: datetime) -> list[Standing]:
    """Measure every promise. Reads: one statement each."""
    return [standing_of(slo, slo.tallies(now)) for slo in SLOS]


def standing_of(slo: Slo, tallies: dict[str, Tally]) -> Standing:
    burns = tuple(
        _burn(slo, tallies, (long, short, factor, level))
        for long, short, factor, level in PAIRS
    )
    return Standing(slo, tallies, burns)


def _burn(
    slo: Slo, tallies: dict[str, Tally], pair: tuple[str, str, float, str]
) -> Burn:
    long, short, factor, level = pair
    limit = factor * slo.budget
    burning = tallies[long].low > limit and tallies[short].share > limit
    rates = (tallies[long].share / slo.budget, tallies[short].share / slo.budget)
    return Burn(long, short, factor, level, *rates, is_burning=burning)


def windows_of(
    rows: QuerySet[Handoff] | QuerySet[UsageRow], bad: Q, at: str, now: datetime
) -> dict[str, Tally]:
    """Count a table once for every window."""
    wanted = {}
    for name, length in WINDOWS.items():
        inside = Q(**{f"{at}__gte": now - length})
        wanted[f"total_{name}"] = Count("pk", filter=inside)
        wanted[f"bad_{name}"] = Count("pk", filter=inside & bad)
    found = rows.filter(**{f"{at}__gte": now - WINDOWS["3d"]}).aggregate(**wanted)
    return {n: Tally(found[f"total_{n}"], found[f"bad_{n}"]) for n in WINDOWS}


class UtcDay(Func):
    """The day of a moment, by the store itself: on SQLite Django's own TruncDay
    calls back into Python for each row."""

    function = "date"
    arity = 1
    output_field = DateField()

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        template = "(%(expressions)s AT TIME ZONE 'UTC')::date"
        return self.as_sql(compiler, connection, template=template)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def days_of(
    rows: QuerySet[Handoff] | QuerySet[UsageRow], bad: Q, now: datetime
) -> dict[datetime, Tally]:
    since = now - timedelta(days=CHART_DAYS)
    found = (
        rows.filter(created_at__gte=since)
        .annotate(day=UtcDay("created_at"))
        .values("day")
        .annotate(total=Count("pk"), bad=Count("pk", filter=bad))
        .order_by("day")
    )
    return {_midnight(row["day"]): Tally(row["total"], row["bad"]) for row in found}


def _handoffs(now: datetime) -> QuerySet[Handoff]:
    """What was handed over and is over, or late. Refused ones never began."""
    over = ~Q(state=HandoffState.OPEN) | Q(deadline_at__lt=now)
    return Handoff.objects.filter(over, origin="real", child__isnull=False)


HANDOFF_BAD = ~Q(state=HandoffState.SUCCEEDED)


def _usage() -> QuerySet[UsageRow]:
    return UsageRow.objects.filter(origin="real", ok=True)


def _above() -> Q:
    """Served above the lane that was asked, by no pin and no plan."""
    higher = Q()
    for asked in Lane:
        above = [lane for lane in Lane if lane.rank > asked.rank]
        higher |= Q(requested_lane=asked, served_lane__in=above)
    return higher & ~Q(lane_change__in=[LaneChange.OPERATOR_PIN, LaneChange.PLANNED])


def judge_sink(now: datetime) -> int:
    """Say of each event, once, whether the sinks had it five minutes after it.

    Writes: SloMark by one conditional UPDATE; SloMinute.   Again: judges what came
    since; of two clocks one judges.   Returns how many were judged.
    """
    held = audit.acknowledged()
    if held is None:
        return 0
    until = now - ACK_WITHIN
    mark, _ = SloMark.objects.get_or_create(slo="sink", defaults={"judged_to": until})
    since = max(mark.judged_to, until - LONGEST_GAP)
    if until <= since:
        return 0
    with transaction.atomic():
        mine = SloMark.objects.filter(slo="sink", judged_to=mark.judged_to)
        if not mine.update(judged_to=until):
            return 0
        rows = Event.objects.filter(
            id__gte=ids.first_at(since), id__lt=ids.first_at(until)
        )
        late = Q(gseq__isnull=True) | Q(gseq__gt=held)
        found = rows.aggregate(total=Count("id"), bad=Count("id", filter=late))
        minute = until.replace(second=0, microsecond=0)
        SloMinute.objects.get_or_create(slo="sink", minute=minute)
        SloMinute.objects.filter(slo="sink", minute=minute).update(
            total=F("total") + found["total"], bad=F("bad") + found["bad"]
        )
    return int(found["total"])


def _sink_tallies(now: datetime) -> dict[str, Tally]:
    wanted = {}
    for name, length in WINDOWS.items():
        inside = Q(minute__gte=now - ACK_WITHIN - length)
        wanted[f"total_{name}"] = Sum("total", filter=inside, default=0)
        wanted[f"bad_{name}"] = Sum("bad", filter=inside, default=0)
    since = now - WINDOWS["3d"] - ACK_WITHIN
    rows = SloMinute.objects.filter(slo="sink", minute__gte=since)
    found = rows.aggregate(**wanted)
    return {n: Tally(found[f"total_{n}"], found[f"bad_{n}"]) for n in WINDOWS}


def _sink_days(now: datetime) -> dict[datetime, Tally]:
    since = now - timedelta(days=CHART_DAYS)
    found = (
        SloMinute.objects.filter(slo="sink", minute__gte=since)
        .annotate(day=UtcDay("minute"))
        .values("day")
        .annotate(all=Sum("total"), wrong=Sum("bad"))
        .order_by("day")
    )
    return {_midnight(row["day"]): Tally(row["all"], row["wrong"]) for row in found}


SLOS = (
    Slo(
        "handoff",
        "Handoff success",
        "The parent got a valid result of its child before the deadline: 95 %",
        "HANDOFF_FAILURE_RATE_HIGH",
        0.05,
        lambda now: windows_of(_handoffs(now), HANDOFF_BAD, "created_at", now),
        lambda now: days_of(_handoffs(now), HANDOFF_BAD, now),
    ),
    Slo(
        "escalation",
        "Lane escalation",
        "Served above the lane of the profile, by no pin and no plan: under 2 %",
        "LANE_ESCALATION_UNEXPECTED",
        0.02,
        lambda now: windows_of(_usage(), _above(), "created_at", now),
        lambda now: days_of(_usage(), _above(), now),
    ),
    Slo(
        "sink",
        "Audit sink ingestion",
        "Not acknowledged by every sink within 5 minutes: under 1 %",
        "AUDIT_SINK_INGESTION_FAILING",
        0.01,
        _sink_tallies,
        _sink_days,
    ),
)
