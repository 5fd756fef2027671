"""Holding lanes: for a while no call leaves to their servers, as in a blackout.

Invariant: a hold ends by itself. It is a breaker that is open until a moment, so no
process has to live to end it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction

from apps.access.models import Principal
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid
from apps.providers.engine import breakers
from apps.providers.models import Lane, Route
from apps.providers.policies import check_manage
from apps.runs import services as runs
from apps.runs.models import State

LONGEST_HOLD = timedelta(minutes=10)


@transaction.atomic
def hold_lanes(
    *, by: Principal, lanes: Sequence[str], until: datetime, reason: str
) -> int:
    """Open the breaker of every route of these lanes until then.

    Returns how many.   Raises: RoleRequired below admin; Invalid for a lane that is
    none, or for longer than ten minutes.   Again: holds until the later moment.
    """
    check_manage(by)
    problems = []
    if not lanes or set(lanes) - set(Lane.values):
        problems.append(FieldProblem("lanes", "unknown", ", ".join(Lane.values)))
    if not clock.now() < until <= clock.now() + LONGEST_HOLD:
        problems.append(FieldProblem("until", "out of range", "within ten minutes"))
    if problems:
        raise Invalid("These lanes cannot be held so.", fields=tuple(problems))
    routes = Route.objects.filter(lane__in=lanes).order_by("id")
    for route in routes:
        breakers.hold(route, until, reason)
    _record("lanes.held", by, lanes, reason=reason, until=until.isoformat())
    return len(routes)


@transaction.atomic
def release_lanes(*, by: Principal, reason: str) -> int:
    """End every hold now; who waits for a provider goes on. Returns how many.

    Again: nothing.
    """
    check_manage(by)
    held = breakers.held()
    lanes = sorted(set(held.values_list("route__lane", flat=True)))
    released = breakers.release_held()
    if released:
        _record("lanes.released", by, lanes, reason=reason)
        runs.wake(state=State.WAITING_PROVIDER, reason="lanes released")
    return released


def _record(
    event: str, by: Principal, lanes: Sequence[str], *, reason: str, **data: str
) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("lanes", ",".join(lanes)),
        reason=reason[:300],
        data={"lanes": list(lanes), **data},
    )
