"""The counters of budgets: rolled, reserved, booked. Each is a conditional UPDATE.

Hides: how concurrent callers share one counter. Invariants: a reservation is
taken only while limit ≥ spent + reserved + amount, said by the database in the
statement that takes it; it is given back exactly once; rows are always touched
in the order of their budgets' ids, so that two callers never wait for each other.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, Sum
from django.db.models.functions import Greatest

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.gateway.models import (
    WARN_PERCENT,
    Budget,
    BudgetSlice,
    BudgetUnit,
    BudgetWindow,
    OnExceed,
    Reservation,
)
from apps.gateway.ports import Usage

from . import windows

#: Units in which a call may take more than it said; a call is always one call.
MEASURED = frozenset({BudgetUnit.MICROS, BudgetUnit.TOKENS})
#: What a new window forgets.
FRESH: dict[str, Any] = {"overrun": 0, "warned_at": None, "blocked_at": None}


def roll(budget: Budget, now: datetime) -> None:
    """Let go of what the window no longer holds. Again: does nothing."""
    if budget.is_rolling:
        _roll_slices(budget, now)
        return
    start = windows.window_start(budget, now)
    if start is None or budget.window_started_at == start:
        return
    stale = Budget.objects.filter(id=budget.id).filter(
        Q(window_started_at__lt=start) | Q(window_started_at__isnull=True)
    )
    stale.update(spent=0, window_started_at=start, **FRESH)


def _roll_slices(budget: Budget, now: datetime) -> None:
    old = BudgetSlice.objects.filter(
        budget=budget, starts_at__lt=windows.slices_end(budget, now)
    )
    for each in old.order_by("starts_at"):
        gone, _ = BudgetSlice.objects.filter(id=each.id).delete()
        if gone:
            left = Greatest(F("spent") - each.amount, 0)
            Budget.objects.filter(id=budget.id).update(spent=left)
    length = BudgetWindow(budget.window).length
    mine = Budget.objects.filter(id=budget.id)
    if budget.blocked_at is not None and budget.blocked_at <= now - length:
        mine.filter(blocked_at=budget.blocked_at).update(overrun=0, blocked_at=None)
    if budget.warned_at is not None and budget.warned_at <= now - length:
        mine.filter(warned_at=budget.warned_at).update(warned_at=None)


def reserve(budget: Budget, amount: int, *, binding: bool) -> bool:
    """Set an amount aside; `binding` says that the limit holds for this call."""
    target = Budget.objects.filter(id=budget.id)
    if binding:
        target = target.filter(
            limit__gte=F("spent") + F("reserved") + amount, blocked_at__isnull=True
        )
    return target.update(reserved=F("reserved") + amount) == 1


def release(call_id: UUID, *, spent: int | None, usage: Usage | None = None) -> None:
    """Give back what was set aside and book what was taken.

    Shape: `spent` None means that nothing was started, so nothing is booked.
    Again: a reservation that is settled stays as it is.
    """
    open_ones = Reservation.objects.filter(call_id=call_id, settled_amount__isnull=True)
    for held in open_ones.select_related("budget", "call").order_by("budget_id"):
        taken = _taken(held, spent, usage)
        mine = Reservation.objects.filter(id=held.id, settled_amount__isnull=True)
        with transaction.atomic():
            if mine.update(settled_amount=taken):
                _book(held, taken, clock.now())


def _taken(held: Reservation, spent: int | None, usage: Usage | None) -> int:
    if spent is None:
        return 0
    if held.budget.unit == BudgetUnit.TOKENS:
        return usage.tokens_in + usage.tokens_out if usage else held.amount
    return spent if held.budget.unit == BudgetUnit.MICROS else held.amount


def _book(held: Reservation, taken: int, now: datetime) -> None:
    budget = held.budget
    roll(budget, now)
    counted: dict[str, Any] = {
        "reserved": Greatest(F("reserved") - held.amount, 0),
        "spent": F("spent") + taken,
    }
    over = taken - held.amount if budget.unit in MEASURED else 0
    if over > 0:
        counted["overrun"] = F("overrun") + over
        if budget.on_exceed != OnExceed.WARN:
            counted["blocked_at"] = now
    Budget.objects.filter(id=budget.id).update(**counted)
    if budget.is_rolling and taken:
        _book_slice(budget, taken, now)
    if over > 0:
        _tell(held, "budget.overrun", {"over": str(over), "taken": str(taken)})
    if taken:
        _warn_once(held, now)


def _book_slice(budget: Budget, taken: int, now: datetime) -> None:
    begun = windows.slice_start(budget, now)
    BudgetSlice.objects.bulk_create(
        [BudgetSlice(budget=budget, starts_at=begun)], ignore_conflicts=True
    )
    here = BudgetSlice.objects.filter(budget=budget, starts_at=begun)
    here.update(amount=F("amount") + taken)


def _warn_once(held: Reservation, now: datetime) -> None:
    """Say once per window that the limit is near."""
    near = Q(limit__lte=F("spent") * 100 / WARN_PERCENT)
    unsaid = Budget.objects.filter(near, id=held.budget_id, warned_at__isnull=True)
    if unsaid.update(warned_at=now):
        _tell(held, "budget.near_limit", {"alert": "BUDGET_NEAR_LIMIT"})


def _tell(held: Reservation, type: str, data: dict[str, Any]) -> None:
    budget, call = Budget.objects.get(id=held.budget_id), held.call
    audit.record(
        type=type,
        actor=SYSTEM,
        subject=("budget", str(budget.id)),
        workspace_id=budget.workspace_id or call.workspace_id,
        run_id=call.run_id,
        trace_id=call.trace_id,
        data={
            "scope": budget.scope,
            "key": budget.scope_key,
            "unit": budget.unit,
            "limit": str(budget.limit),
            "spent": str(budget.spent),
            "window": windows.words(budget),
            "call": str(call.id),
            **data,
        },
    )


def spent_now(budget: Budget, now: datetime) -> int:
    """Say what counts in the window at this moment, without writing."""
    if budget.is_rolling:
        live = budget.slices.filter(starts_at__gte=windows.slices_end(budget, now))
        return int(live.aggregate(total=Sum("amount"))["total"] or 0)
    start = windows.window_start(budget, now)
    is_stale = start is not None and (
        budget.window_started_at is None or budget.window_started_at < start
    )
    return 0 if is_stale else budget.spent


def frees_at(budget: Budget, now: datetime) -> datetime | None:
    """Say when something is free again: the window's end, or, of a rolling one,
    when its oldest slice is over."""
    if not budget.is_rolling:
        return windows.resets_at(budget, now)
    oldest = budget.slices.order_by("starts_at").first()
    if oldest is None:
        return None
    ends: timedelta = now - windows.slices_end(budget, now)
    return oldest.starts_at + ends
