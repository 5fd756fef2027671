"""The circuit breaker of each route, in the database so that all workers agree.

Closed opens after three failures in a row; open lets one probe go after 30 s,
then 1 min, then 5 min; the probe is claimed by a conditional UPDATE, and its
claim lapses, so a killed prober does not close the road for ever.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Q, QuerySet

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.providers.errors import ModelCallFailed
from apps.providers.models import HELD, Breaker, BreakerState, ErrorClass, Route

FAILURES_TO_OPEN: Final = 3
#: How long a route rests, by how often it failed its probe. Units: seconds.
LADDER_SECONDS: Final = (30, 60, 300)
#: These say something about one request, not about the route.
BLAMELESS: Final = frozenset(
    {ErrorClass.CONTENT_REFUSED, ErrorClass.CONTEXT_OVERFLOW, ErrorClass.AUTH}
)


def find(route: Route) -> Breaker | None:
    """Return the route's breaker as it was read with the route."""
    found: Breaker | None = getattr(route, "breaker", None)
    return found


def is_closed(route: Route | None) -> bool:
    """Tell whether a route is trusted at this moment, as the database has it."""
    if route is None:
        return False
    open_ = Breaker.objects.filter(route=route).exclude(state=BreakerState.CLOSED)
    return not open_.exists()


def refusal(route: Route) -> str:
    """Say why a route may not be tried now, or "" after claiming the probe.

    1. closed: go; 2. open or half-open with time left: no; 3. else one UPDATE,
    conditional on what was read, claims the probe; zero rows: somebody else did.
    """
    breaker = find(route)
    if breaker is None or breaker.state == BreakerState.CLOSED:
        return ""
    now = clock.now()
    if breaker.probe_at is not None and now < breaker.probe_at:
        what = "being probed" if breaker.state == BreakerState.HALF_OPEN else "open"
        return f"{what} until {breaker.probe_at:%T} UTC: {breaker.last_error_class}"
    lapse = now + timedelta(seconds=route.wall_seconds + route.connect_seconds)
    claimed = Breaker.objects.filter(
        pk=breaker.pk, state=breaker.state, probe_at=breaker.probe_at
    ).update(state=BreakerState.HALF_OPEN, probe_at=lapse)
    if not claimed:
        return "being probed by another worker"
    breaker.state, breaker.probe_at = BreakerState.HALF_OPEN, lapse
    return ""


def release(route: Route) -> None:
    """Give back a claimed probe that was never sent."""
    breaker = find(route)
    if breaker is not None and breaker.state == BreakerState.HALF_OPEN:
        Breaker.objects.filter(pk=breaker.pk, state=BreakerState.HALF_OPEN).update(
            state=BreakerState.OPEN, probe_at=clock.now()
        )


def succeeded(route: Route) -> None:
    """Note an answer. Writes only when there was something to forgive."""
    breaker = find(route)
    if breaker is None:
        return
    if breaker.state == BreakerState.CLOSED and not breaker.failures:
        return
    with transaction.atomic():
        reopened = Breaker.objects.filter(pk=breaker.pk).exclude(
            state=BreakerState.CLOSED
        )
        closed = reopened.update(**_CLOSED)
        if closed:
            _record("breaker.closed", route)
        else:
            Breaker.objects.filter(pk=breaker.pk).update(failures=0)


def reset(route: Route) -> None:
    """Close a route's breaker because an operator says so."""
    Breaker.objects.filter(route=route).update(**_CLOSED)


_CLOSED: Final = {
    "state": BreakerState.CLOSED,
    "failures": 0,
    "ladder_step": 0,
    "opened_at": None,
    "probe_at": None,
}


def hold(route: Route, until: datetime, reason: str) -> None:
    """Keep a route open until a moment. One that rests longer by itself is left."""
    breaker, _ = Breaker.objects.get_or_create(route=route)
    rests_longer = Q(state=BreakerState.OPEN, probe_at__gte=until)
    Breaker.objects.filter(pk=breaker.pk).exclude(rests_longer).update(
        state=BreakerState.OPEN,
        opened_at=clock.now(),
        probe_at=until,
        last_error=reason[:300],
        last_error_class=HELD,
        last_error_at=clock.now(),
    )


def held() -> QuerySet[Breaker]:
    """Return the breakers that somebody holds open just now."""
    return Breaker.objects.all().held(clock.now())


def release_held() -> int:
    """Close what is held. Again: nothing."""
    return held().update(**_CLOSED)


def failed(route: Route, error: ModelCallFailed) -> None:
    """Note a failure; open after the third in a row, or after a failed probe."""
    if error.error_class in BLAMELESS:
        release(route)
        return
    if error.error_class == ErrorClass.RATE_LIMITED and error.retry_after is not None:
        release(route)  # the provider's pause covers all of its routes
        return
    now = clock.now()
    with transaction.atomic():
        breaker, _ = Breaker.objects.get_or_create(route=route)
        mine = Breaker.objects.filter(pk=breaker.pk)
        mine.update(
            failures=F("failures") + 1,
            last_error=str(error)[:300],
            last_error_class=error.error_class,
            last_error_at=now,
        )
        if _open(breaker, now):
            _record("breaker.opened", route, error_class=error.error_class)


def _open(breaker: Breaker, now: datetime) -> bool:
    rows = Breaker.objects.filter(pk=breaker.pk)
    probed = rows.filter(state=BreakerState.HALF_OPEN)
    step = min(breaker.ladder_step + 1, len(LADDER_SECONDS) - 1)
    if probed.update(ladder_step=step, **_opened(now, step)):
        return True
    tired = rows.filter(state=BreakerState.CLOSED, failures__gte=FAILURES_TO_OPEN)
    return bool(tired.update(ladder_step=0, **_opened(now, 0)))


def _opened(now: datetime, step: int) -> dict[str, object]:
    return {
        "state": BreakerState.OPEN,
        "opened_at": now,
        "probe_at": now + timedelta(seconds=LADDER_SECONDS[step]),
    }


def _record(type_: str, route: Route, **data: str) -> None:
    audit.record(
        type=type_,
        actor=SYSTEM,
        subject=("route", str(route.pk)),
        data={"route": str(route), **data},
    )
