"""Runs recorded calls against one budget with another limit, in their order."""

from collections import Counter
from datetime import datetime

from apps.gateway.models import Budget, BudgetScope, BudgetUnit, Call, CallState
from apps.gateway.ports import CallKind

from .stages.budget import window_start

#: A call in one of these states spent something.
RAN = frozenset(
    {CallState.SUCCEEDED, CallState.FAILED, CallState.EXECUTING, CallState.UNKNOWN}
)


class Meter:
    """Counts one budget as it would have been, window by window."""

    def __init__(self, budget: Budget, limit: int) -> None:
        self.budget = budget
        self.limit = limit
        self._spent: Counter[datetime | None] = Counter()

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
        window = window_start(self.budget, call.created_at)
        if self._spent[window] + self._needed(call) > self.limit:
            return False
        self._spent[window] += self._taken(call)
        return True

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
        return 1 if call.kind in (CallKind.HANDOFF, CallKind.AUTOMATION) else 0


def _provider_of(call: Call) -> str:
    if call.kind != CallKind.MODEL:
        return ""
    return call.capability.partition(":")[2].partition("/")[0]
