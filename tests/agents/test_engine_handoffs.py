"""Agents hand work to one another: within bounds, in order, through the gateway."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from apps.access import services as access
from apps.access.models import User
from apps.agents import services as agents
from apps.agents.engine import handoffs, proposal, reach, recursion
from apps.agents.models import (
    AgentProfile,
    Conversation,
    Handoff,
    Turn,
    TurnState,
)
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import NotFound
from apps.gateway.models import Call, Setting
from apps.providers import services as providers
from apps.providers.ports import ToolCall
from apps.runs import services as runs
from apps.runs.models import Run, State
from tests.agents.conftest import FakeTools, says

Script = Callable[[Any], providers.Generated]


@dataclass
class Cast:
    """A model that answers by agent, and counts whom it was asked as."""

    parts: dict[str, Script] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    def generate(self, *, request: Any, **_: Any) -> providers.Generated:
        self.asked.append((request.lineage.agent, request.lineage.depth))
        self.requests.append(request)
        return self.parts[request.lineage.agent](request)


@pytest.fixture
def cast(monkeypatch: pytest.MonkeyPatch, tools: FakeTools) -> Cast:
    made = Cast()
    monkeypatch.setattr(providers, "generate", made.generate)
    return made


def hands(*agents_: str, mode: str = "fanout-fanin", **more: Any) -> Script:
    """Hand over first; then say what came back."""

    def script(request: Any) -> providers.Generated:
        last = request.messages[-1]
        if last.role == "tool":
            return says(f"put together: {last.text}")
        extra = more.pop("part", {}) if "part" in more else {}
        parts = [{"agent": a, "task": f"do it, {a}", **extra} for a in agents_]
        call = ToolCall("h1", "handoff", {"mode": mode, "parts": parts, **more})
        return says("", call)

    return script


def answers(text: str) -> Script:
    return lambda request: says(text)


def work() -> None:
    """Carry runs until nothing is queued."""
    for _ in range(500):
        due = Run.objects.filter(state=State.QUEUED).in_line().first()
        if due is None:
            return
        runs.execute(due.id)
    raise AssertionError("the work does not end")


@pytest.fixture
def ask(conversation: Conversation) -> Callable[[str], Turn]:
    def start(text: str) -> Turn:
        return agents.start_turn(
            conversation=conversation, principal=conversation.principal, text=text
        )

    return start


def test_three_agents_answer_one_question(cast: Cast, ask: Any) -> None:
    cast.parts = {
        "primary": hands("researcher", "writer"),
        "researcher": answers("facts"),
        "writer": answers("draft"),
    }
    turn = ask("research and write")

    work()

    turn.refresh_from_db()
    assert turn.state == TurnState.ANSWERED
    assert turn.answer_text.index("facts") < turn.answer_text.index("draft")
    assert Run.objects.get(id=turn.run_id).state == State.SUCCEEDED
    assert {h.state for h in Handoff.objects.all()} == {"succeeded"}


def test_parent_holds_no_worker_while_it_waits(cast: Cast, ask: Any) -> None:
    cast.parts = {
        "primary": hands("researcher", "writer"),
        "researcher": answers("facts"),
        "writer": answers("draft"),
    }
    turn = ask("go")

    runs.execute(turn.run_id)

    run = Run.objects.get(id=turn.run_id)
    assert (run.state, run.lease_owner) == (State.WAITING_CHILD, "")
    assert run.wake_at is not None
    assert Run.objects.filter(parent=run, state=State.QUEUED).count() == 2


def test_results_come_in_the_order_asked_whoever_is_first(cast: Cast, ask: Any) -> None:
    cast.parts = {
        "primary": hands("researcher", "writer"),
        "researcher": answers("facts"),
        "writer": answers("draft"),
    }
    turn = ask("go")
    runs.execute(turn.run_id)
    children = list(Run.objects.filter(parent_id=turn.run_id).order_by("-id"))

    for child in children:
        runs.execute(child.id)
    work()

    turn.refresh_from_db()
    assert turn.answer_text.index("facts") < turn.answer_text.index("draft")


def test_handoff_leaves_its_link_in_the_audit_log(cast: Cast, ask: Any) -> None:
    cast.parts = {"primary": hands("writer"), "writer": answers("draft")}
    turn = ask("go")

    work()

    events = Event.objects.of_trace(turn.trace_id).filter(subject_kind="handoff")
    assert [e.type for e in events.order_by("id")] == [
        "handoff.started",
        "handoff.finished",
    ]
    assert str(turn.id) in events[0].body


@pytest.mark.parametrize("name", ["coder2", "stranger", "primary"])
def test_target_that_is_not_allowed_is_refused_and_nobody_else_asked(
    cast: Cast, ask: Any, name: str
) -> None:
    cast.parts = {"primary": hands(name)}
    turn = ask("go")

    work()

    row = Handoff.objects.get()
    assert (row.target, row.state, row.reason) == (
        name,
        "refused",
        "scope_capability_denied",
    )
    assert Turn.objects.count() == 1
    assert Call.objects.get(kind="handoff").state == "denied"
    turn.refresh_from_db()
    assert "refused" in turn.answer_text


def test_inactive_target_is_refused_by_name(cast: Cast, ask: Any) -> None:
    cast.parts = {"primary": hands("writer")}
    turn = ask("go")
    AgentProfile.objects.filter(slug="writer").update(is_active=False)

    work()

    assert Handoff.objects.get().reason == "POLAR_NOT_FOUND"
    assert Turn.objects.filter(parent=turn).count() == 0


def test_direct_answer_becomes_the_parents_own(cast: Cast, ask: Any) -> None:
    cast.parts = {
        "primary": hands("writer", mode="direct"),
        "writer": answers("the draft"),
    }
    turn = ask("go")

    work()

    turn.refresh_from_db()
    assert turn.answer_text == "the draft"
    assert [name for name, _ in cast.asked] == ["primary", "writer"]


def test_answer_that_breaks_its_contract_is_a_typed_failure(
    cast: Cast, ask: Any
) -> None:
    part = {"expects": {"type": "object", "required": ["title"]}}
    cast.parts = {
        "primary": hands("writer", part=part),
        "writer": answers("no JSON here"),
    }
    turn = ask("go")

    work()

    row = Handoff.objects.get()
    assert (row.state, row.reason) == ("failed", "output_contract")
    turn.refresh_from_db()
    assert "output_contract" in turn.answer_text


def test_answer_that_keeps_its_contract_arrives_as_json(cast: Cast, ask: Any) -> None:
    part = {"expects": {"type": "object", "required": ["title"]}}
    cast.parts = {
        "primary": hands("writer", part=part),
        "writer": answers('```json\n{"title": "Ice"}\n```'),
    }
    turn = ask("go")

    work()

    turn.refresh_from_db()
    assert Handoff.objects.get().state == "succeeded"
    assert '{"title":"Ice"}' in turn.answer_text


def test_child_that_is_late_is_stopped_and_named(cast: Cast, ask: Any) -> None:
    cast.parts = {
        "primary": hands("researcher", "writer", deadlineSeconds=60),
        "researcher": answers("facts"),
        "writer": answers("never"),
    }
    turn = ask("go")
    runs.execute(turn.run_id)
    runs.execute(Run.objects.filter(parent_id=turn.run_id).order_by("id")[0].id)

    with clock.frozen(clock.now() + timedelta(seconds=61)):
        runs.tick()
        runs.execute(turn.run_id)

    turn.refresh_from_db()
    states = list(Handoff.objects.order_by("position").values_list("state", flat=True))
    assert states == ["succeeded", "late"]
    assert turn.state == TurnState.ANSWERED
    late = Handoff.objects.get(state="late").child
    assert late is not None and late.run.state == State.CANCELLED
    agents.close_orphans()
    late.refresh_from_db()
    assert late.state == TurnState.CANCELLED


def test_child_reaches_no_further_than_its_parent(cast: Cast, ask: Any) -> None:
    part = {"capabilities": ["polar/clock.now", "web/fetch"]}
    cast.parts = {
        "primary": hands("researcher", part=part),
        "researcher": answers("facts"),
    }
    turn = ask("go")

    work()

    row = Handoff.objects.get()
    assert row.child is not None
    assert reach.capabilities_of(row.child) == ["polar/clock.now"]
    assert row.adjustments == [
        {
            "field": "capabilities",
            "asked": "web/fetch",
            "given": "",
            "why": "the parent does not hold it",
        }
    ]
    assert turn.id == row.child.parent_id


def test_step_opened_twice_opens_no_second_child(cast: Cast, ask: Any) -> None:
    cast.parts = {"primary": hands("writer"), "writer": answers("draft")}
    turn = ask("go")
    runs.execute(turn.run_id)
    Run.objects.filter(id=turn.run_id).update(state=State.QUEUED)

    runs.execute(turn.run_id)

    assert Turn.objects.filter(parent=turn).count() == 1
    assert Call.objects.filter(kind="handoff").count() == 1


def test_share_of_money_is_not_exceeded(cast: Cast, ask: Any) -> None:
    cast.parts = {
        "primary": hands("writer", part={"budgetMicros": 100}),
        "writer": answers("draft"),
    }
    ask("go")

    work()

    asked = cast.requests[1].lineage
    assert (asked.agent, asked.allowance_micros) == ("writer", 100)


def mutual(breadth: int) -> Script:
    """Call the other one, several times at once, for ever."""
    count = iter(range(100_000))

    def script(request: Any) -> providers.Generated:
        other = {"primary": "researcher", "researcher": "primary"}
        target = other[request.lineage.agent]
        parts = [
            {"agent": target, "task": f"again {next(count)}"} for _ in range(breadth)
        ]
        call = ToolCall("h1", "handoff", {"mode": "fanout-fanin", "parts": parts})
        return says("", call)

    return script


@pytest.fixture
def circle(cast: Cast, primary: AgentProfile) -> Cast:
    AgentProfile.objects.filter(slug="researcher").update(
        allowed_handoff_targets=["primary"], max_depth=50
    )
    AgentProfile.objects.filter(slug="primary").update(max_depth=50)
    cast.parts = dict.fromkeys(("primary", "researcher"), mutual(3))
    Setting.load()
    return cast


def limit(**values: int) -> None:
    Setting.objects.update(
        **{"max_same_edge": 1000, "max_depth": 50, "max_turns_per_root": 1000} | values
    )


def test_endless_circle_is_cut_at_the_limit_of_turns(circle: Cast, ask: Any) -> None:
    limit(max_turns_per_root=50)
    turn = ask("loop")

    work()

    turn.refresh_from_db()
    assert len(circle.asked) == Turn.objects.count() == 50
    assert (turn.state, turn.reason) == (TurnState.TRUNCATED, "loop_guard")
    assert "loop guard cut this short" in turn.answer_text
    assert not Run.objects.unsettled().exists()


def test_endless_circle_is_cut_at_the_same_edge(circle: Cast, ask: Any) -> None:
    limit(max_same_edge=6)
    turn = ask("loop")

    work()

    turn.refresh_from_db()
    assert Counter(name for name, _ in circle.asked) == {"primary": 7, "researcher": 6}
    assert turn.reason == "loop_guard"


def test_endless_circle_is_cut_at_the_depth(circle: Cast, ask: Any) -> None:
    limit(max_depth=2)
    turn = ask("loop")

    work()

    assert Counter(depth for _, depth in circle.asked) == {0: 1, 1: 3, 2: 9}
    turn.refresh_from_db()
    assert turn.state == TurnState.TRUNCATED


def test_more_targets_than_the_fan_out_allows_are_refused(cast: Cast, ask: Any) -> None:
    cast.parts = {"primary": hands(*["writer"] * 9), "writer": answers("draft")}
    Setting.load()
    limit(max_same_call=1000)
    turn = ask("go")

    work()

    assert Handoff.objects.filter(state="refused").count() == 1
    turn.refresh_from_db()
    assert turn.reason == "loop_guard"


@pytest.mark.parametrize(
    ("names", "bounds", "both"),
    [
        (["polar/*"], ["polar/clock.now"], ["polar/clock.now"]),
        (["polar/clock.now"], ["polar/*", "web/*"], ["polar/clock.now"]),
        (["web/fetch"], ["polar/*"], []),
        (["polar"], ["polar/a", "polar/b"], ["polar/a", "polar/b"]),
        ([], ["polar/*"], []),
    ],
)
def test_narrowing_keeps_what_both_allow(
    names: list[str], bounds: list[str], both: list[str]
) -> None:
    assert reach.narrow(names, bounds) == both


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        {"mode": "delegate", "parts": []},
        {"mode": "shout", "parts": [{"agent": "writer", "task": "x"}]},
        {"mode": "delegate", "parts": [{"agent": "a", "task": "x"}] * 2},
        {
            "mode": "delegate",
            "parts": [
                {"agent": "a", "task": "x", "expects": {"$ref": "http://x.test/s"}}
            ],
        },
        {"mode": "delegate", "parts": [{"agent": "a", "task": "x", "scope": "all"}]},
    ],
)
def test_proposal_of_the_wrong_shape_is_told_to_the_model(arguments: Any) -> None:
    with pytest.raises(proposal.ToolCallInvalid):
        proposal.read(arguments)


def test_agent_without_targets_is_offered_no_handoff(
    cast: Cast, conversation: Conversation, ask: Any
) -> None:
    AgentProfile.objects.filter(slug="primary").update(allowed_handoff_targets=[])
    cast.parts = {"primary": answers("alone")}
    ask("go")

    work()

    assert "handoff" not in [tool.name for tool in cast.requests[0].tools]
    assert handoffs.targets_of(Turn.objects.get()) == []


def test_heat_map_counts_what_the_model_was_asked(circle: Cast, ask: Any) -> None:
    limit(max_turns_per_root=50)
    turn = ask("loop")
    work()

    drawn = recursion.of_root(root_id=turn.run_id, principal=turn.principal)

    assert drawn.depths == Counter(circle.asked)
    assert drawn.handoffs == 49
    assert drawn.refused > 0
    assert len(drawn.dots) == 50


def test_heat_map_of_a_stranger_is_empty(circle: Cast, ask: Any, charlie: User) -> None:
    limit(max_depth=1)
    turn = ask("loop")
    work()
    stranger = access.principal_for_user(user=charlie)

    assert recursion.of_window(hours=24, principal=stranger).turns == 0
    with pytest.raises(NotFound):
        recursion.of_root(root_id=turn.run_id, principal=stranger)


def test_heat_map_has_a_page_an_answer_and_a_command(
    circle: Cast, ask: Any, client: Client, alice: User, capsys: Any
) -> None:
    limit(max_depth=2)
    turn = ask("loop")
    work()
    client.force_login(alice)

    page = client.get("/recursion/", {"root": str(turn.run_id)})
    api = client.get("/api/v1/recursion", {"rootId": str(turn.run_id)})
    call_command("agents", "recursion", root=turn.run_id, json=True)

    assert b"13 turns in 1 tree" in page.content
    assert api.json()["turns"] == json.loads(capsys.readouterr().out)["turns"] == 13
    handoffs_ = client.get("/api/v1/handoffs").json()["items"]
    assert {each["state"] for each in handoffs_} == {"truncated", "refused"}


def test_children_of_a_cancelled_parent_are_stopped(cast: Cast, ask: Any) -> None:
    cast.parts = {"primary": hands("writer"), "writer": answers("never")}
    turn = ask("go")
    runs.execute(turn.run_id)

    runs.cancel(by=turn.principal, run_id=turn.run_id, reason="changed my mind")
    agents.close_orphans()
    agents.close_orphans()

    child = Turn.objects.get(parent=turn)
    assert (child.state, child.run.state) == (TurnState.CANCELLED, State.CANCELLED)
    assert [name for name, _ in cast.asked] == ["primary"]
