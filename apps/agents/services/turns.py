"""Conversations and turns: begin, take in, watch, and close what was left open."""

from datetime import timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, Workspace
from apps.agents import policies, queries
from apps.agents.engine import automation, ending, handoffs, heartbeat, journal, lanes
from apps.agents.engine.beginning import RUN_KIND as RUN_KIND
from apps.agents.engine.beginning import record_started
from apps.agents.models import (
    AgentProfile,
    Conversation,
    Step,
    Turn,
    TurnState,
)
from apps.common import clock, ids, statements
from apps.common.errors import FieldProblem, Invalid, NotFound
from apps.common.failpoints import reach
from apps.runs import services as runs
from apps.runs.models import Run, State, Trigger
from apps.runs.ports import Outcome, RunContext

#: The channel of conversations that a schedule begins.
SCHEDULE_CHANNEL = "schedule"
#: Longer messages belong in a file.
LONGEST_MESSAGE = 200_000
#: A watching page renews this before it runs out.
WATCH_SECONDS = 15
#: How many turns one tick closes.
TICK_LIMIT = 200


def start_conversation(
    *,
    workspace: Workspace,
    principal: Principal,
    channel: str = "web",
    title: str = "",
    profile: AgentProfile | None = None,
) -> Conversation:
    """Begin a conversation, with an agent of its own or whichever is pinned."""
    return Conversation.objects.create(
        workspace=workspace,
        principal=principal,
        channel=channel,
        title=title[:200],
        profile=profile,
    )


def ensure_conversation(
    *,
    workspace: Workspace,
    principal: Principal,
    channel: str = "web",
    external_key: str = "",
    title: str = "",
) -> Conversation:
    """Return the conversation of an outside thread, making it at first use.

    Again: the same channel and key give the same row; without a key, a new one.
    """
    if not external_key:
        return start_conversation(
            workspace=workspace, principal=principal, channel=channel, title=title
        )
    values = {"principal": principal, "title": title[:200]}
    row, _ = Conversation.objects.get_or_create(
        workspace=workspace,
        channel=channel,
        external_key=external_key,
        defaults=values,
    )
    return row


class Arrival(TypedDict, total=False):
    """How a message came in, beyond who said what where."""

    trigger: str
    trace_id: str | None
    reply_run_kind: str
    labels: frozenset[str]
    origin: str
    #: The run that waits for this turn to end.
    parent_run: Run | None
    #: The caller says that this needs the lane of hard tasks.
    is_hard: bool


@transaction.atomic
def start_turn(
    *,
    conversation: Conversation,
    principal: Principal,
    text: str,
    profile: AgentProfile | None = None,
    **arrival: Unpack[Arrival],
) -> Turn:
    """Take a message in and queue the run that answers it.

    Writes: Turn, Run, Conversation.last_at, `turn.started`.
    Raises: NotFound, Denied, Invalid, PinBroken.
    """
    policies.check_may_speak(principal, conversation)
    _check_text(text := journal.storable(text))
    workspace = conversation.workspace
    chosen = (
        profile
        or queries.resolve_profile(
            workspace=workspace, principal=principal, conversation=conversation
        ).profile
    )
    trace_id = arrival.get("trace_id") or ids.current_trace_id() or ids.new_trace_id()
    turn_id = ids.new_id()
    trigger = arrival.get("trigger", "message")
    lane = lanes.choose(chosen, trigger, is_hard=arrival.get("is_hard", False))
    run = runs.enqueue(
        kind=RUN_KIND,
        payload={"turn_id": str(turn_id)},
        principal=principal,
        workspace=workspace,
        trigger=trigger,
        trace_id=trace_id,
        serial_key=f"conversation:{conversation.id}",
        origin=arrival.get("origin", "real"),
        parent=arrival.get("parent_run"),
    )
    turn = Turn(
        id=turn_id,
        conversation=conversation,
        run=run,
        profile=chosen,
        profile_version=chosen.version,
        principal=principal,
        trace_id=trace_id,
        message_text=text,
        labels=sorted(arrival.get("labels", ())),
        requested_lane=lane.lane,
        lane_reason=lane.reason,
        budget_micros=chosen.turn_budget_micros,
        reply_run_kind=arrival.get("reply_run_kind", ""),
    )
    statements.insert(turn)
    _touch(conversation, text)
    record_started(turn)
    reach("turn.started")
    return turn


