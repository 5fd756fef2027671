"""Which way a turn goes: the model proposes through a schema, code decides.

Hides: the weighing of a proposal. Invariants: what was proposed, what was decided
and every veto are kept with the step that asked; a person is asked one short
question at most, and only where a person is there; routing takes nothing from the
gateway, which decides each effect as ever.
Source: docs/decisions/0028-routing-is-weighed-in-code.md
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jsonschema import Draft202012Validator

from apps.agents.errors import ToolCallInvalid
from apps.agents.models import AgentProfile
from apps.common.errors import FieldProblem
from apps.providers.ports import Tool

ALIAS: Final = "route"
RESPOND, TOOL, PLAN, DELEGATE, CLARIFY = (
    "respond",
    "tool",
    "plan",
    "delegate",
    "clarify",
)
ROUTES: Final = (RESPOND, TOOL, PLAN, DELEGATE, CLARIFY)
LONGEST_QUESTION: Final = 300
MOST_STEPS: Final = 20

#: What a profile may set otherwise. Units: percent of confidence; points of risk.
DEFAULTS: Final[Mapping[str, Any]] = {
    "explicit": True,
    "clarifyBelow": 40,
    "planAbove": 100,
    "askAbove": 200,
}
WEIGHTS: Final[Mapping[str, int]] = {
    "read": 5,
    "write": 25,
    "destructive": 60,
    "unknown": 60,
    "network": 15,
    "handoff": 10,
    "untrusted": 20,
}
NOT_SURE: Final = "I am not sure what you want me to do. Can you put it another way?"


@dataclass(frozen=True, slots=True)
class Settings:
    """The thresholds and weights of one profile."""

    explicit: bool
    clarify_below: int
    plan_above: int
    ask_above: int
    weights: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a model said of its own way. Units: percent."""

    route: str
    confidence: int | None = None
    question: str = ""
    steps: tuple[str, ...] = ()
    is_hard: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """One tool call or handoff that the model asks for."""

    name: str
    is_handoff: bool = False
    risk_level: str = "unknown"
    data_egress: str = "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What code knows when it decides."""

    wanted: tuple[Wanted, ...] = ()
    proposal: Proposal | None = None
    is_offered: bool = False
    has_tools: bool = False
    has_targets: bool = False
    is_untrusted: bool = False
    may_ask: bool = False
    asked_before: bool = False
    has_plan: bool = False

    @property
    def natural(self) -> str:
        """The way that an answer takes by what it holds."""
        if any(each.is_handoff for each in self.wanted):
            return DELEGATE
        return TOOL if self.wanted else RESPOND


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a proposal. `vetoes` say what code took from it, and why."""

    proposed: str
    decided: str
    risk: int = 0
    vetoes: tuple[str, ...] = ()
    question: str = ""
    proposal: Proposal | None = field(default=None, repr=False)

    @property
    def goes_on(self) -> bool:
        """Tell whether what was asked for is carried out now."""
        return self.decided != CLARIFY and "plan_first" not in self.vetoes

    def as_json(self) -> dict[str, Any]:
        """Shape: what is worth keeping, as JSON."""
        told: dict[str, Any] = {"proposed": self.proposed, "decided": self.decided}
        told |= {"risk": self.risk} if self.risk else {}
        told |= {"vetoes": list(self.vetoes)} if self.vetoes else {}
        told |= {"question": self.question} if self.question else {}
        if (said := self.proposal) is not None:
            told |= {"explicit": True, "confidence": said.confidence}
            told |= {"steps": list(said.steps)} if said.steps else {}
            told |= {"hard": True} if said.is_hard else {}
        return told


def settings_of(profile: AgentProfile) -> Settings:
    """Return what a profile says, over what is shipped."""
    said = {**DEFAULTS, **profile.routing}
    return Settings(
        explicit=bool(said["explicit"]),
        clarify_below=int(said["clarifyBelow"]),
        plan_above=int(said["planAbove"]),
        ask_above=int(said["askAbove"]),
        weights={**WEIGHTS, **profile.routing.get("weights", {})},
    )


def problems(said: Any) -> Iterator[FieldProblem]:
    """Hold a profile's routing against its shape."""
    for error in _SETTINGS.iter_errors(said):
        path = error.json_path.replace("$", "routing")
        yield FieldProblem(path, error.message[:200], str(error.validator_value)[:200])


def decide(settings: Settings, facts: Facts) -> Decision:
    """Weigh a proposal: ask, demand a plan, or let it go its way.

    1. Unsure, or too much at once: ask, if a person is there and was not asked
    just before. 2. Much at once without a plan: a plan first. 3. Else as proposed,
    where that way exists.
    """
    said, risk = facts.proposal, weigh(settings, facts)
    proposed = said.route if said is not None else facts.natural
    vetoes: list[str] = []
    if _would_ask(settings, facts, risk, vetoes):
        if facts.may_ask and not facts.asked_before:
            question = _question(facts, vetoes)
            return Decision(proposed, CLARIFY, risk, tuple(vetoes), question, said)
        vetoes.append("already_asked" if facts.may_ask else "nobody_to_ask")
    if _needs_plan(settings, facts, risk):
        vetoes.append("plan_first")
        return Decision(proposed, PLAN, risk, tuple(vetoes), "", said)
    decided = facts.natural if facts.wanted or proposed == CLARIFY else proposed
    if decided == TOOL and not facts.has_tools:
        decided = RESPOND
        vetoes.append("no_tool_offered")
    if decided == DELEGATE and not facts.has_targets:
        decided = RESPOND
        vetoes.append("no_target_offered")
    return Decision(proposed, decided, risk, tuple(vetoes), "", said)


