"""The turn loop's words put into those of providers, extensions and the gateway."""

from apps.agents.engine.context import Context
from apps.agents.engine.reach import above_of, left_of, scope_of
from apps.agents.models import SafetyMode, Step, Turn
from apps.common import tracing
from apps.extensions import services as extensions
from apps.gateway.ports import Lineage
from apps.gateway.services import Outcome
from apps.providers import services as providers
from apps.providers.models import LaneReason
from apps.providers.ports import Tool
from apps.runs.ports import RunContext


def lineage(turn: Turn, step: Step, ctx: RunContext) -> Lineage:
    """Say where in the tree of work a call stands.

    The idempotency key is derived from run, seq, capability and arguments, so a
    resumed step meets its own call again.
    """
    above = above_of(turn)
    is_strict = turn.profile.safety_mode == SafetyMode.STRICT
    return Lineage(
        run_id=turn.run_id,
        turn_id=turn.id,
        step_id=step.id,
        root_id=ctx.root_id or turn.run_id,
        depth=turn.depth,
        agent=turn.profile.slug,
        session_id=str(turn.conversation_id),
        fence=ctx.fence,
        seq=str(step.seq),
        trace_id=turn.trace_id,
        allowance_micros=left_of(turn),
        ancestors=above.agents,
        answers_later=bool(turn.reply_run_kind),
        is_strict=is_strict or above.is_strict,
    )


def tools_of(turn: Turn) -> dict[str, extensions.ToolSpec]:
    """Return the tools a turn may ask for, by the alias that models see."""
    if not turn.profile.allowed_capabilities:
        return {}
    specs = extensions.tools_for(scope=scope_of(turn))
    return {spec.alias: spec for spec in specs}


def model_request(
    turn: Turn,
    step: Step,
    ctx: RunContext,
    context: Context,
    tools: tuple[Tool, ...],
) -> providers.GenerateRequest:
    """Ask for the next part of an answer."""
    profile = turn.profile
    return providers.GenerateRequest(
        lane=step.request.get("lane") or turn.requested_lane,
        lane_reason=step.request.get("why") or turn.lane_reason or LaneReason.PROFILE,
        pinned_model_id=profile.pinned_model_id,
        fallbacks=tuple(
            providers.Fallback(str(each["provider"]), str(each.get("model") or ""))
            for each in profile.fallbacks
        ),
        messages=context.messages,
        tools=tools,
        max_output_tokens=profile.max_output_tokens,
        principal=turn.principal,
        workspace_id=turn.conversation.workspace_id,
        lineage=lineage(turn, step, ctx),
        labels=context.labels,
        origin=ctx.origin,
        stopping=ctx.stopping,
    )


def run_tool(
    turn: Turn,
    step: Step,
    ctx: RunContext,
    labels: frozenset[str],
) -> Outcome:
    """Run one tool call through the gateway. Raises: what the gateway raises."""
    name = str(step.request["name"])
    with tracing.span(tracing.TOOL, name, trace_id=turn.trace_id):
        return extensions.execute_tool(
            alias=name,
            arguments=step.request["arguments"],
            principal=turn.principal,
            workspace_id=turn.conversation.workspace_id,
            lineage=lineage(turn, step, ctx),
            scope=scope_of(turn),
            labels=labels,
        )
