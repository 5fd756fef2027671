"""Several calls that ask are asked as one plan; a strict agent asks for everything."""

from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.agents import services as agents
from apps.agents.models import AgentProfile, StepKind, Turn
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.gateway.models import ApprovalRequest, Call, PlanStep
from apps.gateway.ports import CallKind
from apps.runs import services as runs
from apps.runs.models import Run
from tests.agents.conftest import FakeModel, asks, says
from tests.extensions.conftest import ada, content_store, orders, runtime

__all__ = ["ada", "content_store", "orders", "runtime"]
FIND, CANCEL, KEEP = "orders__find", "orders__cancel", "polar__memory_remember"


@pytest.fixture
def agent(workspace: Workspace, orders: Any) -> AgentProfile:
    """An agent whose two tools write outside, so that each of them asks."""
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin()
    agents.install_default_profiles(workspace=workspace, by=system)
    orders.capabilities.update(
        risk_level="write", side_effects="external", effect_class="keyed"
    )
    AgentProfile.objects.update(routing={"explicit": False, "askAbove": 10_000})
    reach = {"allowed_capabilities": ["orders/*", "polar/*"]}
    AgentProfile.objects.filter(slug__in=["primary", "writer"]).update(**reach)
    return AgentProfile.objects.get(slug="primary")


@pytest.fixture
def turn(agent: AgentProfile, workspace: Workspace, alice: User) -> Turn:
    talk = agents.start_conversation(workspace=workspace, principal=alice.principal)
    return agents.start_turn(
        conversation=talk, principal=alice.principal, text="Order both."
    )


def carry(turn: Turn) -> Turn:
    runs.execute(turn.run_id)
    turn.refresh_from_db()
    return turn


def two(*names: str) -> Any:
    named = names or (FIND, CANCEL)
    return says("", *(asks(n, f"c{at}", id=str(at)) for at, n in enumerate(named)))


def answer(by: User, *, approve: bool = True) -> None:
    asked = ApprovalRequest.objects.get(state="pending")
    gateway.decide_approval(
        by=by.principal, approval_id=asked.id, approve=approve, reason="looked"
    )


def ran(runtime: Any) -> list[str]:
    return [target.name for target in runtime.targets]


def test_two_calls_that_ask_are_one_question(
    turn: Turn, model: FakeModel, runtime: Any, bob: User
) -> None:
    model.answers = [two(), says("Both are ordered.")]

    carry(turn)
    assert Run.objects.get(id=turn.run_id).state == "waiting_approval"
    steps = PlanStep.objects.values_list("capability", "arguments")
    assert list(steps) == [
        ("orders/find", '{"id":"0"}'),
        ("orders/cancel", '{"id":"1"}'),
    ]
    answer(bob)
    carry(turn)

    assert turn.answer_text == "Both are ordered."
    assert ran(runtime) == ["find", "cancel"]
    assert ApprovalRequest.objects.count() == 1
    roles = [message.role for message in model.requests[1].messages]
    assert roles[-3:] == ["assistant", "tool", "tool"]


def test_rejected_plan_runs_none_of_its_calls_and_is_told(
    turn: Turn, model: FakeModel, runtime: Any, bob: User
) -> None:
    model.answers = [two(FIND, CANCEL, KEEP), says("I left it.")]
    model.answers[0].tool_calls[2].arguments.clear()
    model.answers[0].tool_calls[2].arguments["text"] = "Wants both."

    carry(turn)
    answer(bob, approve=False)
    carry(turn)

    assert turn.answer_text == "I left it."
    assert ran(runtime) == []
    told = [m.text for m in model.requests[1].messages if m.role == "tool"]
    assert all("bob rejected this: looked" in text for text in told[:2])
    # What the plan did not hold goes its own way.
    assert '"scope":"session"' in told[2]
    assert ApprovalRequest.objects.count() == 1


def test_one_call_is_asked_as_itself(turn: Turn, model: FakeModel) -> None:
    model.answers = [two(FIND)]

    carry(turn)

    assert not turn.steps.filter(kind=StepKind.PLAN).exists()
    assert ApprovalRequest.objects.get().call.capability == "orders/find"


