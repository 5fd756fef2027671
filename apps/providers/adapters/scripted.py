"""The built-in model: deterministic, rule-driven, without network or cost.

Rules of `Provider.settings["rules"]` come first, in order, each an object
{"match", "reply", "tool", "arguments", "delay_seconds", "error"}; `match` is a
regular expression on the last user message, `error` an error class to fail with.
Then: after tool results an answer that quotes them; "research and write about X"
handed to the agents that are offered; a question for the time, a sum, a search; and
else a short text saying what this is. It never pretends.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from zoneinfo import available_timezones

from apps.common import clock, failpoints
from apps.common.redaction import SecretStr
from apps.providers.errors import CallCancelled, ModelCallFailed
from apps.providers.ports import (
    Answer,
    EmbedCall,
    Message,
    ModelCall,
    Spendable,
    Target,
    TokenUsage,
    Tool,
    ToolCall,
    arguments_of,
    list_arguments,
)

MODEL_NAME: Final = "scripted"
CHUNK_CHARACTERS: Final = 24
WHAT_I_AM: Final = (
    "I am Polar's built-in scripted model: no AI provider is connected yet, so I "
    "follow fixed rules. I can tell the time, calculate, and search this "
    "conversation. Connect a provider to get real answers."
)
_TIME: Final = re.compile(r"\b(time|clock|date today|what day)\b", re.IGNORECASE)
_SUM: Final = re.compile(r"-?\d+(?:\.\d+)?(?:\s*[-+*/×x]\s*-?\d+(?:\.\d+)?)+")
_JOB: Final = re.compile(
    r"\bresearch\b.*\bwrite\b(?:\s+(?:about|on))?\s+(.+)", re.IGNORECASE | re.DOTALL
)
_SEARCH: Final = re.compile(
    r"\b(?:search(?: for)?|remember|recall|find)\b[:\s]*(.*)", re.IGNORECASE
)


class ScriptedAdapter:
    """Answers by rule."""

    def generate(
        self, permit: Spendable, call: ModelCall, key: SecretStr | None
    ) -> Answer:
        failpoints.reach("model.before_spend")
        rule = _rule(call)
        delay = float(rule.get("delay_seconds") or 0)
        permit.spend(arguments_of(call), waits=delay > 0)
        failpoints.reach("model.in_flight")
        _wait(delay, call)
        if rule.get("error"):
            raise ModelCallFailed(str(rule["error"]), "the script says so")
        answer = _answer(call, rule)
        if call.on_delta is not None:
            for start in range(0, len(answer.text), CHUNK_CHARACTERS):
                call.on_delta(answer.text[start : start + CHUNK_CHARACTERS])
        failpoints.reach("model.answered")
        return answer

    def list_models(
        self, permit: Spendable, target: Target, key: SecretStr | None
    ) -> list[str]:
        permit.spend(list_arguments(target))
        return [MODEL_NAME]

    def embed(
        self, permit: Spendable, call: EmbedCall, key: SecretStr | None
    ) -> tuple[list[list[float]], TokenUsage]:
        raise ModelCallFailed("bad_response", "the scripted model embeds nothing")

    def probe(self, permit: Spendable, target: Target) -> list[str] | None:
        permit.spend(list_arguments(target))
        return [MODEL_NAME]


def _rule(call: ModelCall) -> Mapping[str, Any]:
    asked = _last_user_text(call.messages)
    rules = call.target.settings.get("rules") or ()
    for rule in rules:
        if re.search(str(rule.get("match", "")), asked, re.IGNORECASE):
            found: Mapping[str, Any] = rule
            return found
    return {}


def _wait(seconds: float, call: ModelCall) -> None:
    """Sleep in short pieces, so that a stopping worker is not held up."""
    end = clock.monotonic() + seconds
    while seconds > 0 and (left := end - clock.monotonic()) > 0:
        if call.stopping is not None and call.stopping():
            raise CallCancelled()
        clock.sleep(min(left, 0.25))


def _answer(call: ModelCall, rule: Mapping[str, Any]) -> Answer:
    results = _results(call.messages)
    tool_call = None if results else _tool_call(call, rule)
    if tool_call is not None:
        return _build(call, "", (tool_call,))
    if rule.get("reply"):
        return _build(call, str(rule["reply"]).replace("{result}", results))
    return _build(call, f"The tool answered: {results}" if results else WHAT_I_AM)


def _build(call: ModelCall, text: str, calls: tuple[ToolCall, ...] = ()) -> Answer:
    sent = sum(len(message.text) for message in call.messages)
    usage = TokenUsage(sent // 4 + 1, len(text) // 4 + 1, counted=True)
    finish = "tool_call" if calls else "stop"
    return Answer(text=text, tool_calls=calls, usage=usage, finish=finish)


def _last_user_text(messages: tuple[Message, ...]) -> str:
    return next((m.text for m in reversed(messages) if m.role == "user"), "")


def _results(messages: tuple[Message, ...]) -> str:
    """Return what tools answered since the user last spoke."""
    found = []
    for message in reversed(messages):
        if message.role == "user":
            break
        if message.role == "tool":
            found.append(_readable(message.text))
    return "; ".join(reversed(found))


def _readable(text: str) -> str:
    """Show a one-member JSON object as its value, anything else as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, list):
        return "\n".join(_told(each) for each in value)
    if isinstance(value, dict) and len(value) == 1:
        return str(next(iter(value.values())))
    return text


