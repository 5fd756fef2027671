"""Set the worst case aside in every budget that covers the call."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.db.models import F, Q, QuerySet

from apps.common.errors import BudgetExceeded
from apps.common.units import format_usd
from apps.gateway.engine.decision import Decision
from apps.gateway.models import Budget, BudgetScope, BudgetUnit, BudgetWindow, OnExceed
from apps.gateway.ports import CallKind


def check(decision: Decision) -> str:
    """Reserve, or refuse with the rule, the limit, the spend and the reset.

    Writes: Budget.reserved += amount, one conditional UPDATE per budget; the
    caller's transaction undoes all of them when any refuses.
    """
    for budget in covering(decision) if decision.sight.budgets else ():
        amount = amount_for(budget, decision)
        if amount:
            _roll_window(budget, decision.now)
            _reserve(budget, amount, decision)
    return f"{len(decision.reserved)} reserved"


def covering(decision: Decision) -> QuerySet[Budget]:
    """Return the active budgets that this call counts against."""
    request = decision.request
    keys = {
        BudgetScope.GLOBAL: "",
        BudgetScope.WORKSPACE: "",
        BudgetScope.PROFILE: request.lineage.agent,
        BudgetScope.SESSION: request.lineage.session_id,
        BudgetScope.USER: str(request.principal.user_id or ""),
        BudgetScope.AUTOMATION: request.principal.key,
        BudgetScope.PROVIDER: request.provider,
    }
    wanted = Q()
    for scope, key in keys.items():
        if key or scope in (BudgetScope.GLOBAL, BudgetScope.WORKSPACE):
            wanted |= Q(scope=scope, scope_key=key)
    here = Q(workspace_id=request.workspace_id) | Q(workspace__isnull=True)
    return Budget.objects.filter(wanted, here, is_active=True).order_by("id")


def amount_for(budget: Budget, decision: Decision) -> int:
    """Say what the call may take of a budget, in the budget's unit."""
    estimate, kind = decision.request.estimate, decision.request.kind
    if budget.unit == BudgetUnit.MICROS:
        return estimate.micros
    if budget.unit == BudgetUnit.TOKENS:
        return estimate.tokens
    if budget.unit == BudgetUnit.CALLS:
        return 1
    return 1 if kind in (CallKind.HANDOFF, CallKind.AUTOMATION) else 0


def window_start(budget: Budget, now: datetime) -> datetime | None:
    """Return when the budget's current calendar window began."""
    local = now.astimezone(ZoneInfo(budget.timezone))
    if budget.window == BudgetWindow.HOUR:
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if budget.window == BudgetWindow.DAY:
        return day
    return day.replace(day=1) if budget.window == BudgetWindow.MONTH else None


def resets_at(budget: Budget, now: datetime) -> datetime | None:
    """Return when the budget's current window ends."""
    start = window_start(budget, now)
    if start is None:
        return None
    if budget.window == BudgetWindow.HOUR:
        return start + timedelta(hours=1)
    if budget.window == BudgetWindow.DAY:
        return (start + timedelta(hours=36)).replace(hour=0)
    return (start + timedelta(days=32)).replace(day=1)


def _roll_window(budget: Budget, now: datetime) -> None:
    start = window_start(budget, now)
    if start is None or budget.window_started_at == start:
        return
    stale = Budget.objects.filter(id=budget.id).filter(
        Q(window_started_at__lt=start) | Q(window_started_at__isnull=True)
    )
    stale.update(spent=0, window_started_at=start)


def _reserve(budget: Budget, amount: int, decision: Decision) -> None:
    fits = Q(limit__gte=F("spent") + F("reserved") + amount)
    target = Budget.objects.filter(id=budget.id)
    if budget.on_exceed == OnExceed.BLOCK:
        target = target.filter(fits)
    if target.update(reserved=F("reserved") + amount):
        decision.reserved.append((budget.id, amount))
        return
    budget.refresh_from_db()
    _refuse(budget, amount, decision.now)


def _refuse(budget: Budget, amount: int, now: datetime) -> None:
    reset = resets_at(budget, now)
    shown = format_usd if budget.unit == BudgetUnit.MICROS else str
    raise BudgetExceeded(
        f"The {budget.scope} budget allows {shown(budget.limit)} per {budget.window}; "
        f"{shown(budget.spent)} is spent, {shown(budget.reserved)} is set aside and "
        f"this needs up to {shown(amount)}.",
        budget_id=str(budget.id),
        limit=budget.limit,
        spent=budget.spent,
        reserved=budget.reserved,
        resets_at=reset.isoformat() if reset else None,
    )
