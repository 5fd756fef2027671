"""One trace, drawn as bars on one line of time. Never writes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from apps.access.models import Principal
from apps.agents.models import (
    Step,
    StepKind,
    Turn,
)
from apps.common import clock
from apps.gateway import queries as gateway
from apps.gateway.models import Call
from apps.providers import queries as providers
from apps.providers.models import Attempt

#: A trace shows at most so many rows of each kind.
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the waterfall.

    Units: milliseconds from the beginning of the trace; micro-USD; tokens.
    """

    kind: str
    id: str
    parent_id: str
    label: str
    state: str
    began_at: datetime
    ended_at: datetime | None
    reason: str = ""
    lane: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    micros: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    depth: int = 0
    offset_ms: int = 0
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """Bars in the order in which they are drawn, and their sums."""

    trace_id: str
    began_at: datetime | None
    duration_ms: int
    micros: int
    turns: tuple[Turn, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read about one trace."""

    turns: list[Turn]
    steps: list[Step]
    calls: list[Call]
    attempts: list[Attempt]


def steps_of(turns: list[Turn]) -> dict[UUID, list[Step]]:
    """Return the journals of several turns with one query."""
    found: dict[UUID, list[Step]] = {turn.id: [] for turn in turns}
    for step in Step.objects.filter(turn__in=turns).order_by("turn_id", "seq"):
        found[step.turn_id].append(step)
    return found


def trace(*, trace_id: str, principal: Principal) -> Trace:
    """Join turns, steps, calls and route attempts of one trace.

    Reads: four queries, whatever the size. What the principal may not see is left
    out; a call or an attempt appears under the step that made it.
    """
    turns = list(
        Turn.objects.visible_to(principal)
        .filter(trace_id=trace_id)
        .select_related("profile", "conversation", "run", "principal")
        .order_by("created_at", "id")[:MOST_ROWS]
    )
    calls = list(gateway.calls_of_trace(trace_id, principal)[:MOST_ROWS])
    attempts = []
    if turns or calls:
        attempts = list(providers.attempts_of_trace(trace_id)[:MOST_ROWS])
    steps = [step for journal in steps_of(turns).values() for step in journal]
    return _draw(trace_id, Rows(turns, steps, calls, attempts))


def _draw(trace_id: str, rows: Rows) -> Trace:
    """Put a trace's rows into one tree and lay it out in time."""
    bars = [
        *map(_turn_bar, rows.turns),
        *map(_step_bar, rows.steps),
        *map(_call_bar, rows.calls),
        *map(_attempt_bar, rows.attempts),
    ]
    if not bars:
        return Trace(trace_id, None, 0, 0, (), ())
    began = min(bar.began_at for bar in bars)
    ended = max(bar.ended_at or clock.now() for bar in bars)
    laid = tuple(_laid_out(bars, began))
    return Trace(
        trace_id,
        began,
        _ms(began, ended),
        sum(call.micros for call in rows.calls),
        tuple(rows.turns),
        laid,
    )


def _laid_out(bars: list[Bar], began: datetime) -> Iterable[Bar]:
    known = {bar.id for bar in bars}
    below: dict[str, list[Bar]] = {}
    for bar in sorted(bars, key=lambda bar: (bar.began_at, bar.id)):
        below.setdefault(bar.parent_id if bar.parent_id in known else "", []).append(
            bar
        )
    waiting = [(bar, 0) for bar in reversed(below.get("", []))]
    while waiting:
        bar, depth = waiting.pop()
        yield _placed(bar, depth, began)
        waiting += [(each, depth + 1) for each in reversed(below.get(bar.id, []))]


def _placed(bar: Bar, depth: int, began: datetime) -> Bar:
    values = {name: getattr(bar, name) for name in Bar.__slots__}
    values |= {
        "depth": depth,
        "offset_ms": _ms(began, bar.began_at),
        "duration_ms": _ms(bar.began_at, bar.ended_at or clock.now()),
    }
    return Bar(**values)


def _turn_bar(turn: Turn) -> Bar:
    return Bar(
        kind="turn",
        id=str(turn.id),
        parent_id=str(turn.parent_id or ""),
        label=f"@{turn.profile.slug}",
        state=turn.state,
        reason=turn.reason,
        began_at=turn.started_at or turn.created_at,
        ended_at=turn.finished_at,
        lane=turn.lane,
        facts={
            "requestedLane": turn.requested_lane,
            "laneReason": turn.lane_reason,
            "servedBy": turn.served_by,
            "laneChange": turn.lane_change,
            "degraded": turn.degraded,
            "runId": str(turn.run_id),
            "runState": turn.run.state,
            "labels": turn.labels,
        },
    )


def _step_bar(step: Step) -> Bar:
    is_model = step.kind == StepKind.MODEL
    name = step.request.get("capability") or step.request.get("name", "")
    return Bar(
        kind="step",
        id=str(step.id),
        parent_id=str(step.turn_id),
        label=f"{step.seq}. {'model' if is_model else name}",
        state=step.state,
        reason=step.error_code,
        began_at=step.started_at or step.created_at,
        ended_at=step.finished_at,
        lane=step.result.get("lane", ""),
        tokens_in=int(step.result.get("tokens_in", 0)),
        tokens_out=int(step.result.get("tokens_out", 0)),
        micros=int(step.result.get("micros", 0)),
        facts={
            "stepKind": step.kind,
            "servedBy": step.result.get("served_by", ""),
            "routing": step.result.get("routing", {}),
        },
    )


def _call_bar(call: Call) -> Bar:
    return Bar(
        kind="call",
        id=str(call.id),
        parent_id=str(call.step_id or call.turn_id or ""),
        label=call.capability,
        state=call.state,
        reason=call.reason_code or call.error_code,
        began_at=call.started_at or call.created_at,
        ended_at=call.finished_at or (call.created_at if call.reason_code else None),
        lane=call.lane,
        tokens_in=call.tokens_in,
        tokens_out=call.tokens_out,
        micros=call.micros,
        facts={"callKind": call.kind, "stage": call.stage, **call.facts},
    )


def _attempt_bar(attempt: Attempt) -> Bar:
    """An attempt is written when it is over, so it began that much earlier."""
    ended = attempt.created_at
    return Bar(
        kind="attempt",
        id=str(attempt.id),
        parent_id=str(attempt.step_id or attempt.turn_id or ""),
        label=attempt.route_name,
        state="failed" if attempt.error_class else attempt.outcome,
        reason=attempt.reason or attempt.error_class,
        began_at=ended - timedelta(milliseconds=attempt.duration_ms),
        ended_at=ended,
        lane=attempt.lane,
        tokens_in=attempt.tokens_in,
        tokens_out=attempt.tokens_out,
        micros=attempt.micros,
        facts={
            "requestedLane": attempt.requested_lane,
            "laneReason": attempt.lane_reason,
            "callId": str(attempt.call_id or ""),
            "ttftMs": attempt.ttft_ms,
            "detail": attempt.detail,
        },
    )


def _ms(since: datetime, until: datetime) -> int:
    return max(round((until - since).total_seconds() * 1000), 0)