def carry_automation(ctx: RunContext) -> Outcome:
    """Ask an agent what a schedule says: the handler of `agents.automation`."""
    return automation.carry(ctx, _begin_scheduled)


def carry_heartbeat(ctx: RunContext) -> Outcome:
    """Let an agent look after things: the handler of `agents.heartbeat`."""
    return heartbeat.carry(ctx, _begin_scheduled)


def _begin_scheduled(run: Run, profile: AgentProfile, text: str) -> Turn:
    """Start the one turn of a planned run, or find it.

    The conversation is named after the run, so a run starts no second turn.
    """
    conversation = ensure_conversation(
        workspace=run.workspace,
        principal=run.principal,
        channel=SCHEDULE_CHANNEL,
        external_key=str(run.id),
        title=text,
    )
    before: Turn | None = conversation.turns.order_by("created_at").first()
    return before or start_turn(
        conversation=conversation,
        principal=run.principal,
        text=text,
        profile=profile,
        trigger=Trigger.HEARTBEAT if run.kind == heartbeat.KIND else run.trigger,
        trace_id=run.trace_id,
        origin=run.origin,
        parent_run=run,
        reply_run_kind=automation.DELIVER_KIND if run.payload.get("deliverTo") else "",
    )


def watch_turn(*, turn_id: UUID, seconds: float = WATCH_SECONDS) -> bool:
    """Say that somebody looks, so deltas are written. Again: renews.

    Returns whether the turn is still open.
    """
    until = clock.now() + timedelta(seconds=seconds)
    return bool(Turn.objects.open().filter(id=turn_id).update(watched_until=until))


def close_orphans() -> int:
    """End open turns whose run was cancelled, dismissed or ended without them.

    Again: idempotent; each turn is closed by one conditional UPDATE.
    """
    over = [State.CANCELLED, State.DISMISSED, State.FAILED, State.TRUNCATED]
    found = Turn.objects.open().filter(run__state__in=over)
    found = found.select_related(
        "run", "conversation__workspace", "principal", "profile"
    )
    turns = list(found.order_by("created_at", "id")[:TICK_LIMIT])
    for turn in turns:
        _close_orphan(turn, turn.run)
    return len(turns)


@transaction.atomic
def _close_orphan(turn: Turn, run: Run) -> None:
    cancelled = run.state in (State.CANCELLED, State.DISMISSED)
    steps = list(Step.objects.filter(turn=turn).order_by("seq"))
    close = ending.Close(
        TurnState.CANCELLED if cancelled else TurnState.FAILED,
        reason=(run.reason or run.error_code or run.state)[:40],
        replies=not cancelled,
    )
    ending.close_turn(turn, steps, close)
    for child in Turn.objects.open().filter(parent=turn).order_by("id"):
        handoffs.stop(child, "parent_over")


def _check_text(text: str) -> None:
    if not text.strip():
        raise Invalid(
            "There is nothing to answer.",
            fields=(FieldProblem("text", "empty", "a message"),),
        )
    if len(text) > LONGEST_MESSAGE:
        problem = FieldProblem("text", "too long", f"at most {LONGEST_MESSAGE}")
        raise Invalid("This message is too long.", fields=(problem,))


def _touch(conversation: Conversation, text: str) -> None:
    values: dict[str, Any] = {"last_at": clock.now()}
    if not conversation.title:
        values["title"] = " ".join(text.split())[:80]
    gone = NotFound("This conversation is gone.")
    statements.update_one(Conversation, {"id": conversation.id}, values, otherwise=gone)
    for name, value in values.items():
        setattr(conversation, name, value)
