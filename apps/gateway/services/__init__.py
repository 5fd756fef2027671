"""The verbs of the gateway. `call` is the one way to an effect."""

from collections.abc import Iterable

from apps.access.models import Principal
from apps.gateway import queries
from apps.gateway.engine import foresight, leftover, lost, pipeline, purse
from apps.gateway.models import Call
from apps.gateway.ports import CallRequest, Outcome
from apps.gateway.services.approvals import (
    Answer,
    decide_approval,
    decide_together,
    sweep_approvals,
)
from apps.gateway.services.grants import (
    NewGrant,
    install_shipped_grants,
    make_grant,
    revoke_grant,
)
from apps.gateway.services.halts import halt, hold_starts, resume, settle_outcome
from apps.gateway.services.limits import (
    BudgetWanted,
    archive_budget,
    save_budget,
    set_strictness,
    unblock_budget,
)
from apps.gateway.services.trying import Wanted, what_if

#: Of so many budgets the nearest to their limits are found.
MOST_WEIGHED = 50

__all__ = [
    "Answer",
    "BudgetWanted",
    "NewGrant",
    "Outcome",
    "Wanted",
    "archive_budget",
    "call",
    "decide_approval",
    "decide_together",
    "foresee",
    "halt",
    "hold_lost_effects",
    "hold_starts",
    "install_shipped_grants",
    "make_grant",
    "nearest_budgets",
    "resume",
    "revoke_grant",
    "save_budget",
    "set_strictness",
    "settle_outcome",
    "sweep_approvals",
    "sweep_reservations",
    "unblock_budget",
    "what_if",
]


def call(request: CallRequest) -> Outcome:
    """Have one effect, through every stage, once.

    Writes: Call, audit events, budgets, approvals.
    Raises: Denied and its kin, ApprovalRequired, Invalid, UpstreamError,
    OutcomeUnknown.   Again: the same idempotency key replays the recorded output.
    Source: docs/decisions/0008-one-pipeline.md
    """
    return pipeline.run(request)


def foresee(requests: Iterable[CallRequest]) -> list[bool]:
    """Say of each call whether it would ask a person who may answer it with others.

    Writes nothing; the calls are decided, one by one, when they are made.
    """
    return [foresight.asks_in_a_plan(request) for request in requests]


def nearest_budgets(*, principal: Principal, most: int) -> list[purse.Purse]:
    """Return the budgets that bind, with what they hold, the nearest to its limit
    first. Reads: at most MOST_WEIGHED of them."""
    live = queries.budgets(principal).filter(is_active=True)[:MOST_WEIGHED]
    return sorted(purse.purses(live), key=lambda each: -each.percent)[:most]


def hold_lost_effects(*, by: Principal, bodies: Iterable[str]) -> list[Call]:
    """Hold the keys of effects that started in a future the store has lost, so
    that none is done twice; an operator says what became of each.

    Shape: bodies of `call.started` events.   Writes: Call, UNKNOWN.
    Again: a key that is held stays with the call that holds it.
    """
    return lost.hold(by, bodies)


def sweep_reservations() -> int:
    """Settle what calls set aside whose run nobody carries. Returns how many.

    Writes: Reservation, Budget, Call.   Again: finds nothing more.
    """
    return leftover.sweep()
