"""What a model may propose when it hands over, and how the proposal is clamped.

Invariants: a target is taken as it was named or refused, never replaced; a child
gets no capability, time or money that its parent does not hold; whatever was asked
for and not given is written down.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from apps.agents.engine import reach
from apps.agents.errors import ToolCallInvalid
from apps.agents.models import AgentProfile, Mode, Turn
from apps.common import canonical, clock
from apps.common.errors import FieldProblem, Invalid
from apps.providers.ports import Tool

ALIAS = "handoff"
MOST_TARGETS = 32
LONGEST_TASK = 20_000
#: A contract that a model writes down stays small and looks nothing up.
LONGEST_CONTRACT = 8_000
FOREIGN_WORDS = frozenset({"$ref", "$dynamicRef", "pattern", "patternProperties"})
DEFAULT_SECONDS = 900
LONGEST_SECONDS = 3600
#: The parent keeps this much of its time to put things together. Units: per cent.
KEPT_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Part:
    """One target of a handoff, as it was asked for."""

    agent: str
    task: str
    input: dict[str, Any] = field(default_factory=dict)
    expects: dict[str, Any] = field(default_factory=dict)
    capabilities: tuple[str, ...] | None = None
    budget_micros: int | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A handoff as a model proposed it."""

    mode: str
    parts: tuple[Part, ...]
    deadline_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What a parent may still give away to one child. None is no limit."""

    seconds: float | None = None
    micros: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one child gets, and what it asked for and did not get."""

    scope: list[str]
    deadline_at: datetime
    budget_micros: int | None
    adjustments: list[dict[str, Any]]


def offer(targets: Iterable[AgentProfile]) -> Tool:
    """Describe the handoff as a tool that a model may ask for."""
    known = sorted(targets, key=lambda target: target.slug)
    about = "; ".join(f"{each.slug}: {each.description}" for each in known)
    schema = _schema({"enum": [each.slug for each in known]})
    text = (
        "Hand work to other agents and get their results back. direct: one agent's "
        "answer becomes yours. delegate: one agent, its result comes back to you. "
        "fanout-fanin: several work at the same time. `expects` is a JSON schema that "
        f"the result must match. Agents: {about}"
    )
    return Tool(ALIAS, text, schema)


def read(arguments: Any) -> Proposal:
    """Check a proposal's shape. Raises: ToolCallInvalid naming path and problem."""
    problems = list(_problems(arguments))
    if problems:
        raise ToolCallInvalid("This handoff is not valid.", fields=tuple(problems[:20]))
    parts = tuple(
        Part(
            agent=str(each["agent"]).removeprefix("@"),
            task=each["task"],
            input=each.get("input") or {},
            expects=each.get("expects") or {},
            capabilities=tuple(each["capabilities"])
            if each.get("capabilities") is not None
            else None,
            budget_micros=each.get("budgetMicros"),
        )
        for each in arguments["parts"]
    )
    if arguments["mode"] != Mode.FAN_OUT and len(parts) != 1:
        problem = FieldProblem("$.parts", "too many", "one, or mode fanout-fanin")
        raise ToolCallInvalid("This handoff is not valid.", fields=(problem,))
    return Proposal(arguments["mode"], parts, arguments.get("deadlineSeconds"))


def _schema(agent: dict[str, Any]) -> dict[str, Any]:
    part = {
        "agent": agent,
        "task": {"type": "string", "minLength": 1, "maxLength": LONGEST_TASK},
        "input": {"type": "object"},
        "expects": {"type": "object"},
        "capabilities": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
        "budgetMicros": {"type": "integer", "minimum": 0},
    }
    parts = {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_TARGETS,
        "items": {
            "type": "object",
            "properties": part,
            "required": ["agent", "task"],
            "additionalProperties": False,
        },
    }
    return {
        "type": "object",
        "properties": {
            "mode": {"enum": list(Mode.values)},
            "parts": parts,
            "deadlineSeconds": {"type": "integer", "minimum": 1},
        },
        "required": ["mode", "parts"],
        "additionalProperties": False,
    }


