"""A server lets its model say anything: the turn goes on, and its money is right.

Everything is real here but the server: wire, gateway, tools and turn. Each kind of
nonsense comes with the first answer; the second is as it should be.
"""

import json
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.agents import services as agents
from apps.agents.models import Turn, TurnState
from apps.extensions import services as extensions
from apps.gateway.models import Budget, Call
from apps.providers.models import UsageRow
from apps.runs import services as runs
from tests.fakes.openai_server import REPLY, FakeOpenAI, delta, openai_server, tool_call
from tests.providers import builders

CLOCK = "polar__clock_now"
HALF = "\ud800"
pytestmark = [
    pytest.mark.django_db,
    # The vendors' libraries warn of usage that they cannot read.
    pytest.mark.filterwarnings("ignore:Failed to extract usage"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


def calls(*asked: dict[str, Any]) -> list[Any]:
    return [delta(tool_calls=list(asked)), delta(finish="tool_calls")]


def used(tokens_in: Any, tokens_out: Any, **more: Any) -> list[Any]:
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, **more}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return [delta("Five words of an answer"), delta(finish="stop")] + [
        {**head, "choices": [], "usage": {**usage, "total_tokens": 1}}
    ]


def cached(tokens: int) -> dict[str, Any]:
    return {"prompt_tokens_details": {"cached_tokens": tokens}}


NONSENSE = {
    "name with half a character": calls(tool_call(f"a{HALF}", "{}")),
    "name with NUL": calls(tool_call("a\0b", "{}")),
    "no name": calls(tool_call("", "{}")),
    "long name": calls(tool_call("n" * 3_000, "{}")),
    "number for a name": calls(tool_call(7, "{}")),
    "half a character": calls(tool_call(CLOCK, json.dumps({"timezone": HALF}))),
    "NUL": calls(tool_call(CLOCK, '{"timezone": "\\u0000"}')),
    "no JSON": calls(tool_call(CLOCK, '{"timezone": ')),
    "a list": calls(tool_call(CLOCK, "[1]")),
    "not a number": calls(tool_call(CLOCK, '{"a": NaN}')),
    "infinity": calls(tool_call(CLOCK, '{"a": 1e999}')),
    "deep": calls(tool_call(CLOCK, '{"a":' * 150 + "1" + "}" * 150)),
    "very deep": calls(tool_call(CLOCK, '{"a":' * 900 + "1" + "}" * 900)),
    "huge number": calls(tool_call(CLOCK, '{"a": ' + "9" * 5_000 + "}")),
    "long id": calls(tool_call(CLOCK, "{}", "i" * 50_000)),
    "no id": calls(tool_call(CLOCK, "{}", None)),
    "no choices": [{**delta(), "choices": None}],
    "no object": [[1, 2], "x"],
}


@pytest.fixture
def server(workspace: Workspace) -> Any:
    builders.ready(workspace)
    extensions.sync_shipped_plugin()
    system = access.system_principal()
    agents.install_default_profiles(by=system, workspace=workspace)
    for unit in ("micros", "tokens"):
        Budget.objects.create(scope="global", unit=unit, window="day", limit=10**9)
    with openai_server("raw") as found:
        builders.route("worker", "bad", found.url)
        yield found


def ask(workspace: Workspace, alice: User) -> Turn:
    person = alice.principal
    talk = agents.start_conversation(workspace=workspace, principal=person)
    turn = agents.start_turn(conversation=talk, principal=person, text="Time?")
    runs.execute(turn.run_id)
    turn.refresh_from_db()
    return turn


def check_money() -> None:
    """Nothing stays set aside, and what is booked is what the calls took."""
    taken = sum(Call.objects.filter(kind="model").values_list("micros", flat=True))
    purses = {each.unit: each for each in Budget.objects.all()}
    assert {each.reserved for each in purses.values()} == {0}
    assert purses["micros"].spent == taken > 0
    assert not any(each.blocked_at for each in purses.values())


@pytest.mark.parametrize("said", NONSENSE)
def test_nonsense_is_told_or_asked_again_and_the_turn_is_answered(
    server: FakeOpenAI, workspace: Workspace, alice: User, said: str
) -> None:
    server.chunks = NONSENSE[said]

    turn = ask(workspace, alice)

    assert (turn.state, turn.answer_text) == (TurnState.ANSWERED, REPLY)
    assert len(server.requests) == 2
    check_money()


USAGE = {
    "negative": used(-(10**6), -(10**6)),
    "beyond any column": used(10**30, 10**30),
    "beyond a column": used(10**18, 10**18),
    "fractions": used(1.5, 2.5),
    "words": used("1", "many"),
    "less than nothing cached": used(10, 5, **cached(-(10**9))),
    "nothing": used(0, 0),
}


@pytest.mark.parametrize("said", USAGE)
def test_usage_that_cannot_be_is_counted_here(
    server: FakeOpenAI, workspace: Workspace, alice: User, said: str
) -> None:
    server.chunks = USAGE[said]

    turn = ask(workspace, alice)

    assert turn.answer_text == "Five words of an answer"
    row = UsageRow.objects.get()
    assert 0 < row.tokens_out < 100 and 0 < row.tokens_in < 10_000
    check_money()


def test_more_cached_than_sent_is_no_more_than_was_sent(
    server: FakeOpenAI, workspace: Workspace, alice: User
) -> None:
    server.chunks = used(10, 5, **cached(10**9))

    ask(workspace, alice)

    row = UsageRow.objects.get()
    assert (row.tokens_in, row.cached, row.tokens_out) == (10, 10, 5)


def test_character_that_was_cut_in_two_is_whole_again(
    server: FakeOpenAI, workspace: Workspace, alice: User
) -> None:
    server.chunks = [delta("a\ud83d"), delta(f"\ude00{HALF}"), delta(finish="stop")]

    turn = ask(workspace, alice)

    assert turn.answer_text == "a\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"


def test_two_calls_of_one_id_each_get_their_own_result(
    server: FakeOpenAI, workspace: Workspace, alice: User
) -> None:
    zones = ["Asia/Tokyo", "Asia/Kolkata"]
    server.chunks = calls(
        *(
            tool_call(CLOCK, json.dumps({"timezone": zone}), "same", at)
            for at, zone in enumerate(zones)
        )
    )

    ask(workspace, alice)

    *_, asked, first, second = server.requests[1]["messages"]
    ids = [each["id"] for each in asked["tool_calls"]]
    assert len(set(ids)) == 2
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert [zone for zone in zones if zone in first["content"]] == zones[:1]
    assert [zone for zone in zones if zone in second["content"]] == zones[1:]


def test_call_without_a_name_is_no_call_of_what_was_offered(
    server: FakeOpenAI, workspace: Workspace, alice: User
) -> None:
    server.chunks = calls(tool_call("", "{}"))

    ask(workspace, alice)

    assert not Call.objects.filter(kind="tool").exists()
    assert "There is no tool 'unnamed'" in server.requests[1]["messages"][-1]["content"]


def test_arguments_that_are_no_object_run_nothing(
    server: FakeOpenAI, workspace: Workspace, alice: User
) -> None:
    """Not even a tool whose schema would take anything."""
    server.chunks = calls(tool_call(CLOCK, "everything!"))

    ask(workspace, alice)

    assert not Call.objects.filter(kind="tool").exists()
    told = server.requests[1]["messages"][-1]["content"]
    assert "must be a JSON object" in told
