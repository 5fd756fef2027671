"""A plan is walked until a route answers; every route leaves its row."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.access.models import Workspace
from apps.audit.models import Event
from apps.common import clock, ids
from apps.common.errors import Halted
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.gateway.ports import Lineage
from apps.providers import ports, queries
from apps.providers import services as providers
from apps.providers.errors import NoRouteAvailable
from apps.providers.models import (
    Attempt,
    Breaker,
    BreakerState,
    KeyState,
    Provider,
    UsageRow,
)
from tests.fakes.openai_server import REPLY, openai_server
from tests.providers import builders

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _ready(workspace: Workspace) -> None:
    builders.ready(workspace)


def ask(workspace: Workspace, text: str = "Hello?", **changes: Any) -> Any:
    return providers.generate(request=builders.request(workspace, text, **changes))


def test_the_first_route_answers_and_is_priced(workspace: Workspace) -> None:
    with openai_server() as server:
        builders.route("brain", url=server.url)
        found = ask(workspace)

    assert (found.text, found.served_by, found.lane_change) == (
        REPLY,
        "fake/fake-1",
        "none",
    )
    row = UsageRow.objects.get()
    assert (row.micros, row.tokens_in, row.ok, row.attempts) == (18, 10, True, 1)


def test_a_failing_route_hands_over_and_says_so(workspace: Workspace) -> None:
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        found = ask(workspace)

    assert (found.served_by, found.degraded, found.lane_change) == (
        "good/fake-1",
        True,
        "fallback",
    )
    rows = list(Attempt.objects.order_by("seq"))
    assert [row.error_class for row in rows] == ["server_error", ""]
    assert UsageRow.objects.get().fallback_used
    assert Call.objects.count() == 2


def test_a_reset_follows_text_of_a_failed_route(workspace: Workspace) -> None:
    heard: list[str] = []
    with openai_server("cut") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        providers.generate(
            request=builders.request(workspace),
            on_delta=heard.append,
            on_reset=lambda: heard.append("<reset>"),
        )

    assert "".join(heard) == f"Hel<reset>Hel<reset>{REPLY}"


def test_a_garbled_answer_is_asked_for_once_more(workspace: Workspace) -> None:
    with openai_server("garbage") as server:
        builders.route("brain", url=server.url)
        server.heal_after = 1
        found = ask(workspace)

    assert (found.text, len(server.requests)) == (REPLY, 2)
    assert [row.error_class for row in Attempt.objects.order_by("seq")] == [
        "bad_response",
        "",
    ]
    assert Call.objects.count() == 2  # the second asking is counted


def test_only_one_garbled_answer_is_repaired(workspace: Workspace) -> None:
    with openai_server("garbage") as one, openai_server("garbage") as two:
        builders.route("brain", "one", one.url)
        builders.route("local", "two", two.url)
        with pytest.raises(NoRouteAvailable):
            ask(workspace)

    assert (len(one.requests), len(two.requests)) == (2, 1)


def test_a_route_that_just_opened_is_not_asked_again(workspace: Workspace) -> None:
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        ask(workspace)
        ask(workspace)
        bad.mode = "garbage"
        ask(workspace)

    assert Breaker.objects.get().state == BreakerState.OPEN
    assert len(bad.requests) == 3


def test_nothing_can_serve_names_every_route(workspace: Workspace) -> None:
    with openai_server("500") as bad:
        builders.route("brain", "bad", bad.url)
        off = builders.route("local", "off", bad.url)
        providers.set_enabled(
            by=builders.request(workspace).principal, slug="off", enabled=False
        )
        with pytest.raises(NoRouteAvailable) as caught:
            ask(workspace)

    assert caught.value.waits_as == "waiting_provider"
    assert "bad/fake-1: server_error" in str(caught.value)
    assert "off/fake-1: disabled" in str(caught.value)
    assert not UsageRow.objects.get().ok
    assert off.lane == "local"


def test_a_rejected_key_is_remembered_and_fails_over(workspace: Workspace) -> None:
    with openai_server("401") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url, key="sk-canary-1234567890")
        builders.route("local", "good", good.url)
        ask(workspace)
        ask(workspace)

    row = Provider.objects.get(slug="bad")
    assert (row.state, len(bad.requests)) == (KeyState.REJECTED, 1)
    assert "sk-canary" not in row.state_detail
    assert Event.objects.filter(type="provider.key_rejected").count() == 1
    assert not Attempt.objects.filter(detail__contains="sk-canary").exists()


def test_retry_after_silences_the_whole_provider(workspace: Workspace) -> None:
    with openai_server("429") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        ask(workspace)
        ask(workspace)

    assert len(bad.requests) == 1
    quiet = Provider.objects.get(slug="bad").quiet_until
    assert quiet is not None
    assert 5 < (quiet - clock.now()).total_seconds() < 10
    assert Attempt.objects.filter(reason="breaker_open").count() == 1


def test_a_refused_question_does_not_blame_the_route(workspace: Workspace) -> None:
    with openai_server("context") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        for _ in range(4):
            ask(workspace)

    assert (len(bad.requests), Breaker.objects.count()) == (4, 0)


def test_the_breaker_opens_probes_and_closes(workspace: Workspace) -> None:
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        with clock.frozen(NOON):
            for _ in range(4):
                ask(workspace)
            assert Breaker.objects.get().state == BreakerState.OPEN
            assert len(bad.requests) == 3
            clock.advance(31)
            ask(workspace)  # the probe fails: a minute more
            clock.advance(31)
            ask(workspace)
            assert len(bad.requests) == 4
            bad.mode = "ok"
            clock.advance(30)
            found = ask(workspace)

    assert found.served_by == "bad/fake-1"
    assert Breaker.objects.get().state == BreakerState.CLOSED
    assert Event.objects.filter(type="breaker.opened").count() == 2
    assert Event.objects.filter(type="breaker.closed").count() == 1


def test_one_worker_alone_probes(workspace: Workspace) -> None:
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "bad", bad.url)
        builders.route("local", "good", good.url)
        with clock.frozen(NOON):
            for _ in range(3):
                ask(workspace)
            clock.advance(31)
            Breaker.objects.update(
                state=BreakerState.HALF_OPEN, probe_at=clock.now() + clock_minute()
            )
            ask(workspace)

    assert len(bad.requests) == 3


def clock_minute() -> Any:
    return NOON - NOON.replace(minute=59, hour=11)


def test_a_halt_stops_and_says_so(workspace: Workspace) -> None:
    with openai_server() as server:
        builders.route("brain", url=server.url)
        gateway.halt(
            by=builders.request(workspace).principal, scope="all", reason="stop"
        )
        with pytest.raises(Halted):
            ask(workspace)

    assert server.requests == []
    assert Attempt.objects.get().reason == "halted"


def test_a_pin_is_an_operators_choice(workspace: Workspace) -> None:
    with openai_server() as one, openai_server() as two:
        builders.route("brain", "one", one.url)
        pinned = builders.route("local", "two", two.url)
        found = ask(workspace, pinned_model_id=pinned.model_id)

    assert (found.served_by, found.lane_change, found.degraded) == (
        "two/fake-1",
        "operator_pin",
        False,
    )


def test_the_scripted_model_leaves_when_a_provider_comes(workspace: Workspace) -> None:
    providers.sync_from_env()
    alone = ask(workspace)
    with openai_server() as server:
        builders.route("brain", url=server.url)
        together = ask(workspace)

    assert (alone.is_scripted, alone.lane_change) == (True, "none")
    assert together.served_by == "fake/fake-1"


def test_a_step_that_was_answered_is_replayed_unpaid(workspace: Workspace) -> None:
    lineage = Lineage(run_id=ids.new_id(), seq="1", trace_id=ids.new_trace_id())
    with openai_server() as server:
        builders.route("brain", url=server.url)
        first = ask(workspace, lineage=lineage)
        again = ask(workspace, lineage=lineage)

    assert (again.text, len(server.requests)) == (first.text, 1)
    assert UsageRow.objects.count() == 1


def test_asking_twice_outside_a_run_asks_twice(workspace: Workspace) -> None:
    with openai_server() as server:
        builders.route("brain", url=server.url)
        ask(workspace)
        ask(workspace)

    assert len(server.requests) == 2


def test_three_statements_serve_a_scripted_answer(workspace: Workspace) -> None:
    """Read the routes, insert the attempts, insert the usage row."""
    providers.sync_from_env()
    with CaptureQueriesContext(connection) as seen:
        ask(workspace)

    ours = [each["sql"] for each in seen if '"providers_' in each["sql"]]
    assert [sql.split()[0] for sql in ours] == ["SELECT", "INSERT", "INSERT"]


def test_warming_up_loads_what_the_install_needs(workspace: Workspace) -> None:
    providers.sync_from_env()
    providers.warm_up()

    assert ports.adapter_for("scripted") is ports.adapter_for("scripted")


def test_health_names_what_rests(workspace: Workspace) -> None:
    with openai_server("500") as bad:
        builders.route("brain", "bad", bad.url)
        for _ in range(3):
            with pytest.raises(NoRouteAvailable):
                ask(workspace)

    brain = queries.lanes_health()[0]
    assert (brain.state, brain.routes[0].state) == ("down", "open")
    assert brain.routes[0].last_error_class == "server_error"
    assert queries.all_remote_lanes_down()


def test_the_built_in_model_stands_back_on_the_desk_too(workspace: Workspace) -> None:
    providers.sync_from_env()
    alone = queries.lanes_health()[0]
    with openai_server() as server:
        builders.route("brain", url=server.url)
    together = queries.lanes_health()[0]

    assert (alone.state, alone.routes[0].state) == ("ready", "ready")
    assert [each.is_aside for each in together.routes] == [True, False]
    assert together.state == "ready"


def test_a_blackout_of_ten_minutes_is_waited_out(workspace: Workspace) -> None:
    """A turn every five seconds: the dead route is left in peace, then found."""
    with openai_server("500") as dead, openai_server() as good:
        builders.route("brain", "dead", dead.url)
        builders.route("local", "good", good.url)
        with clock.frozen(NOON):
            for _ in range(120):
                assert ask(workspace).served_by == "good/fake-1"
                clock.advance(5)
            tried, dead.mode = len(dead.requests), "ok"
            waited = 0
            while ask(workspace).served_by != "dead/fake-1":
                clock.advance(5)
                waited += 5

    assert tried <= 13
    assert waited <= 120


def test_no_failure_is_silent(workspace: Workspace) -> None:
    """Two hundred turns through every quick failure: each names who served."""
    modes = ["500", "garbage", "error_in_200", "context", "filtered", "cut", "ok"]
    served = 0
    with openai_server() as moody, openai_server() as good:
        builders.route("brain", "moody", moody.url)
        builders.route("local", "good", good.url)
        with clock.frozen(NOON):
            for number in range(200):
                moody.mode = modes[number % len(modes)]
                found = ask(workspace)
                served += found.text == REPLY
                clock.advance(20)

    rows = UsageRow.objects.all()
    assert (served, rows.count(), rows.filter(ok=True).count()) == (200, 200, 200)
    told = {(row.served_provider, row.fallback_used) for row in rows}
    assert told <= {("moody", False), ("moody", True), ("good", True)}
    failed = Attempt.objects.exclude(error_class="").count()
    assert failed == Attempt.objects.filter(outcome="attempted").count() - 200
