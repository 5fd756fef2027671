"""A model proposes its way; code weighs it, asks, demands a plan, or lets it go."""

import json
from typing import Any

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import Principal, User
from apps.agents import services as agents
from apps.agents.engine import routing
from apps.agents.engine.routing import Facts, Proposal, Wanted
from apps.agents.models import (
    AgentProfile,
    Conversation,
    Step,
    StepKind,
    Turn,
    TurnState,
)
from apps.audit.models import Event
from apps.common.errors import Invalid
from tests.agents.conftest import FakeModel, FakeTools, asks, carry, says

pytestmark = pytest.mark.django_db

READ = Wanted("Clock", risk_level="read", data_egress="none")
WIPE = Wanted("Wipe", risk_level="destructive", data_egress="none")
SETTINGS = routing.settings_of(AgentProfile())


def decide(*wanted: Wanted, **facts: Any) -> routing.Decision:
    given: dict[str, Any] = {"is_offered": True, "has_tools": True, "may_ask": True}
    return routing.decide(SETTINGS, Facts(wanted=wanted, **given | facts))


def test_what_nobody_doubts_goes_its_way() -> None:
    assert (decide().decided, decide(READ).decided) == ("respond", "tool")
    handoff = Wanted("handoff", is_handoff=True)
    assert decide(handoff, has_targets=True).decided == "delegate"


def test_an_unsure_model_asks_one_short_question() -> None:
    said = Proposal("tool", 30, "Which file? Or all of them? " + "x" * 900)
    found = decide(READ, proposal=said)

    assert (found.decided, found.vetoes) == ("clarify", ("unsure",))
    assert found.question == "Which file?"


@pytest.mark.parametrize(
    ("facts", "veto"),
    [({"asked_before": True}, "already_asked"), ({"may_ask": False}, "nobody_to_ask")],
)
def test_nobody_is_asked_twice_or_in_vain(facts: dict[str, Any], veto: str) -> None:
    found = decide(READ, proposal=Proposal("clarify", None, "Which?"), **facts)

    assert (found.decided, found.vetoes) == ("tool", (veto,))


def test_much_at_once_needs_a_plan_first() -> None:
    found = decide(WIPE, WIPE)
    with_plan = decide(WIPE, WIPE, has_plan=True)
    not_offered = decide(WIPE, WIPE, is_offered=False)

    assert (found.decided, found.vetoes, found.risk) == ("plan", ("plan_first",), 120)
    assert with_plan.decided == not_offered.decided == "tool"


def test_very_much_at_once_is_asked_of_the_person() -> None:
    found = decide(WIPE, WIPE, WIPE, WIPE)

    assert (found.decided, found.vetoes) == ("clarify", ("too_risky",))
    assert found.question == "This would use Wipe at once. Shall I go ahead?"


def test_untrusted_words_and_the_network_weigh_more() -> None:
    fetch = Wanted("Fetch", risk_level="read", data_egress="network")

    assert (decide(READ).risk, decide(fetch).risk) == (5, 20)
    assert decide(fetch, is_untrusted=True).risk == 40


def test_what_is_not_offered_is_not_a_way() -> None:
    found = decide(proposal=Proposal("delegate"))

    assert (found.decided, found.vetoes) == ("respond", ("no_target_offered",))


def test_a_profile_sets_its_own_thresholds() -> None:
    profile = AgentProfile(routing={"planAbove": 10, "weights": {"read": 11}})
    facts = Facts(wanted=(READ,), is_offered=True, has_tools=True)

    assert routing.decide(routing.settings_of(profile), facts).decided == "plan"


@pytest.mark.parametrize(
    "said", [{"planAbove": -1}, {"weights": {"love": 3}}, {"x": 1}, {"explicit": 3}, 4]
)
def test_settings_of_the_wrong_shape_are_refused(
    primary: AgentProfile, said: Any
) -> None:
    with pytest.raises(Invalid, match="not valid") as caught:
        agents.save_profile(
            by=access.system_principal(),
            workspace=primary.workspace,
            slug="primary",
            changes={"routing": said},
            expected_version=primary.version,
        )

    assert caught.value.fields[0].path.startswith("routing")


