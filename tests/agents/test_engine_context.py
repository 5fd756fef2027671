"""Context: newest turns first, whole turns, within the budget; labels travel."""

from typing import Any

import pytest

from apps.access.models import Principal
from apps.agents import services as agents
from apps.agents.engine import context
from apps.agents.models import AgentProfile, Conversation, Step, StepKind, Turn
from apps.providers.errors import NoRouteAvailable
from tests.agents.conftest import FakeModel, FakeTools, asks, carry, says


@pytest.fixture
def talk(conversation: Conversation, operator: Principal, model: FakeModel) -> Any:
    """Say something and have it answered; returns the finished turn."""

    def say(text: str, *answers: Any, labels: tuple[str, ...] = ()) -> Turn:
        turn = agents.start_turn(
            conversation=conversation,
            principal=operator,
            text=text,
            trigger="message",
            labels=frozenset(labels),
        )
        model.answers = list(answers)
        carry(turn)
        return turn

    return say


def texts(request: Any) -> list[str]:
    return [message.text for message in request.messages[1:]]


def test_context_holds_earlier_turns_in_order(
    talk: Any, model: FakeModel, tools: FakeTools
) -> None:
    talk("one", says("first"))
    talk("two", says("second"))

    talk("three", says("third"))

    assert texts(model.requests[-1]) == ["one", "first", "two", "second", "three"]


def test_system_prompt_comes_first(
    talk: Any, model: FakeModel, tools: FakeTools, primary: AgentProfile
) -> None:
    talk("one", says("first"))

    assert model.requests[0].messages[0].role == "system"
    assert model.requests[0].messages[0].text == primary.system_prompt


def test_oldest_turn_is_left_out_whole_when_the_budget_is_spent(
    talk: Any, model: FakeModel, tools: FakeTools, primary: AgentProfile
) -> None:
    AgentProfile.objects.filter(id=primary.id).update(
        context_window_tokens=700, max_output_tokens=100, system_prompt="Be brief."
    )
    talk("old " * 100, says("long " * 600))
    talk("new", says("short"))

    talk("three", says("third"))

    assert texts(model.requests[-1]) == ["new", "short", "three"]


def test_estimate_bounds_by_bytes_rounded_up() -> None:
    assert context.estimate_tokens("abcde") == 2
    assert context.estimate_tokens("ééé") == 2


def test_old_tool_results_come_compactly(
    talk: Any, model: FakeModel, tools: FakeTools
) -> None:
    tools.results = {"web_fetch": "x" * 5000}
    talk("read it", says("", asks("web_fetch")), says("Read."))

    talk("and now?", says("Done."))

    result = next(m for m in model.requests[-1].messages if m.role == "tool")
    assert len(result.text) < context.OLD_RESULT_CHARACTERS + 60


def test_labels_of_earlier_turns_and_foreign_results_join(
    talk: Any, model: FakeModel, tools: FakeTools
) -> None:
    talk("mine", says("ok"), labels=("private",))

    turn = talk("read it", says("", asks("web_fetch")), says("Read."))

    assert model.requests[-1].labels == {"private", "untrusted"}
    assert turn.labels == ["private", "untrusted"]


def test_result_of_a_shipped_tool_is_not_foreign(
    talk: Any, model: FakeModel, tools: FakeTools
) -> None:
    turn = talk("time?", says("", asks("polar_clock")), says("Noon."))

    assert turn.labels == []


def test_tool_call_without_a_result_is_left_out() -> None:
    asked = Step(
        seq=1,
        kind=StepKind.MODEL,
        state="done",
        result={"text": "", "tool_calls": [asks("web_fetch").as_json()]},
    )
    started = Step(seq=2, kind=StepKind.TOOL, state="started", request={"id": "c1"})

    assert context.step_messages([asked, started]) == []


def test_turn_that_finished_later_stays_out_of_a_resumed_context(
    talk: Any,
    conversation: Conversation,
    operator: Principal,
    model: FakeModel,
    tools: FakeTools,
) -> None:
    parked = agents.start_turn(
        conversation=conversation, principal=operator, text="slow", trigger="message"
    )
    model.answers = [NoRouteAvailable("worker", ())]
    with pytest.raises(NoRouteAvailable):
        carry(parked)
    talk("quick", says("fast"))
    model.answers = [says("late")]

    carry(parked, fence=2)

    assert texts(model.requests[-1]) == ["slow"]
