"""The built-in model follows its rules, and says what it is."""

from typing import Any

import pytest

from apps.providers import ports
from apps.providers.errors import CallCancelled, ModelCallFailed

CLOCK = ports.Tool(
    "polar__clock_now",
    "The time",
    {"type": "object", "properties": {"timezone": {"type": "string"}}},
)
SUMS = ports.Tool(
    "polar__calculator",
    "Sums",
    {"type": "object", "properties": {"expression": {}}, "required": ["expression"]},
)
SEARCH = ports.Tool(
    "polar__conversation_search", "Search", {"properties": {"query": {}}}
)
TOOLS = (CLOCK, SUMS, SEARCH)


class Spent:
    def spend(self, arguments: dict[str, Any], *, waits: bool = True) -> None:
        self.waits = waits


def ask(*messages: ports.Message, **options: Any) -> ports.Answer:
    rules = options.pop("rules", ())
    target = ports.Target("s", "scripted", "scripted", settings={"rules": rules})
    call = ports.ModelCall(target, "scripted", messages, TOOLS, **options)
    return ports.adapter_for("scripted").generate(Spent(), call, None)


def user(text: str) -> ports.Message:
    return ports.Message("user", text)


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("What time is it?", "polar__clock_now", {}),
        ("The time in Berlin?", "polar__clock_now", {"timezone": "Europe/Berlin"}),
        ("calculate 2+3 please", "polar__calculator", {"expression": "2+3"}),
        ("what is 4 x 5?", "polar__calculator", {"expression": "4 * 5"}),
        ("search for lemons", "polar__conversation_search", {"query": "lemons"}),
    ],
)
def test_a_question_for_a_tool_asks_for_it(
    text: str, tool: str, arguments: dict[str, Any]
) -> None:
    (call,) = ask(user(text)).tool_calls

    assert (call.name, call.arguments) == (tool, arguments)


def test_a_result_is_quoted() -> None:
    answer = ask(
        user("What time is it?"),
        ports.Message("assistant", tool_calls=(ports.ToolCall("1", "clock", {}),)),
        ports.Message("tool", '{"now": "12:00 UTC"}', tool_call_id="1"),
    )

    assert (answer.text, answer.tool_calls) == ("The tool answered: 12:00 UTC", ())


def test_anything_else_is_answered_honestly() -> None:
    assert "scripted model" in ask(user("Write a poem")).text


def test_text_streams_in_pieces() -> None:
    heard: list[str] = []
    answer = ask(user("Hello"), on_delta=heard.append)

    assert len(heard) > 1
    assert "".join(heard) == answer.text


def test_rules_come_first() -> None:
    rules = [
        {
            "match": "deploy",
            "tool": "clock",
            "arguments": {"a": 1},
            "reply": "{result}!",
        }
    ]
    asked = ask(user("please DEPLOY"), rules=rules)
    told = ask(user("please deploy"), ports.Message("tool", "done"), rules=rules)

    assert asked.tool_calls[0].name == "polar__clock_now"
    assert told.text == "done!"


def test_a_rule_may_fail_by_class() -> None:
    with pytest.raises(ModelCallFailed) as caught:
        ask(user("x"), rules=[{"match": "x", "error": "server_error"}])

    assert caught.value.error_class == "server_error"


def test_a_slow_rule_gives_way_to_a_stop() -> None:
    with pytest.raises(CallCancelled):
        ask(
            user("x"),
            rules=[{"match": "x", "reply": "y", "delay_seconds": 30}],
            stopping=lambda: True,
        )
