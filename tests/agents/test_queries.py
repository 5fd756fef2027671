"""Reads: what a stranger asks for is not there; a trace is one tree."""

import pytest

from apps.access import services as access
from apps.access.models import Principal, User
from apps.agents import queries
from apps.agents.engine import search
from apps.agents.models import Conversation, Turn
from apps.common.errors import NotFound
from apps.extensions.errors import ToolValidationError
from apps.extensions.ports import ToolContext
from apps.gateway.ports import Lineage
from tests.agents.conftest import FakeModel, FakeTools, asks, carry, says


@pytest.fixture
def stranger(charlie: User) -> Principal:
    return access.principal_for_user(user=charlie)


@pytest.fixture
def answered(turn: Turn, model: FakeModel, tools: FakeTools) -> Turn:
    model.answers = [says("", asks("polar_clock")), says("It is noon in Paris.")]
    carry(turn)
    return turn


def look(conversation: Conversation, principal: Principal, text: str) -> list[str]:
    context = ToolContext(
        principal=principal,
        workspace_id=conversation.workspace_id,
        lineage=Lineage(session_id=str(conversation.id)),
        scope={},
    )
    return [hit["text"] for hit in search.search({"text": text}, context)["hits"]]


def test_conversations_of_another_workspace_are_not_listed(
    conversation: Conversation, operator: Principal, stranger: Principal
) -> None:
    seen = [
        list(queries.conversations(visible_to=principal))
        for principal in (operator, stranger)
    ]

    assert seen == [[conversation], []]


def test_stranger_finds_no_turn(turn: Turn, stranger: Principal) -> None:
    with pytest.raises(NotFound):
        queries.get_turn(turn_id=turn.id, principal=stranger)


def test_transcript_is_in_order(answered: Turn) -> None:
    assert list(queries.transcript(answered.conversation)) == [answered]


def test_trace_lays_steps_under_their_turn(answered: Turn, operator: Principal) -> None:
    trace = queries.trace(trace_id=answered.trace_id, principal=operator)

    assert [(bar.kind, bar.depth, bar.label) for bar in trace.bars] == [
        ("turn", 0, "@primary"),
        ("step", 1, "1. model"),
        ("step", 1, "2. polar/clock.now"),
        ("step", 1, "3. model"),
    ]


def test_trace_shows_a_stranger_nothing(answered: Turn, stranger: Principal) -> None:
    trace = queries.trace(trace_id=answered.trace_id, principal=stranger)

    assert trace.bars == ()


def test_search_finds_answers_of_its_conversation(
    answered: Turn, operator: Principal
) -> None:
    found = look(answered.conversation, operator, "paris")

    assert found == ["It is noon in Paris."]


def test_search_shows_a_stranger_nothing(answered: Turn, stranger: Principal) -> None:
    assert look(answered.conversation, stranger, "paris") == []


def test_search_for_nothing_is_refused(answered: Turn, operator: Principal) -> None:
    with pytest.raises(ToolValidationError):
        look(answered.conversation, operator, " ")