def test_what_is_granted_is_in_no_plan(
    turn: Turn, model: FakeModel, runtime: Any, bob: User
) -> None:
    gateway.make_grant(
        by=bob.principal,
        new=gateway.NewGrant(
            kind=CallKind.TOOL, capabilities=("orders/find",), reason="usual"
        ),
    )
    model.answers = [two(FIND, CANCEL)]

    carry(turn)

    assert ran(runtime) == ["find"]
    assert ApprovalRequest.objects.get().call.capability == "orders/cancel"


def test_destructive_call_is_in_no_plan(
    turn: Turn, model: FakeModel, orders: Any
) -> None:
    orders.capabilities.filter(capability_id="cancel").update(risk_level="destructive")
    model.answers = [two(CANCEL, FIND, FIND)]
    model.answers[0].tool_calls[2].arguments["id"] = "3"

    carry(turn)

    plan = ApprovalRequest.objects.get()
    steps = plan.plan_steps.values_list("capability", flat=True)
    assert list(steps) == ["orders/find", "orders/find"]


def test_plan_is_for_its_exact_calls(
    turn: Turn, model: FakeModel, runtime: Any, bob: User
) -> None:
    model.answers = [two(), says("", asks(FIND, "c9", id="another"))]

    carry(turn)
    answer(bob)
    carry(turn)

    assert ran(runtime) == ["find", "cancel"]
    assert ApprovalRequest.objects.get(state="pending").call.capability == "orders/find"


def test_turn_killed_while_it_waits_asks_no_second_time(
    turn: Turn, model: FakeModel, runtime: Any, bob: User
) -> None:
    model.answers = [two(), says("Done.")]
    carry(turn)
    Run.objects.filter(id=turn.run_id).update(state="queued", waiting_on="")

    carry(turn)
    answer(bob)
    carry(turn)

    assert (turn.answer_text, ran(runtime)) == ("Done.", ["find", "cancel"])
    assert ApprovalRequest.objects.count() == 1


class TestStrict:
    """Of a profile in the safety mode `strict`."""

    @pytest.fixture(autouse=True)
    def _strict(self, agent: AgentProfile) -> None:
        AgentProfile.objects.filter(id=agent.id).update(safety_mode="strict")

    def test_a_write_inside_asks(self, turn: Turn, model: FakeModel) -> None:
        model.answers = [says("", asks(KEEP, text="Likes tea."))]

        carry(turn)

        asked = ApprovalRequest.objects.get()
        assert asked.call.facts["asks"] == ["strict"]
        assert asked.call.capability == "polar/memory.remember"

    def test_a_standing_grant_does_not_answer(
        self, turn: Turn, model: FakeModel, runtime: Any, bob: User
    ) -> None:
        gateway.make_grant(
            by=bob.principal,
            new=gateway.NewGrant(
                kind=CallKind.TOOL, capabilities=("orders/*",), reason="usual"
            ),
        )
        model.answers = [two(FIND)]

        carry(turn)

        assert ran(runtime) == []
        facts = ApprovalRequest.objects.get().call.facts
        assert facts["asks"] == ["external_write", "strict"]

    def test_reading_asks_nobody(self, turn: Turn, model: FakeModel) -> None:
        model.answers = [says("", asks("polar__clock_now")), says("Noon.")]

        assert carry(turn).answer_text == "Noon."

    def test_a_plan_answers(
        self, turn: Turn, model: FakeModel, runtime: Any, bob: User
    ) -> None:
        model.answers = [two(), says("Done.")]

        carry(turn)
        answer(bob)
        carry(turn)

        assert (turn.answer_text, ran(runtime)) == ("Done.", ["find", "cancel"])

    def test_it_binds_who_works_for_it(
        self, turn: Turn, model: FakeModel, runtime: Any
    ) -> None:
        part = {"agent": "writer", "task": "Write it down."}
        model.answers = [
            says("", asks("handoff", mode="delegate", parts=[part])),
            says("", asks(KEEP, text="Likes tea.")),
        ]

        carry(turn)
        child = Turn.objects.get(parent=turn)
        carry(child)

        assert Run.objects.get(id=child.run_id).state == "waiting_approval"
        call = Call.objects.get(capability="polar/memory.remember")
        assert (call.agent, call.facts["asks"]) == ("writer", ["strict"])
