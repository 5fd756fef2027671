"""A full budget blocks, or leaves one provider out, or lowers the lane."""

from typing import Any

import pytest

from apps.access.models import Workspace
from apps.common import clock
from apps.common.errors import BudgetExceeded
from apps.gateway.models import Budget, Call
from apps.providers import services as providers
from apps.providers.models import Attempt, UsageRow
from apps.reliability.engine import alerts
from tests.fakes.openai_server import openai_server
from tests.providers import builders

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _ready(workspace: Workspace) -> None:
    builders.ready(workspace)


def ask(workspace: Workspace, **changes: Any) -> Any:
    return providers.generate(request=builders.request(workspace, **changes))


def full(workspace: Workspace | None, on_exceed: str, **fields: Any) -> Budget:
    given = {"scope": "workspace", "unit": "micros", "window": "day", "limit": 1}
    return Budget.objects.create(
        workspace=workspace, on_exceed=on_exceed, **given | fields
    )


def test_a_budget_that_blocks_is_not_walked_around(workspace: Workspace) -> None:
    full(workspace, "block")
    with openai_server() as one, openai_server() as two:
        builders.route("brain", "one", one.url)
        builders.route("local", "two", two.url)
        with pytest.raises(BudgetExceeded, match="workspace budget"):
            ask(workspace)

    assert one.requests == two.requests == []
    assert Attempt.objects.get().reason == "over_budget"


def test_an_overrun_is_cut_booked_blocks_and_alerts(workspace: Workspace) -> None:
    one = full(workspace, "block", limit=1_000_000, unit="tokens")
    with openai_server("huge") as server:
        builders.route("brain", "one", server.url)
        found = ask(workspace, max_output_tokens=1_000)
        held = one.reservation_set.get()
        with pytest.raises(BudgetExceeded, match="It is blocked"):
            ask(workspace)

    one.refresh_from_db()
    taken = found.usage.tokens_in + found.usage.tokens_out
    assert found.finish == "cut"
    assert (one.spent, one.overrun, one.reserved) == (taken, taken - held.amount, 0)
    assert Attempt.objects.order_by("seq", "id")[0].detail.startswith("cut at its cap")
    (alert,) = alerts.budgets(clock.now())
    assert (alert.code, alert.level) == ("BUDGET_NEAR_LIMIT", "critical")


def test_a_providers_budget_leaves_the_others_free(workspace: Workspace) -> None:
    full(None, "block", scope="provider", scope_key="one")
    with openai_server() as one, openai_server() as two:
        builders.route("brain", "one", one.url)
        builders.route("brain", "two", two.url, model="fake-2")
        found = ask(workspace)

    assert (found.served_by, one.requests) == ("two/fake-2", [])


def test_a_budget_that_lowers_the_lane_asks_the_lowest(workspace: Workspace) -> None:
    one = full(workspace, "downgrade_lane")
    with openai_server() as brain, openai_server() as local:
        builders.route("brain", "dear", brain.url)
        builders.route("local", "near", local.url)
        found = ask(workspace)

    said = (found.served_by, found.lane, found.degraded, found.lane_change)
    assert said == ("near/fake-1", "local", True, "planned")
    assert [row.reason for row in Attempt.objects.order_by("seq")] == [
        "over_budget",
        "",
    ]
    row = UsageRow.objects.get()
    assert (row.requested_lane, row.served_lane, row.lane_change) == (
        "brain",
        "local",
        "planned",
    )
    one.refresh_from_db()
    assert (one.spent, brain.requests) == (Call.objects.get(lane="local").micros, [])
