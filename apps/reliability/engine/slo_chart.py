"""The error budget of thirty days as a drawing: what was left of it, day by day."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apps.reliability.engine.slo import CHART_DAYS, Slo, Standing, Tally

HEIGHT = 56.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One day. Units: per cent across, pixels down."""

    day: datetime
    x: float
    width: float
    y: float
    height: float
    left: int
    tally: Tally
    tone: str


@dataclass(frozen=True, slots=True)
class Chart:
    standing: Standing
    bars: tuple[Bar, ...]
    left: int
    promised: str
    #: What was counted in all of the days.
    events: int = 0

    @property
    def slo(self) -> Slo:
        return self.standing.slo


def draw(standing: Standing, now: datetime) -> Chart:
    """Draw what was left of the budget at the end of each day."""
    days = standing.slo.days(now)
    allowed = sum(each.total for each in days.values()) * standing.slo.budget
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    bars, spent, left = [], 0, 100
    for place in range(CHART_DAYS):
        day = today - timedelta(days=CHART_DAYS - 1 - place)
        tally = days.get(day, Tally())
        spent += tally.bad
        left = round(100 * (1 - spent / allowed)) if allowed else 100
        bars.append(_bar(day, place, left, tally))
    events = sum(each.total for each in days.values())
    return Chart(standing, tuple(bars), left, f"{standing.slo.budget:.0%}", events)


def _bar(day: datetime, place: int, left: int, tally: Tally) -> Bar:
    height = HEIGHT * min(max(left, 0), 100) / 100
    tone = "bar-quiet" if left > 25 else "bar-fail"
    if not tally.total:
        tone = "bar-none"
    step = 100 / CHART_DAYS
    return Bar(
        day, place * step, step * 0.8, HEIGHT - height, height, left, tally, tone
    )
