"""Budgets as people read them: what counts now, how near the limit, until when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from apps.access.models import User
from apps.common import clock
from apps.gateway.models import (
    WARN_PERCENT,
    Budget,
    BudgetScope,
    BudgetUnit,
    OnExceed,
)

from . import meter, windows
from .stages.budget import shown


@dataclass(frozen=True, slots=True)
class Purse:
    """One budget at this moment."""

    row: Budget
    whose: str
    spent: int
    resets_at: datetime | None

    @property
    def percent(self) -> int:
        """Spend against the limit; a limit of nothing is always used up."""
        return self.spent * 100 // self.row.limit if self.row.limit else 100

    @property
    def filled(self) -> int:
        """How much of the bar is drawn. Units: percent, at most 100."""
        return min(self.percent, 100)

    @property
    def held(self) -> int:
        """How much of the bar spend and what is set aside draw together."""
        limit = self.row.limit
        both = self.spent + self.row.reserved
        return min(both * 100 // limit, 100) if limit else 100

    @property
    def state(self) -> str:
        """Shape: archived, blocked, exceeded, near the limit or ok."""
        if not self.row.is_active:
            return "archived"
        if self.row.blocked_at is not None:
            return "blocked"
        if self.percent >= 100:
            return "warned" if self.row.on_exceed == OnExceed.WARN else "exhausted"
        return "near limit" if self.percent >= WARN_PERCENT else "ok"

    @property
    def tone(self) -> str:
        tones = {"ok": "ok", "archived": "", "near limit": "attention"}
        tones["warned"] = "attention"
        return tones.get(self.state, "critical")

    @property
    def amounts(self) -> dict[str, str]:
        """Shape: limit, spent, reserved, overrun and left, written for people."""
        row = self.row
        left = max(row.limit - self.spent - row.reserved, 0)
        figures = {
            "limit": row.limit,
            "spent": self.spent,
            "reserved": row.reserved,
            "overrun": row.overrun,
            "left": left,
        }
        return {name: shown(row, each) for name, each in figures.items()}

    @property
    def window(self) -> str:
        return windows.words(self.row)

    @property
    def typed_limit(self) -> str:
        """The limit as the form takes it: dollars, or a count."""
        if self.row.unit != BudgetUnit.MICROS:
            return str(self.row.limit)
        return f"{self.row.limit / 1_000_000:.6f}".rstrip("0").rstrip(".")


def purses(rows: Iterable[Budget]) -> list[Purse]:
    """Put figures to budgets; people are named, not numbered."""
    now, found = clock.now(), list(rows)
    ids = [row.scope_key for row in found if row.scope == BudgetScope.USER]
    names = {
        str(pk): name
        for pk, name in User.objects.filter(id__in=ids).values_list("id", "username")
    }
    return [
        Purse(
            row,
            names.get(row.scope_key, row.scope_key),
            meter.spent_now(row, now),
            meter.frees_at(row, now),
        )
        for row in found
    ]


def typed(of: Purse | None) -> dict[str, str]:
    """Return a budget as the form shows it; none is a new workspace's."""
    if of is None:
        return {
            "scope": BudgetScope.WORKSPACE,
            "unit": BudgetUnit.MICROS,
            "window": "day",
            "timezone": "UTC",
            "on_exceed": OnExceed.BLOCK,
        }
    row = of.row
    return {
        "scope": row.scope,
        "key": of.whose,
        "unit": row.unit,
        "limit": of.typed_limit,
        "window": row.window,
        "rolling": "1" if row.is_rolling else "",
        "timezone": row.timezone,
        "on_exceed": row.on_exceed,
    }
