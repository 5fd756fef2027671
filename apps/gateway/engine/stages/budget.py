"""Set the worst case aside in every budget that covers the call."""

from django.db.models import Q, QuerySet

from apps.common.errors import BudgetExceeded
from apps.common.units import format_usd
from apps.gateway.engine import meter, windows
from apps.gateway.engine.decision import Decision
from apps.gateway.models import (
    NAMELESS,
    Budget,
    BudgetScope,
    BudgetUnit,
    OnExceed,
    Reservation,
)
from apps.gateway.ports import LOWEST_LANE, CallKind


def check(decision: Decision) -> str:
    """Reserve, or refuse with the rule, the limit, the spend and the reset.

    Writes: Budget.reserved += amount, one conditional UPDATE per budget; the
    caller's transaction undoes all of them when any refuses.
    """
    for budget in covering(decision) if decision.sight.budgets else ():
        amount = amount_for(budget, decision)
        if not amount:
            continue
        decision.before_writing()
        meter.roll(budget, decision.now)
        if not meter.reserve(budget, amount, binding=_binds(budget, decision)):
            budget.refresh_from_db()
            _refuse(budget, amount, decision)
        decision.reserved.append((budget.id, amount))
    return f"{len(decision.reserved)} reserved"


def covering(decision: Decision) -> QuerySet[Budget]:
    """Return the active budgets that this call counts against.

    A profile's budget covers what the profile handed to others as well; a
    child's session and person are its parent's.
    """
    request = decision.request
    lineage = request.lineage
    keys = {
        BudgetScope.PROFILE: [lineage.agent, *lineage.ancestors],
        BudgetScope.SESSION: [lineage.session_id],
        BudgetScope.USER: [str(request.principal.user_id or "")],
        BudgetScope.AUTOMATION: [request.principal.key],
        BudgetScope.PROVIDER: [request.provider],
    }
    wanted = Q(scope__in=[str(scope) for scope in NAMELESS], scope_key="")
    for scope, named in keys.items():
        if known := [key for key in named if key]:
            wanted |= Q(scope=scope, scope_key__in=known)
    here = Q(workspace_id=request.workspace_id) | Q(workspace__isnull=True)
    return Budget.objects.filter(wanted, here, is_active=True).order_by("id")


def amount_for(budget: Budget, decision: Decision) -> int:
    """Say what the call may take of a budget, in the budget's unit."""
    estimate = decision.request.estimate
    if budget.unit == BudgetUnit.MICROS:
        return estimate.micros
    if budget.unit == BudgetUnit.TOKENS:
        return estimate.tokens
    return 1 if budget.unit == BudgetUnit.CALLS else _turns(budget, decision)


def _turns(budget: Budget, decision: Decision) -> int:
    """A turn counts once, with the first model call that it makes; what only
    starts a turn has to find room for it."""
    request = decision.request
    if request.kind in (CallKind.HANDOFF, CallKind.AUTOMATION):
        return 1 if _is_full(budget, decision) else 0
    turn_id = request.lineage.turn_id
    if request.kind != CallKind.MODEL or turn_id is None:
        return 0
    counted = Reservation.objects.filter(budget=budget, call__turn_id=turn_id)
    live = Q(settled_amount__isnull=True) | Q(settled_amount__gt=0)
    return 0 if counted.filter(live).exists() else 1


def _is_full(budget: Budget, decision: Decision) -> bool:
    taken = meter.spent_now(budget, decision.now) + budget.reserved
    return budget.on_exceed == OnExceed.BLOCK and taken >= budget.limit


def _binds(budget: Budget, decision: Decision) -> bool:
    """Tell whether the limit holds for this call. One that lowers the lane lets
    the lowest lane answer, counted all the same."""
    if budget.on_exceed == OnExceed.WARN:
        return False
    lowers = budget.on_exceed == OnExceed.DOWNGRADE_LANE
    request = decision.request
    is_lowest = request.kind == CallKind.MODEL and request.lane == LOWEST_LANE
    return not (lowers and is_lowest)


def _refuse(budget: Budget, amount: int, decision: Decision) -> None:
    reset = meter.frees_at(budget, decision.now)
    when = f"{reset:%Y-%m-%d %H:%M %Z}" if reset else "when a person raises it"
    raise BudgetExceeded(
        f"{_name(budget)} allows {shown(budget, budget.limit)} "
        f"{windows.words(budget)}; {shown(budget, budget.spent)} is spent, "
        f"{shown(budget, budget.reserved)} is set aside and this needs up to "
        f"{shown(budget, amount)}.{_overrun(budget)} It resets: {when}.",
        budget_id=str(budget.id),
        rule=_name(budget),
        scope=budget.scope,
        on_exceed=budget.on_exceed,
        unit=budget.unit,
        limit=budget.limit,
        spent=budget.spent,
        reserved=budget.reserved,
        needed=amount,
        resets_at=reset.isoformat() if reset else None,
    )


def _name(budget: Budget) -> str:
    named = f" {budget.scope_key}" if budget.scope_key else ""
    return f"The {budget.scope} budget{named}"


def _overrun(budget: Budget) -> str:
    if budget.blocked_at is None:
        return ""
    over = shown(budget, budget.overrun)
    return f" It is blocked: a call took {over} more than was set aside for it."


def shown(budget: Budget, amount: int) -> str:
    """Write an amount in the budget's unit, for people."""
    if budget.unit == BudgetUnit.MICROS:
        return format_usd(amount)
    return f"{amount:,} {budget.unit}"
