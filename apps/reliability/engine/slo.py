"""The three promises, measured over real rows: budgets, burn rates, bounds.

Invariants: only rows of origin `real` count; a share is called too high only where
the 95 % Wilson lower bound says so, so that three bad calls of four are no breach
of everything; what cannot be measured is unknown, not fine.
Source: docs/decisions on SLOs; Wilson 1927, interval for a proportion.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from math import sqrt

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Sum

from apps.audit import queries as audit
from apps.audit.models import Event
from apps.common import ids
from apps.common.periods import UtcDay, hour_of, midnight_of
from apps.reliability.engine import slo_hours
from apps.reliability.engine.slo_hours import Counted
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
#: So far back a window is counted row by row, to the moment.
LIVE = WINDOWS["6h"]
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

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.total + other.total, self.bad + other.bad)

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


def windows_of(promise: Counted, now: datetime) -> dict[str, Tally]:
    """Count rows once for every window; of days what is summed up comes from there.

    A window of days begins with a full hour.
    """
    mark, wanted, begins = promise.mark(), {}, {}
    for name, length in WINDOWS.items():
        is_live = length <= LIVE
        begins[name] = now - length if is_live else max(mark, hour_of(now - length))
        inside = Q(created_at__gte=begins[name])
        wanted[f"total_{name}"] = Count("pk", filter=inside)
        wanted[f"bad_{name}"] = Count("pk", filter=inside & promise.bad)
    rows = promise.rows(now).filter(created_at__gte=min(begins.values()))
    found = rows.aggregate(**wanted)
    tallies = {n: Tally(found[f"total_{n}"], found[f"bad_{n}"]) for n in WINDOWS}
    for name, length in WINDOWS.items():
        if length > LIVE:
            tallies[name] += Tally(*promise.kept(hour_of(now - length), mark))
    return tallies


def days_of(promise: Counted, now: datetime) -> dict[datetime, Tally]:
    mark, since = promise.mark(), _first_day(now)
    days: dict[datetime, Tally] = _by_day(promise.hours(since, mark))
    found = (
        promise.rows(now)
        .filter(created_at__gte=max(mark, since))
        .annotate(day=UtcDay("created_at"))
        .values("day")
        .annotate(total=Count("pk"), bad=Count("pk", filter=promise.bad))
    )
    for row in found:
        day = _midnight(row["day"])
        days[day] = days.get(day, Tally()) + Tally(row["total"], row["bad"])
    return dict(sorted(days.items()))


def _by_day(rows: QuerySet[SloMinute]) -> dict[datetime, Tally]:
    found = (
        rows.annotate(day=UtcDay("minute"))
        .values("day")
        .annotate(all=Sum("total"), wrong=Sum("bad"))
        .order_by("day")
    )
    return {_midnight(row["day"]): Tally(row["all"], row["wrong"]) for row in found}


def _first_day(now: datetime) -> datetime:
    return midnight_of(now) - timedelta(days=CHART_DAYS - 1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


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
    return _by_day(SloMinute.objects.filter(slo="sink", minute__gte=_first_day(now)))


SLOS = (
    Slo(
        "handoff",
        "Handoff success",
        "The parent got a valid result of its child before the deadline: 95 %",
        "HANDOFF_FAILURE_RATE_HIGH",
        0.05,
        partial(windows_of, slo_hours.HANDOFFS),
        partial(days_of, slo_hours.HANDOFFS),
    ),
    Slo(
        "escalation",
        "Lane escalation",
        "Served above the lane of the profile, by no pin and no plan: under 2 %",
        "LANE_ESCALATION_UNEXPECTED",
        0.02,
        partial(windows_of, slo_hours.ESCALATIONS),
        partial(days_of, slo_hours.ESCALATIONS),
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