#: As offered, but any name may be asked for: the gateway refuses it by name.
_SHAPE = Draft202012Validator(
    _schema({"type": "string", "minLength": 1, "maxLength": 64})
)


def _problems(arguments: Any) -> Iterable[FieldProblem]:
    found = False
    for error in _SHAPE.iter_errors(arguments):
        found = True
        yield FieldProblem(error.json_path, error.message[:200], str(error.validator))
    if found:
        return
    for place, part in enumerate(arguments["parts"]):
        problem = _contract_problem(part.get("expects") or {})
        if problem:
            yield FieldProblem(f"$.parts[{place}].expects", problem, "a JSON schema")


def _contract_problem(schema: dict[str, Any]) -> str:
    text = canonical.arguments(schema)
    if len(text) > LONGEST_CONTRACT:
        return f"longer than {LONGEST_CONTRACT} characters"
    if any(f'"{word}":' in text for word in FOREIGN_WORDS):
        return f"uses one of {', '.join(sorted(FOREIGN_WORDS))}"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return error.message[:200]
    return ""


def clamp(
    turn: Turn, target: AgentProfile | None, part: Part, proposal: Proposal, left: Left
) -> Bounds:
    """Give a child no more than its parent holds; note what was not given."""
    notes: list[dict[str, Any]] = []
    held = reach.capabilities_of(turn)
    asked = held if part.capabilities is None else list(part.capabilities)
    granted = reach.narrow(asked, held)
    notes += [
        _note("capabilities", name, "", "the parent does not hold it")
        for name in asked
        if not any(reach.covers(each, name) for each in held)
    ]
    if target is not None and part.capabilities is not None:
        own = [str(name) for name in target.allowed_capabilities]
        notes += [
            _note("capabilities", name, "", f"@{target.slug} may not use it")
            for name in granted
            if not reach.narrow([name], own)
        ]
    seconds, clamped = _seconds(proposal.deadline_seconds, left.seconds)
    if clamped:
        notes.append(
            _note("deadlineSeconds", proposal.deadline_seconds, seconds, "time left")
        )
    budget = part.budget_micros
    if left.micros is not None and (budget is None or budget > left.micros):
        if budget is not None:
            notes.append(_note("budgetMicros", budget, left.micros, "money left"))
        budget = left.micros
    own_share = target.turn_budget_micros if target is not None else None
    if own_share is not None and (budget is None or budget > own_share):
        if part.budget_micros is not None:
            notes.append(_note("budgetMicros", budget, own_share, "the agent's share"))
        budget = own_share
    deadline = clock.now() + timedelta(seconds=seconds)
    return Bounds(granted, deadline, budget, notes)


def _seconds(asked: int | None, left: float | None) -> tuple[int, bool]:
    most = float(LONGEST_SECONDS)
    if left is not None:
        most = min(most, left * (100 - KEPT_PERCENT) / 100)
    given = max(min(float(asked or DEFAULT_SECONDS), most), 1.0)
    return int(given), asked is not None and given < asked


def _note(name: str, asked: Any, given: Any, why: str) -> dict[str, Any]:
    return {"field": name, "asked": asked, "given": given, "why": why}


_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n```\s*\Z", re.DOTALL)


def fulfil(text: str, expects: dict[str, Any]) -> tuple[Any, str]:
    """Hold an answer against its contract. Shape: (output, problem or "")."""
    if not expects:
        return text, "" if text.strip() else "the answer is empty"
    found = _FENCE.match(text)
    try:
        value = canonical.loads(found.group(1) if found else text)
    except Invalid:
        return text, "the answer is not JSON"
    error = next(iter(Draft202012Validator(expects).iter_errors(value)), None)
    if error is None:
        return value, ""
    return value, f"{error.json_path}: {error.message}"[:300]