def _told(result: Any) -> str:
    """Show what one agent brought back, or how it failed."""
    if not isinstance(result, dict) or "agent" not in result:
        return str(result)
    failed = (result.get("error") or {}).get("detail", "")
    said = result.get("output") or result.get("partial") or failed
    return f"@{result['agent']} ({result.get('status', '')}): {said}"


def _tool_call(call: ModelCall, rule: Mapping[str, Any]) -> ToolCall | None:
    call_id = f"scripted-{len(call.messages)}"
    if rule.get("tool"):
        tool = _tool(call.tools, str(rule["tool"]))
        name = tool.name if tool else str(rule["tool"])
        return ToolCall(call_id, name, dict(rule.get("arguments") or {}))
    if rule:
        return None
    asked = _last_user_text(call.messages)
    if (job := _job(call.tools, asked)) is not None:
        return ToolCall(call_id, "handoff", job)
    for pattern, words, group in (
        (_SUM, ("calculat",), 0),
        (_TIME, ("clock",), None),
        (_SEARCH, ("conversation", "search"), 1),
    ):
        found = pattern.search(asked)
        tool = _tool(call.tools, *words) if found else None
        if found and tool is not None:
            said = (
                _zone(asked)
                if group is None
                else found.group(group).strip(" ?.!") or asked
            )
            return ToolCall(call_id, tool.name, _arguments(tool, said))
    return None


def _job(tools: tuple[Tool, ...], asked: str) -> dict[str, Any] | None:
    """Hand "research and write about X" to a researcher and a writer."""
    found = _JOB.search(asked)
    offered = next((tool for tool in tools if tool.name == "handoff"), None)
    if found is None or offered is None:
        return None
    named = offered.schema["properties"]["parts"]["items"]["properties"]["agent"]
    topic = found.group(1).strip(" .!?")[:200]
    tasks = {
        "researcher": f"Search for {topic}",
        "writer": f"Draft a line about {topic} and say the time in UTC.",
    }
    parts = [
        {"agent": agent, "task": task}
        for agent, task in tasks.items()
        if agent in named["enum"]
    ]
    return {"mode": "fanout-fanin", "parts": parts} if parts else None


def _zone(asked: str) -> str:
    """Return the time zone whose city is named, or ""."""
    words = f" {re.sub(r'[^a-z ]', ' ', asked.lower())} "
    return next((zone for city, zone in _cities() if f" {city} " in words), "")


@lru_cache(maxsize=1)
def _cities() -> tuple[tuple[str, str], ...]:
    """Shape: ("new york", "America/New_York"), longest names first."""
    zones = (zone for zone in available_timezones() if "/" in zone)
    named = {
        zone.rpartition("/")[2].replace("_", " ").lower(): zone
        for zone in sorted(zones)
        if not zone.startswith("Etc/")
    }
    return tuple(sorted(named.items(), key=lambda item: (-len(item[0]), item[0])))


def _tool(tools: tuple[Tool, ...], *words: str) -> Tool | None:
    """Find a tool by name: all words first, then any of them."""
    for joined in (all, any):
        for tool in tools:
            if joined(word in tool.name.lower() for word in words):
                return tool
    return None


def _arguments(tool: Tool, said: str) -> dict[str, Any]:
    """Put what was said into the tool's first text argument."""
    properties = tool.schema.get("properties") or {}
    required = tool.schema.get("required") or list(properties)
    if not said or not required:
        return {}
    return {
        str(required[0]): said.replace("×", "*").replace("x", "*")
        if "calculat" in tool.name.lower()
        else said
    }
