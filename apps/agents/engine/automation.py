"""Automations: a schedule that asks an agent, and an agent that asks for one.

Invariants: one run starts one turn, however often it is carried, and ends as that
turn ends; the gateway decides on every start, so halt, grant and budget bind it;
what an agent proposes is no schedule until a person approves it.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from apps.access.models import Workspace
from apps.agents.models import AgentProfile, Turn, TurnState
from apps.common.errors import FieldProblem, Invalid
from apps.common.units import whole_number
from apps.extensions.ports import NativeTool, ToolContext
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Estimate,
    Lineage,
    Permit,
    Result,
    Risk,
)
from apps.runs import services as runs
from apps.runs.models import Run, ScheduleKind
from apps.runs.ports import Finish, Outcome, Park, Planned, RunContext

KIND = "agents.automation"
#: In a payload: how long each run waits for somebody to reject it. Units: minutes.
REJECT_MINUTES = "rejectMinutes"
LONGEST_WINDOW = 1440
LONGEST_TEXT = 8_000
#: Who brings the answer to the chat that a schedule names: a name, as data.
DELIVER_KIND = "channels.deliver"
TARGET = re.compile(r"[a-z0-9][a-z0-9-]{0,39}:[-\w]{1,80}")
#: What starting a turn takes by itself.
NOTHING = Estimate()
#: Starts the run's one turn, or finds it.
Begin = Callable[[Run, AgentProfile, str], Turn]
#: How an ended turn ends the run that started it.
ENDS = {
    TurnState.ANSWERED: "succeeded",
    TurnState.TRUNCATED: "truncated",
    TurnState.CANCELLED: "failed",
    TurnState.FAILED: "failed",
}


def carry(ctx: RunContext, begin: Begin) -> Outcome:
    """Ask an agent what the schedule says; end when its turn has ended.

    Raises: what the gateway raises.   Again: the turn that was started goes on.
    """
    run = Run.objects.select_related("principal", "workspace").get(id=ctx.run_id)
    said = {"profile": ctx.payload["profile"], "text": ctx.payload["text"]}
    minutes = int(ctx.payload.get(REJECT_MINUTES) or 0)
    window = timedelta(minutes=minutes) if minutes else None
    return ask(ctx, run, said, begin, window=window)


def has_begun(run: Run) -> bool:
    """Tell whether a planned run has started its turn."""
    return Turn.objects.filter(run__parent_id=run.id).exists()


def ask(
    ctx: RunContext,
    run: Run,
    said: dict[str, str],
    begin: Begin,
    estimate: Estimate = NOTHING,
    window: timedelta | None = None,
) -> Outcome:
    """Start the run's turn through the gateway, and end when it has ended.

    With a window it starts by itself at its end, unless somebody rejects it in it.
    """

    def perform(permit: Permit) -> Result:
        permit.spend(said, waits=False)
        turn = begin(run, find_profile(said["profile"], run.workspace), said["text"])
        return Result({"turnId": str(turn.id)})

    outcome = gateway.call(
        CallRequest(
            kind=CallKind.AUTOMATION,
            capability=f"automation:{run.principal.key}",
            principal=run.principal,
            workspace_id=run.workspace_id,
            arguments=said,
            perform=perform,
            effect_class=EffectClass.INTERNAL,
            is_inside=True,
            risk=Risk("write", "internal"),
            estimate=estimate,
            reject_window=window,
            lineage=Lineage(
                run_id=run.id,
                root_id=run.root_id,
                agent=said["profile"],
                fence=ctx.fence,
                trace_id=run.trace_id,
            ),
        )
    )
    turn = Turn.objects.get(id=outcome.output["turnId"])
    if turn.state == TurnState.OPEN:
        return Park("waiting_child", waiting_on=f"turn:{turn.id}")
    return Finish(
        {"turn_id": str(turn.id), "state": turn.state},
        state=ENDS[TurnState(turn.state)],
        reason=turn.reason,
        error_code=turn.reason if turn.state == TurnState.FAILED else "",
    )


def check_payload(payload: dict[str, Any], workspace: Workspace) -> None:
    """Refuse what could not be asked. Raises: Invalid naming the field."""
    text = payload.get("text")
    if not isinstance(text, str) or not 0 < len(text.strip()) <= LONGEST_TEXT:
        expected = f"what to ask, up to {LONGEST_TEXT} characters"
        problem = FieldProblem("payload.text", "missing or too long", expected)
        raise Invalid("Say what the agent is asked.", fields=(problem,))
    if unknown := set(payload) - {"profile", "text", "deliverTo", REJECT_MINUTES}:
        problem = FieldProblem("payload", f"unknown: {', '.join(sorted(unknown))}")
        raise Invalid(
            f"An automation takes profile, text, deliverTo and {REJECT_MINUTES}.",
            fields=(problem,),
        )
    _check_window(payload.get(REJECT_MINUTES))
    target = payload.get("deliverTo", "")
    if not isinstance(target, str) or (target and not TARGET.fullmatch(target)):
        expected = "account:chat, such as telegram:-1001234; empty for none"
        problem = FieldProblem("payload.deliverTo", "no chat", expected)
        raise Invalid("This is no chat to tell the answer to.", fields=(problem,))
    find_profile(payload.get("profile"), workspace)


def _check_window(minutes: Any) -> None:
    """Empty, or a number of minutes, however a form or an agent writes it."""
    if minutes in ("", None):
        return
    count = None if isinstance(minutes, bool) else whole_number(str(minutes))
    if count is None or count > LONGEST_WINDOW:
        expected = f"minutes, at most {LONGEST_WINDOW}; empty starts at once"
        problem = FieldProblem(f"payload.{REJECT_MINUTES}", "no minutes", expected)
        raise Invalid("This is no time to reject it in.", fields=(problem,))


def find_profile(slug: Any, workspace: Workspace) -> AgentProfile:
    """Raises: Invalid."""
    found = AgentProfile.objects.active().filter(workspace=workspace, slug=str(slug))
    profile = found.first()
    if profile is None:
        problem = FieldProblem("payload.profile", "unknown", "the slug of an agent")
        raise Invalid(f"There is no active agent @{slug}.", fields=(problem,))
    return profile


PLANNED = Planned(
    kind=KIND,
    title="Ask an agent",
    fields=(
        ("profile", "Agent"),
        ("text", "What to ask"),
        ("deliverTo", "Chat that is told the answer (account:chat)"),
        (REJECT_MINUTES, "Minutes in which each run can be rejected; empty: none"),
    ),
    optional=frozenset({"deliverTo", REJECT_MINUTES}),
    check=check_payload,
)


def propose(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """Write down an automation for a person to decide on."""
    workspace = Workspace.objects.get(id=context.workspace_id)
    agent = context.lineage.agent
    proposal = runs.propose_automation(
        by=context.principal,
        workspace=workspace,
        agent=agent,
        slug=arguments["name"],
        body={
            "title": arguments["title"],
            "kind": arguments["kind"],
            "expression": arguments["expression"],
            "timezone": arguments.get("timezone", "UTC"),
            "run_kind": KIND,
            "payload": {
                "profile": arguments.get("agent") or agent,
                "text": arguments["text"],
            },
        },
    )
    draft = runs.try_out(schedule=runs.draft_of(proposal))
    return {
        "proposalId": str(proposal.id),
        "link": f"/schedules/proposals/{proposal.id}/",
        "when": draft.in_words,
        "next": [moment.isoformat() for moment in draft.moments],
        "state": "waits for a person to approve it; it does not run before that",
    }


def _text(longest: int, says: str) -> dict[str, Any]:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "description": says,
    }


PROPOSE = NativeTool(
    capability_id="automation.propose",
    title="Propose an automation",
    description=(
        "Propose that something is done on a schedule. Nothing is planned: a person"
        " decides. Put the link of the result into your answer."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "name": _text(63, "a short name of a-z, 0-9 and -"),
            "title": _text(160, "what it does, for the person who decides"),
            "kind": {"type": "string", "enum": list(ScheduleKind.values)},
            "expression": _text(
                400, "five cron fields, seconds, an ISO 8601 time, or an RRULE"
            ),
            "timezone": _text(64, "an IANA name such as Europe/Berlin"),
            "agent": _text(32, "who is asked; you, if left out"),
            "text": _text(LONGEST_TEXT, "what is asked each time"),
        },
        "required": ["name", "title", "kind", "expression", "text"],
        "additionalProperties": False,
    },
    fn=propose,
    risk=Risk("write", "internal"),
    effect_class=EffectClass.INTERNAL,
)
