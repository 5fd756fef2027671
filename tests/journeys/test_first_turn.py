"""A person asks what time it is; the scripted model uses a tool and answers."""

import pytest

from apps.access import services as access
from apps.access.models import Principal, User, Workspace
from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import Conversation, Turn, TurnState
from apps.audit.models import Event
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.runs import services as runs
from apps.runs.models import Run, State

pytestmark = pytest.mark.journey


@pytest.fixture
def operator(alice: User) -> Principal:
    return access.principal_for_user(user=alice)


@pytest.fixture
def installed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A fresh install on which nobody has entered a key."""
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin()
    providers.sync_from_env()
    agents.install_default_profiles(workspace=workspace, by=system)
    return workspace


def ask(installed: Workspace, operator: Principal, text: str) -> Turn:
    conversation = agents.start_conversation(workspace=installed, principal=operator)
    return say(conversation, operator, text)


def say(conversation: Conversation, operator: Principal, text: str) -> Turn:
    turn = agents.start_turn(
        conversation=conversation, principal=operator, text=text, trigger="message"
    )
    runs.execute(turn.run_id)
    turn.refresh_from_db()
    return turn


def test_first_question_is_answered_with_a_tool(
    installed: Workspace, operator: Principal
) -> None:
    turn = ask(installed, operator, "What time is it?")

    assert turn.state == TurnState.ANSWERED, Run.objects.get(id=turn.run_id).__dict__
    kinds = turn.steps.order_by("seq").values_list("kind", "state")
    assert list(kinds) == [("model", "done"), ("tool", "done"), ("model", "done")]
    assert Run.objects.get(id=turn.run_id).state == State.SUCCEEDED


def test_first_answer_is_labelled_as_scripted(
    installed: Workspace, operator: Principal
) -> None:
    turn = ask(installed, operator, "What time is it?")

    assert turn.header["scripted"] is True
    assert turn.header["servedBy"]


def test_first_turn_leaves_its_trail(installed: Workspace, operator: Principal) -> None:
    turn = ask(installed, operator, "What time is it?")

    types = set(Event.objects.filter(run_id=turn.run_id).values_list("type", flat=True))
    assert {"turn.started", "turn.answered", "run.finished"} <= types


def test_first_trace_joins_turn_steps_calls_and_attempts(
    installed: Workspace, operator: Principal
) -> None:
    turn = ask(installed, operator, "What time is it?")

    trace = agents_queries.trace(trace_id=turn.trace_id, principal=operator)

    shape = [(bar.kind, bar.depth) for bar in trace.bars]
    assert shape[:2] == [("turn", 0), ("step", 1)]
    assert {kind for kind, _ in shape} == {"turn", "step", "call", "attempt"}


def test_agent_finds_what_was_said_before(
    installed: Workspace, operator: Principal
) -> None:
    first = ask(installed, operator, "My bicycle is green.")

    turn = say(first.conversation, operator, "search this conversation for bicycle")

    found = turn.steps.filter(kind="tool").first()
    assert found is None or found.state == "done"
    assert turn.state == TurnState.ANSWERED
