"""The run kind that lets a schedule talk to an agent.

Invariant: one run starts one turn, however often it is carried: the conversation
is named after the run, and a conversation that has its turn gets no second one.
"""

from typing import Any

from apps.access.models import Principal, Workspace
from apps.agents import services as agents
from apps.agents.models import AgentProfile
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
    Risk,
)
from apps.runs.models import Run
from apps.runs.ports import Finish, RunContext

KIND = "reliability.scheduled_turn"
CHANNEL = "schedule"


def start_scheduled_turn(ctx: RunContext) -> Finish:
    """Ask an agent what the schedule says, as the schedule's own principal.

    Raises: what the gateway raises, so a halt or a budget binds the schedule too.
    """
    run = Run.objects.select_related("principal", "workspace").get(id=ctx.run_id)
    principal, workspace = run.principal, run.workspace
    arguments = {"profile": ctx.payload["profile"], "text": ctx.payload["text"]}

    def perform(permit: Permit) -> Result:
        permit.spend(arguments, waits=False)
        return Result({"turnId": _start_once(ctx, principal, workspace, arguments)})

    outcome = gateway.call(
        CallRequest(
            kind=CallKind.AUTOMATION,
            capability=f"automation:{principal.key}",
            principal=principal,
            workspace_id=workspace.id,
            arguments=arguments,
            perform=perform,
            effect_class=EffectClass.INTERNAL,
            is_inside=True,
            risk=Risk("write", "internal"),
            lineage=Lineage(
                run_id=ctx.run_id,
                root_id=ctx.root_id,
                fence=ctx.fence,
                trace_id=ctx.trace_id,
            ),
        )
    )
    return Finish(result=outcome.output)


def _start_once(
    ctx: RunContext, principal: Principal, workspace: Workspace, said: dict[str, Any]
) -> str:
    conversation = agents.ensure_conversation(
        workspace=workspace,
        principal=principal,
        channel=CHANNEL,
        external_key=str(ctx.run_id),
        title=said["text"],
    )
    before = conversation.turns.order_by("created_at").first()
    turn = before or agents.start_turn(
        conversation=conversation,
        principal=principal,
        text=said["text"],
        profile=AgentProfile.objects.get(workspace=workspace, slug=said["profile"]),
        trigger="schedule",
        trace_id=ctx.trace_id,
        origin=ctx.origin,
    )
    return str(turn.id)