def test_a_question_ends_the_turn_and_is_asked_once(
    turn: Turn,
    conversation: Conversation,
    operator: Principal,
    model: FakeModel,
    tools: FakeTools,
) -> None:
    way = asks("route", route="clarify", question="Which time zone?", confidence=0.2)
    model.answers = [says("", way, asks("polar_clock", "c2"))]
    carry(turn)
    model.answers = [says("", way), says("It is noon.")]
    again = agents.start_turn(
        conversation=conversation, principal=operator, text="You choose."
    )
    carry(again)

    assert (turn.state, turn.answer_text) == (TurnState.ANSWERED, "Which time zone?")
    assert (turn.header["route"], tools.calls) == ("clarify", [])
    assert again.answer_text == "It is noon."
    step = Step.objects.get(turn=again, kind=StepKind.ROUTE)
    assert "You asked just before" in step.result["output"]["notes"][0]
    decided = Event.objects.filter(type="turn.routed").order_by("id")
    assert [(each.decision, each.reason) for each in decided] == [
        ("clarify", ""),
        ("respond", "already_asked"),
    ]


def test_a_plan_is_demanded_made_and_then_carried_out(
    turn: Turn, primary: AgentProfile, model: FakeModel, tools: FakeTools
) -> None:
    AgentProfile.objects.update(routing={"planAbove": 50})
    turn.profile.refresh_from_db()
    plan = asks("route", "c2", route="plan", steps=["look", "tell"])
    model.answers = [
        says("", asks("web_fetch")),
        says("", plan),
        says("", asks("web_fetch", "c3")),
        says("Done."),
    ]
    carry(turn)

    kinds = list(turn.steps.order_by("seq").values_list("kind", "error_code"))
    assert kinds == [
        ("model", ""),
        ("tool", "POLAR_ROUTE_VETOED"),
        ("model", ""),
        ("route", ""),
        ("model", ""),
        ("tool", ""),
        ("model", ""),
    ]
    assert (turn.answer_text, len(tools.calls)) == ("Done.", 1)
    told = model.requests[1].messages[-1].text
    assert "call route with plan" in told


def test_an_answer_beside_its_way_is_the_answer(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("Noon.", asks("route", route="respond", confidence=1))]
    carry(turn)

    assert (turn.answer_text, turn.steps.count()) == ("Noon.", 1)


def test_a_way_of_the_wrong_shape_is_told_to_the_model(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("route", route="fly")), says("Noon.")]
    carry(turn)

    step = Step.objects.get(turn=turn, kind=StepKind.ROUTE)
    assert (step.state, turn.answer_text) == ("failed", "Noon.")
    assert "'fly' is not one of" in model.requests[1].messages[-1].text


def test_a_hard_task_is_raised_as_its_operator_planned(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("route", route="tool", hard=True)), says("Noon.")]
    carry(turn)

    asked = [(each.lane, each.lane_reason) for each in model.requests]
    assert asked == [("worker", "profile"), ("brain", "hard_task")]
    event = Event.objects.get(type="turn.escalated")
    assert (event.decision, event.reason) == ("planned", "hard_task")
    assert json.loads(event.body)["data"]["to"] == "brain"


def test_a_hard_task_stays_where_the_policy_has_no_lane_for_it(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    AgentProfile.objects.update(lane_policy={"hard": ""})
    model.answers = [says("", asks("route", route="tool", hard=True)), says("Noon.")]
    carry(turn)

    assert [each.lane for each in model.requests] == ["worker", "worker"]


def test_a_failed_tool_call_raises_where_the_policy_says_so(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    AgentProfile.objects.update(lane_policy={"stuck": "brain"})
    model.answers = [says("", asks("no_such_tool")), says("Noon.")]
    carry(turn)

    assert model.requests[1].lane_reason == "stuck"


def test_a_model_without_tools_is_offered_no_way(turn: Turn, model: FakeModel) -> None:
    AgentProfile.objects.update(allowed_capabilities=[], allowed_handoff_targets=[])
    model.answers = [says("Noon.")]
    carry(turn)

    assert model.requests[0].tools == ()


def test_the_trace_shows_what_was_proposed_and_decided(
    turn: Turn, model: FakeModel, tools: FakeTools, client: Client, alice: User
) -> None:
    way = asks("route", route="clarify", question="Which zone?", confidence=0.2)
    model.answers = [says("", way)]
    carry(turn)
    client.force_login(alice)
    page = client.get(f"/traces/{turn.trace_id}/").content.decode()

    assert "clarify proposed, clarify decided" in page
    assert "confidence 20" in page
