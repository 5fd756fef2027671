"""When a budget's window began and ends, in its own time zone. Pure."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apps.gateway.models import Budget, BudgetWindow

#: A rolling window moves in this many steps.
SLICES = 60


def window_start(budget: Budget, now: datetime) -> datetime | None:
    """Return when the current calendar window began; a rolling one and `total`
    have no such moment."""
    if budget.is_rolling:
        return None
    local = now.astimezone(ZoneInfo(budget.timezone))
    if budget.window == BudgetWindow.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    # Where midnight comes twice, the day begins with the first.
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if budget.window == BudgetWindow.DAY:
        return day
    if budget.window == BudgetWindow.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if budget.window == BudgetWindow.MONTH else None


def resets_at(budget: Budget, now: datetime) -> datetime | None:
    """Return when the current calendar window ends."""
    start = window_start(budget, now)
    if start is None:
        return None
    if budget.window == BudgetWindow.HOUR:
        ends = start.astimezone(UTC) + timedelta(hours=1)
        # An hour of which a part comes twice is longer.
        return max(ends, now.astimezone(UTC)).astimezone(start.tzinfo)
    days = {BudgetWindow.DAY: 1, BudgetWindow.WEEK: 7, BudgetWindow.MONTH: 32}
    ahead = start + timedelta(days=days[BudgetWindow(budget.window)])
    return ahead.replace(day=1) if budget.window == BudgetWindow.MONTH else ahead


def slice_start(budget: Budget, now: datetime) -> datetime:
    """Return when the slice began into which a rolling budget books now."""
    step = _step(budget)
    return datetime.fromtimestamp(now.timestamp() // step * step, UTC)


def slices_end(budget: Budget, now: datetime) -> datetime:
    """Return before when a slice began that no longer counts. A slice counts
    until all of it is over, so a rolling budget never counts too little."""
    length = BudgetWindow(budget.window).length
    return now - length - timedelta(seconds=_step(budget))


def words(budget: Budget) -> str:
    """Say the window: "day in Europe/Zurich", "rolling hour"."""
    if budget.window == BudgetWindow.TOTAL:
        return "in total"
    if budget.is_rolling:
        return f"per rolling {budget.window}"
    zone = "" if budget.timezone == "UTC" else f" in {budget.timezone}"
    return f"per {budget.window}{zone}"


def _step(budget: Budget) -> float:
    return BudgetWindow(budget.window).length.total_seconds() / SLICES
