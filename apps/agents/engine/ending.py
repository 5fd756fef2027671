"""How a turn ends: once, with its header, its event and its reply.

Invariant: state, header, event, reply run and the end of its stream are one
commit; a turn that is not open is never written again.
"""

from dataclasses import dataclass
from typing import Any

from apps.agents.engine.journal import storable
from apps.agents.models import (
    TURN,
    Delta,
    Step,
    StepState,
    Turn,
    TurnState,
)
from apps.audit import services as audit
from apps.common import clock, redaction, statements
from apps.common.errors import Fenced
from apps.runs import services as runs

EVENT_OF = {
    TurnState.ANSWERED: "turn.answered",
    TurnState.TRUNCATED: "turn.truncated",
    TurnState.FAILED: "turn.failed",
    TurnState.CANCELLED: "turn.cancelled",
}
SCRIPTED = "scripted"
#: Of a step whose tool ran without isolation.
ISOLATION = "isolation"


@dataclass(frozen=True, slots=True)
class Close:
    """What a turn comes to."""

    state: str
    text: str = ""
    reason: str = ""
    labels: tuple[str, ...] = ()
    replies: bool = True


def close_turn(turn: Turn, steps: list[Step], close: Close) -> None:
    """End a turn, inside the caller's transaction.

    Writes: Turn, Delta (deleted), an event, a run for the reply.
    Raises: Fenced when the turn is no longer open.
    """
    TURN.check(turn.state, close.state)
    served = _served(steps)
    values: dict[str, Any] = {
        "state": close.state,
        "reason": close.reason,
        "answer_text": storable(redaction.scrub(close.text)),
        "finished_at": clock.now(),
        "labels": sorted({*turn.labels, *close.labels}),
        "served_by": served.get("served_by", ""),
        "lane": served.get("lane", ""),
        "degraded": bool(served.get("degraded", False)),
        "lane_change": served.get("lane_change", "none"),
    }
    values["header"] = _header(turn, steps, values)
    where = {"id": turn.id, "state": TurnState.OPEN}
    lost = Fenced("This turn was ended by somebody else.")
    statements.update_one(Turn, where, values, otherwise=lost)
    for name, value in values.items():
        setattr(turn, name, value)
    statements.delete(Delta, {"turn": turn.id})
    if turn.reply_run_kind and close.replies:
        _enqueue_reply(turn)
    _record(turn)


def _served(steps: list[Step]) -> dict[str, Any]:
    """The newest model step names what served the turn."""
    for step in reversed(steps):
        if step.result.get("served_by"):
            return step.result
    return {}


def _header(turn: Turn, steps: list[Step], values: dict[str, Any]) -> dict[str, Any]:
    began = turn.started_at or turn.created_at
    duration = (values["finished_at"] - began).total_seconds() * 1000
    header = {
        "steps": len(steps),
        "failed": sum(step.state == StepState.FAILED for step in steps),
        "lane": values["lane"],
        "requestedLane": turn.requested_lane,
        "servedBy": values["served_by"],
        "degraded": values["degraded"],
        "laneChange": values["lane_change"],
        "micros": sum(int(step.result.get("micros", 0)) for step in steps),
        "durationMs": round(duration),
        "truncated": values["state"] == TurnState.TRUNCATED,
        "reason": values["reason"],
    }
    ways = [step.result["routing"] for step in steps if step.result.get("routing")]
    if ways:
        header["route"] = ways[-1]["decided"]
    if any(step.result.get(SCRIPTED) for step in steps):
        header[SCRIPTED] = True
    if any(step.result.get(ISOLATION) for step in steps):
        header[ISOLATION] = "degraded"
    return header


def _enqueue_reply(turn: Turn) -> None:
    runs.enqueue(
        kind=turn.reply_run_kind,
        payload={"turn_id": str(turn.id)},
        principal=turn.principal,
        workspace=turn.conversation.workspace,
        trace_id=turn.trace_id,
        origin=turn.run.origin,
    )


def _record(turn: Turn) -> None:
    audit.record(
        type=EVENT_OF[TurnState(turn.state)],
        actor=turn.principal.actor,
        subject=("turn", str(turn.id)),
        workspace_id=turn.conversation.workspace_id,
        run_id=turn.run_id,
        trace_id=turn.trace_id,
        decision=turn.state,
        reason=turn.reason,
        data={"agent": turn.profile.slug, "labels": turn.labels, **turn.header},
        payload={"answer": turn.answer_text},
    )