def weigh(settings: Settings, facts: Facts) -> int:
    """Add up the risk of what is wanted. Units: points."""
    weights, risk = settings.weights, 0
    for each in facts.wanted:
        if each.is_handoff:
            risk += weights["handoff"]
            continue
        risk += weights.get(each.risk_level, weights["unknown"])
        risk += weights["network"] if each.data_egress == "network" else 0
    untrusted = weights["untrusted"] if facts.is_untrusted else 0
    return risk + untrusted if facts.wanted else 0


def _would_ask(settings: Settings, facts: Facts, risk: int, vetoes: list[str]) -> bool:
    said = facts.proposal
    if said is not None and said.route == CLARIFY:
        return True
    sure = said.confidence if said is not None else None
    if sure is not None and sure < settings.clarify_below:
        vetoes.append("unsure")
        return True
    if risk >= settings.ask_above:
        vetoes.append("too_risky")
        return True
    return False


def _needs_plan(settings: Settings, facts: Facts, risk: int) -> bool:
    """A plan can be demanded only of a model that is offered a way to make one."""
    said = facts.proposal
    brings = said is not None and said.route == PLAN and bool(said.steps)
    return (
        facts.is_offered
        and bool(facts.wanted)
        and risk >= settings.plan_above
        and not (facts.has_plan or brings)
    )


def _question(facts: Facts, vetoes: list[str]) -> str:
    """One question, short, whoever worded it."""
    if "too_risky" in vetoes:
        names = ", ".join(dict.fromkeys(each.name for each in facts.wanted))
        return _short(f"This would use {names} at once. Shall I go ahead")
    said = facts.proposal
    return _short(said.question) if said is not None and said.question else NOT_SURE


def _short(text: str) -> str:
    first, mark, _ = " ".join(text.split()).partition("?")
    return f"{first[: LONGEST_QUESTION - 1]}{mark or '?'}"


# --- the schema


_STEP = {"type": "string", "minLength": 1, "maxLength": 300}
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "route": {"enum": list(ROUTES)},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "question": {"type": "string", "maxLength": 1000},
        "steps": {"type": "array", "items": _STEP, "maxItems": MOST_STEPS},
        "hard": {"type": "boolean"},
    },
    "required": ["route"],
    "additionalProperties": False,
}
_SHAPE: Final = Draft202012Validator(SCHEMA)
_PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
_POINTS = {"type": "integer", "minimum": 0, "maximum": 10_000}
_SETTINGS: Final = Draft202012Validator(
    {
        "type": "object",
        "properties": {
            "explicit": {"type": "boolean"},
            "clarifyBelow": _PERCENT,
            "planAbove": _POINTS,
            "askAbove": _POINTS,
            "weights": {
                "type": "object",
                "properties": dict.fromkeys(WEIGHTS, _POINTS),
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
    }
)
TOOL_OFFERED: Final = Tool(
    ALIAS,
    "Say which way you take, with the calls it needs or alone. respond: answer now. "
    "tool: use tools. plan: list the steps before acting; needed before much is "
    "changed at once. delegate: hand over. clarify: ask the person one short "
    "question when you can not know what is meant. confidence is how sure you are "
    "that this is what the person wants; hard says the task needs a stronger model.",
    SCHEMA,
)


def read(arguments: Any) -> Proposal:
    """Check a proposal's shape. Raises: ToolCallInvalid naming path and problem."""
    errors = list(_SHAPE.iter_errors(arguments))
    if errors:
        fields = tuple(
            FieldProblem(each.json_path, each.message[:200], str(each.validator))
            for each in errors[:20]
        )
        raise ToolCallInvalid("This route is not valid.", fields=fields)
    sure = arguments.get("confidence")
    return Proposal(
        route=arguments["route"],
        confidence=None if sure is None else round(sure * 100),
        question=arguments.get("question", "").strip(),
        steps=tuple(arguments.get("steps", ())),
        is_hard=arguments.get("hard", False),
    )


def find(calls: list[dict[str, Any]]) -> Proposal | None:
    """Return what a model's first valid route says, or None."""
    for call in calls:
        if call["name"] != ALIAS:
            continue
        try:
            return read(call["arguments"])
        except ToolCallInvalid:
            continue
    return None


def told(routing: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is told of the decision."""
    notes = [NOTES[veto] for veto in routing.get("vetoes", ()) if veto in NOTES]
    return {"decided": routing.get("decided", RESPOND), "notes": notes}


NOTES: Final[Mapping[str, str]] = {
    "already_asked": "You asked just before: go on with what you know.",
    "nobody_to_ask": "Nobody is there to ask: go on with what you know.",
    "plan_first": "Nothing was run: call route with plan and its steps first.",
    "no_tool_offered": "No tool is offered here: answer.",
    "no_target_offered": "No agent may be asked from here: answer.",
}
