"""Takes back what calls set aside whose worker is gone.

A run's next attempt settles the calls that it meets again. What it does not meet
again (the run was cancelled, or went another way) is settled here, once nobody
carries the run. What may have been spent is booked, never given back.
"""

from datetime import timedelta
from uuid import UUID

from django.db import transaction

from apps.common import clock
from apps.gateway.models import Call, CallState, Reservation
from apps.gateway.ports import carried

from . import ledger, meter

#: Younger reservations are in the hands of whoever made them. Units: seconds.
YOUNG = timedelta(seconds=2)
BATCH = 200


def sweep() -> int:
    """Settle reservations that nobody will settle. Returns how many calls."""
    held = Reservation.objects.filter(
        settled_amount__isnull=True, created_at__lt=clock.now() - YOUNG
    )
    calls = [each.call for each in held.select_related("call")[:BATCH]]
    alive = _carried({call.run_id for call in calls if call.run_id})
    return sum(_settle(call) for call in calls if _is_over(call, alive))


def _carried(run_ids: set[UUID]) -> set[UUID]:
    """Nobody plugged in means that nobody can say, so every run counts as alive."""
    asked = carried.all()
    if not asked or not run_ids:
        return run_ids
    return set().union(*(ask(run_ids) for ask in asked))


def _is_over(call: Call, alive: set[UUID]) -> bool:
    if call.state in (CallState.AWAITING_APPROVAL, CallState.UNKNOWN):
        return False
    if call.run_id is not None:
        return call.run_id not in alive
    return clock.now() - call.created_at >= ledger.LONGEST_CALL


@transaction.atomic
def _settle(call: Call) -> bool:
    """Again: a call that moved on meanwhile is left to whoever moved it."""
    if call.state in (CallState.AUTHORIZED, CallState.EXECUTING):
        ledger.take_over(call)
        return True
    spent = call.micros if call.state == CallState.SUCCEEDED else None
    meter.release(call.id, spent=spent)
    return True
