"""Runs recorded calls against one budget with another limit, in their order."""

from collections import Counter, deque
from datetime import datetime
from uuid import UUID

from apps.gateway.models import (
    Budget,
    BudgetScope,
    BudgetUnit,
    BudgetWindow,
    Call,
    CallState,
)
from apps.gateway.ports import CallKind

from .windows import window_start

#: A call in one of these states spent something.
RAN = frozenset(
    {CallState.SUCCEEDED, CallState.FAILED, CallState.EXECUTING, CallState.UNKNOWN}
)


class Meter:
    """Counts one budget as it would have been, window by window.

    A profile's budget is counted without what the profile handed to others:
    recorded calls do not say who handed them down.
    """

    def __init__(self, budget: Budget, limit: int) -> None:
        self.budget = budget
        self.limit = limit
        self._spent: Counter[datetime | None] = Counter()
        self._rolling: deque[tuple[datetime, int]] = deque()
        self._turns: set[UUID] = set()

    @property
    def is_untold(self) -> bool:
        """Calls do not record their conversation."""
        return self.budget.scope == BudgetScope.SESSION

    def covers(self, call: Call) -> bool:
        """Tell whether the budget counts this call."""
        budget = self.budget
        if budget.workspace_id not in (None, call.workspace_id):
            return False
        key = {
            BudgetScope.PROFILE: call.agent,
            BudgetScope.USER: str(call.principal.user_id or ""),
            BudgetScope.AUTOMATION: call.principal.key,
            BudgetScope.PROVIDER: _provider_of(call),
        }.get(BudgetScope(budget.scope), "")
        return key == budget.scope_key

    def may_be_the_refuser(self, call: Call) -> bool:
        """Tell whether the recorded refusal names a budget of this scope."""
        return call.error_detail.startswith(f"The {self.budget.scope} budget")

    def admits(self, call: Call) -> bool:
        """Book the call if it fits under the limit. Returns whether it does."""
        if not self.covers(call) or not self._needed(call):
            return True
        window = self._window(call.created_at)
        if self._spent[window] + self._needed(call) > self.limit:
            return False
        taken = self._taken(call)
        self._spent[window] += taken
        if self.budget.is_rolling:
            self._rolling.append((call.created_at, taken))
        if call.turn_id is not None:
            self._turns.add(call.turn_id)
        return True

    def _window(self, at: datetime) -> datetime | None:
        """Say which window a call falls into; a rolling one lets go of the old."""
        if not self.budget.is_rolling:
            return window_start(self.budget, at)
        since = at - BudgetWindow(self.budget.window).length
        while self._rolling and self._rolling[0][0] < since:
            self._spent[None] -= self._rolling.popleft()[1]
        return None

    def _needed(self, call: Call) -> int:
        if self.budget.unit == BudgetUnit.MICROS:
            return max(call.reserved_micros, call.micros)
        return self._taken(call)

    def _taken(self, call: Call) -> int:
        unit = self.budget.unit
        if unit == BudgetUnit.MICROS:
            return call.micros if call.state in RAN else call.reserved_micros
        if unit == BudgetUnit.TOKENS:
            return call.tokens_in + call.tokens_out
        if unit == BudgetUnit.CALLS:
            return 1
        is_new = call.turn_id is not None and call.turn_id not in self._turns
        return 1 if call.kind == CallKind.MODEL and is_new else 0


def _provider_of(call: Call) -> str:
    if call.kind != CallKind.MODEL:
        return ""
    return call.capability.partition(":")[2].partition("/")[0]
