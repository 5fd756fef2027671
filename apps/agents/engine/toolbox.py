"""What a turn may ask for, and what each of its askings is."""

from typing import Any

from apps.agents.engine import handoffs, proposal, requests, routing, together
from apps.agents.engine.context import Past
from apps.agents.engine.journal import Journal
from apps.agents.errors import RouteVetoed, ToolCallInvalid
from apps.agents.models import Step, StepKind, Turn
from apps.audit import services as audit
from apps.gateway.ports import UNTRUSTED
from apps.providers.ports import NOT_JSON, Tool
from apps.runs.models import Trigger
from apps.runs.ports import RunContext

#: Behind these stands a person who can be asked something.
PERSONAL = frozenset({Trigger.MESSAGE, Trigger.API})


class Toolbox:
    """The tools, the agents and the ways that one turn is offered."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.tools = requests.tools_of(turn)
        self.targets = handoffs.targets_of(turn)
        self.settings = routing.settings_of(turn.profile)
        #: A model without tools is not made to need one.
        self.has_routes = self.settings.explicit and bool(self.tools or self.targets)

    def offered(self) -> tuple[Tool, ...]:
        offered = [Tool(s.alias, s.description, s.schema) for s in self.tools.values()]
        if self.targets:
            offered.append(proposal.offer(self.targets))
        if self.has_routes:
            offered.append(routing.TOOL_OFFERED)
        return tuple(offered)

    def kind(self, call: dict[str, Any]) -> str:
        """A handoff that was not offered is an unknown tool like any other."""
        if self.targets and call["name"] == proposal.ALIAS:
            return StepKind.HANDOFF
        is_route = self.has_routes and call["name"] == routing.ALIAS
        return StepKind.ROUTE if is_route else StepKind.TOOL

    def capability(self, call: dict[str, Any]) -> str:
        spec = self.tools.get(str(call["name"]))
        return str(spec.capability) if spec else ""

    def check(self, step: Step) -> None:
        """Refuse what was vetoed, not offered, or has the wrong shape."""
        if step.request.get("vetoed"):
            raise RouteVetoed(routing.NOTES[step.request["vetoed"]])
        if step.kind != StepKind.TOOL:
            return
        if step.request["name"] not in self.tools:
            offered = ", ".join(sorted(self.tools)) or "none"
            raise ToolCallInvalid(
                f"There is no tool {step.request['name']!r}; offered: {offered}."
            )
        arguments = step.request["arguments"]
        if not isinstance(arguments, dict) or set(arguments) == {NOT_JSON}:
            raise ToolCallInvalid("Tool arguments must be a JSON object.")

    def effects(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the calls that do something beyond saying a way."""
        return [call for call in calls if self.kind(call) != StepKind.ROUTE]

    def decide(
        self,
        calls: list[dict[str, Any]],
        journal: Journal,
        past: Past,
        labels: frozenset[str],
    ) -> routing.Decision:
        """Weigh what a model asks for."""
        planned = (s.result.get("routing", {}).get("steps") for s in journal.steps)
        before = past.turns[-1].header.get("route") if past.turns else ""
        facts = routing.Facts(
            wanted=tuple(self._wanted(call) for call in self.effects(calls)),
            proposal=routing.find(calls) if self.has_routes else None,
            is_offered=self.has_routes,
            has_tools=bool(self.tools),
            has_targets=bool(self.targets),
            is_untrusted=UNTRUSTED in labels,
            may_ask=self.turn.parent_id is None and self.turn.run.trigger in PERSONAL,
            asked_before=before == routing.CLARIFY,
            has_plan=any(planned),
        )
        return routing.decide(self.settings, facts)

    def _wanted(self, call: dict[str, Any]) -> routing.Wanted:
        name = str(call["name"])
        if self.kind(call) == StepKind.HANDOFF:
            return routing.Wanted(name, is_handoff=True)
        spec = self.tools.get(name)
        if spec is None:
            return routing.Wanted(name)
        return routing.Wanted(
            spec.title or name, False, spec.risk_level, spec.data_egress
        )

    def asked_together(
        self,
        step: Step,
        ctx: RunContext,
        calls: list[dict[str, Any]],
        labels: frozenset[str],
    ) -> list[int]:
        """Say which of an answer's calls a person is asked of at once."""
        if len(calls) < together.FEWEST:
            return []
        line = requests.lineage(self.turn, step, ctx)
        return together.places(self.turn, line, calls, self.tools, labels)

    def steps_of(self, said: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """What one answer asks for, step by step; what asks a person, asked first."""
        vetoes = said.get("routing", {}).get("vetoes", [])
        wanted = [self.request_of(call, vetoes) for call in said["tool_calls"]]
        steps = [(self.kind(call), call) for call in wanted]
        if asked := [wanted[place] for place in said.get("together", [])]:
            for call in asked:
                call["planned"] = True
            steps.insert(0, (StepKind.PLAN, together.request_of(asked)))
        return steps

    def request_of(self, call: dict[str, Any], vetoes: list[str]) -> dict[str, Any]:
        """Write down what a step is to do, and whether it may."""
        vetoed = "plan_first" in vetoes and self.kind(call) != StepKind.ROUTE
        request = call | {"capability": self.capability(call)}
        return request | {"vetoed": "plan_first"} if vetoed else request


def record(turn: Turn, decision: routing.Decision) -> None:
    """Write the event of a decision that somebody made: a proposal or a veto."""
    if decision.proposal is None and not decision.vetoes:
        return
    said = decision.as_json()
    audit.record(
        type="turn.routed",
        actor=turn.principal.actor,
        subject=("turn", str(turn.id)),
        workspace_id=turn.conversation.workspace_id,
        run_id=turn.run_id,
        trace_id=turn.trace_id,
        decision=decision.decided,
        reason=", ".join(decision.vetoes),
        data={
            "agent": turn.profile.slug,
            "proposed": decision.proposed,
            "decided": decision.decided,
            "risk": decision.risk,
            "vetoes": list(decision.vetoes),
            "confidence": said.get("confidence"),
            "hard": said.get("hard", False),
        },
    )
