"""One question for several calls: what a person would be asked of, asked as a plan.

Hides: which calls of one answer a plan holds. Invariants: the gateway decides on
each call when it is made, plan or no plan; an approved plan answers for exactly
these calls of this turn; a rejected one refuses them all, and nothing else.
"""

from typing import Any
from uuid import UUID

from apps.agents.engine.reach import scope_of
from apps.agents.engine.requests import lineage
from apps.agents.models import Step, Turn
from apps.extensions import services as extensions
from apps.extensions.queries import ToolSpec
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    PlannedStep,
    Result,
    Risk,
)
from apps.runs.ports import RunContext

#: A call that is a question only; no profile has to allow asking.
EXTENSION, NAME = "polar", "plan"
CAPABILITY = f"{EXTENSION}/{NAME}"
#: One question is asked as it is.
FEWEST, MOST = 2, 50


def places(
    turn: Turn,
    line: Lineage,
    calls: list[dict[str, Any]],
    tools: dict[str, ToolSpec],
    labels: frozenset[str],
) -> list[int]:
    """Say which calls of one answer are asked together; none where fewer than two
    would ask."""
    wanted = [
        place
        for place, call in enumerate(calls)
        if call["name"] in tools and not _is_plain(tools[call["name"]])
    ]
    if len(wanted) < FEWEST:
        return []
    steps = _foreseen(turn, line, [calls[place] for place in wanted], labels)
    found = [place for place, step in zip(wanted, steps, strict=True) if step]
    return found[:MOST] if len(found) >= FEWEST else []


def request_of(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """What the step of a plan is to ask for. Shape: as of a tool call."""
    kept = [{"name": each["name"], "arguments": each["arguments"]} for each in calls]
    return {"id": "", "name": NAME, "arguments": {}, "calls": kept}


def ask(turn: Turn, step: Step, ctx: RunContext, labels: frozenset[str]) -> UUID | None:
    """Ask a person for a plan as a whole. Returns the call that asked, or None where
    nothing of it asks any more.

    Raises: ApprovalRequired until somebody has decided; CapabilityDenied when it was
    rejected, or expired.
    """
    line = lineage(turn, step, ctx)
    foreseen = _foreseen(turn, line, step.request["calls"], labels)
    steps = tuple(each for each in foreseen if each is not None)
    if not steps:
        return None
    arguments = {"calls": [each.capability for each in steps]}

    def perform(permit: Permit) -> Result:
        permit.spend(arguments, waits=False)
        return Result({"approved": len(steps)})

    outcome = gateway.call(
        CallRequest(
            kind=CallKind.TOOL,
            capability=CAPABILITY,
            principal=turn.principal,
            workspace_id=turn.conversation.workspace_id,
            arguments=arguments,
            perform=perform,
            effect_class=EffectClass.INTERNAL,
            risk=Risk("read"),
            lineage=line,
            scope={"allowed": {EXTENSION: [NAME]}},
            labels=labels,
            plan=steps,
        )
    )
    return outcome.call_id


def _is_plain(spec: ToolSpec) -> bool:
    """Tell whether a tool surely asks nobody."""
    reads = spec.risk_level == "read" and spec.side_effects == "none"
    return reads and spec.data_egress == "none"


def _foreseen(
    turn: Turn, line: Lineage, calls: list[dict[str, Any]], labels: frozenset[str]
) -> list[PlannedStep | None]:
    return extensions.foresee(
        requests=[
            extensions.ToolCallRequest(
                alias=str(call["name"]),
                arguments=call["arguments"],
                principal=turn.principal,
                workspace_id=turn.conversation.workspace_id,
                lineage=line,
                scope=scope_of(turn),
                labels=labels,
            )
            for call in calls
        ]
    )
