"""A vendor fails in every way there is: named, handed over, and nobody kept waiting.

Times are read from the rows of the trace and printed; `make chaos` (POLAR_CHAOS_TURNS)
judges them on a machine that does nothing else, and sends 200 turns through it all.
"""

import os
import sys
from datetime import datetime
from typing import Any

import pytest

from apps.access.models import Workspace
from apps.gateway.models import Call
from apps.providers import services as providers
from apps.providers.models import Attempt, Breaker, Provider, Route, UsageRow
from tests.fakes.openai_server import REPLY, openai_server
from tests.providers import builders
from tests.services import free_port

TURNS = int(os.environ.get("POLAR_CHAOS_TURNS", "0"))
#: From the decision that a route failed to the next one's answer, and the same
#: where the failure came at once. Units: seconds.
NEXT, FAST = 1.0, 0.5
#: Shape: mode → the class it gets, and whether the failure comes at once.
FAILURES = {
    "closed": ("network", True),
    "refused": ("network", True),
    "401": ("auth", True),
    "429": ("rate_limited", True),
    "500": ("server_error", True),
    "hang": ("timeout_first_byte", False),
    "drip": ("timeout_idle", False),
    "half_sse": ("bad_response", True),
    "garbage": ("bad_response", True),
    "error_in_200": ("bad_response", True),
    "huge": ("bad_response", False),
}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _ready(workspace: Workspace) -> None:
    builders.ready(workspace)


def ask(workspace: Workspace) -> Any:
    return providers.generate(request=builders.request(workspace))


def two_routes(bad: str, good: str) -> None:
    builders.route("brain", "bad", bad)
    builders.route("local", "good", good)
    Route.objects.update(max_bytes=20_000, connect_seconds=0.5)


def times() -> tuple[float, float]:
    """Read a turn's trace. Shape: seconds from the last failure to the answer, and
    from the first asking to the answer."""
    *failed, served = Call.objects.order_by("id")
    asked, decided, answered = (
        failed[0].created_at,
        failed[-1].finished_at,
        served.finished_at,
    )
    assert isinstance(decided, datetime) and isinstance(answered, datetime)
    return (answered - decided).total_seconds(), (answered - asked).total_seconds()


@pytest.mark.parametrize("mode", FAILURES)
def test_failure_is_named_and_the_next_route_answers(
    workspace: Workspace, mode: str
) -> None:
    error_class, is_fast = FAILURES[mode]
    with openai_server(mode) as bad, openai_server() as good:
        closed = f"http://127.0.0.1:{free_port()}/v1"
        two_routes(closed if mode == "closed" else bad.url, good.url)
        providers.warm_up()
        found = ask(workspace)

    *failed, served = Attempt.objects.order_by("seq")
    assert {row.error_class for row in failed} == {error_class}
    assert (found.served_by, found.degraded, found.lane_change, found.text) == (
        "good/fake-1",
        True,
        "fallback",
        REPLY,
    )
    row = UsageRow.objects.get()
    assert (row.served_provider, row.fallback_used, row.ok) == ("good", True, True)
    after, whole = times()
    sys.stdout.write(
        f"chaos: {mode:13} {error_class:18} {len(failed)} failed, the next route "
        f"answered {after * 1000:.0f} ms later, {whole * 1000:.0f} ms in all\n"
    )
    if TURNS:
        assert after <= (FAST if is_fast else NEXT)


@pytest.mark.skipif(not TURNS, reason="`make chaos` sends this many")
def test_no_turn_of_many_is_silent(workspace: Workspace) -> None:
    """Each turn meets one failure of the list, in turn, and names who served it."""
    modes = [mode for mode in FAILURES if mode != "closed"]
    served = 0
    with openai_server() as bad, openai_server() as good:
        two_routes(bad.url, good.url)
        for number in range(TURNS):
            bad.mode = modes[number % len(modes)]
            Breaker.objects.all().delete()
            Provider.objects.update(quiet_until=None, state="ok")
            found = ask(workspace)
            served += (found.text, found.served_by) == (REPLY, "good/fake-1")

    rows = UsageRow.objects.filter(ok=True, served_provider="good")
    named = Attempt.objects.filter(outcome="attempted").exclude(error_class="")
    sys.stdout.write(
        f"chaos: {served} of {TURNS} turns served, {named.count()} named\n"
    )
    assert served == rows.count() == TURNS
    assert named.count() >= TURNS
    assert set(named.values_list("error_class", flat=True)) == {
        error_class for error_class, _ in FAILURES.values()
    }
