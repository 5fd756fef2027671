"""Each kind of work has its lane; the reason is written down."""

from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal
from apps.agents import services as agents
from apps.agents.engine import lanes
from apps.agents.models import AgentProfile, Conversation
from apps.common.errors import Invalid
from apps.providers import services as providers
from apps.providers.models import Attempt, UsageRow
from apps.runs.models import Trigger
from tests.fakes.openai_server import openai_server
from tests.providers import builders

pytestmark = pytest.mark.django_db


def lane(policy: dict[str, str], trigger: str = Trigger.MESSAGE, **more: Any) -> Any:
    found = lanes.choose(AgentProfile(lane_policy=policy), trigger, **more)
    return (str(found.lane), str(found.reason))


def test_people_are_answered_in_the_agents_own_lane(workspace: Any) -> None:
    assert lane({}) == lane({}, Trigger.API) == ("worker", "profile")


def test_heartbeats_ask_the_local_lane(workspace: Any) -> None:
    builders.route("local")

    assert lane({}, Trigger.HEARTBEAT) == ("local", "work_policy")


def test_a_lane_without_routes_is_not_chosen(workspace: Any) -> None:
    assert lane({}, Trigger.HEARTBEAT) == ("worker", "lane_unstaffed")


def test_a_policy_raises_and_lowers(workspace: Any) -> None:
    builders.route("local")
    policy = {"schedule": "brain", "handoff": "local", "heartbeat": ""}

    assert lane(policy, Trigger.SCHEDULE) == ("brain", "work_policy")
    assert lane(policy, Trigger.HANDOFF) == ("local", "work_policy")
    assert lane(policy, Trigger.HEARTBEAT) == ("worker", "profile")


def test_hard_tasks_ask_the_brain(workspace: Any) -> None:
    assert lane({}, is_hard=True) == ("brain", "hard_task")
    assert lane({"hard": ""}, is_hard=True) == ("worker", "profile")


@pytest.mark.parametrize("policy", [{"dreams": "brain"}, {"hard": "moon"}, ["x"]])
def test_a_policy_of_the_wrong_shape_is_refused(
    primary: AgentProfile, policy: Any
) -> None:
    with pytest.raises(Invalid, match="not valid"):
        agents.save_profile(
            by=access.system_principal(),
            workspace=primary.workspace,
            slug="primary",
            changes={"lane_policy": policy},
            expected_version=primary.version,
        )


def test_a_turn_says_why_it_asks_where_it_asks(
    conversation: Conversation, operator: Principal
) -> None:
    plain = agents.start_turn(conversation=conversation, principal=operator, text="a")
    hard = agents.start_turn(
        conversation=conversation, principal=operator, text="b", is_hard=True
    )

    assert (plain.requested_lane, plain.lane_reason) == ("worker", "profile")
    assert (hard.requested_lane, hard.lane_reason) == ("brain", "hard_task")


def test_each_row_says_why_its_lane(workspace: Any) -> None:
    builders.ready(workspace)
    with openai_server("500") as bad, openai_server() as good:
        builders.route("brain", "one", bad.url)
        builders.route("local", "two", good.url)
        wanted = builders.request(workspace, lane_reason="hard_task")
        providers.generate(request=wanted)
        providers.generate(
            request=builders.request(workspace, lane="worker", lane_reason="profile")
        )

    rows = Attempt.objects.order_by("id").values_list("lane", "lane_reason")
    assert list(rows) == [
        ("brain", "hard_task"),
        ("local", "lane_failed"),
        ("local", "lane_unstaffed"),
    ]
    used = UsageRow.objects.order_by("id").values_list("lane_change", "lane_reason")
    assert list(used) == [("fallback", "lane_failed"), ("planned", "lane_unstaffed")]


def test_a_raised_call_counts_as_planned(workspace: Any) -> None:
    builders.ready(workspace)
    with openai_server() as server:
        builders.route("brain", "one", server.url)
        found = providers.generate(
            request=builders.request(workspace, lane_reason="hard_task")
        )

    row = UsageRow.objects.get()
    assert (found.lane_change, row.lane_change, row.lane_reason) == (
        "planned",
        "planned",
        "hard_task",
    )
