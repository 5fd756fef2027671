"""One trace as rows with a start and an end, and where each bar is drawn.

Hides: how turns, steps, route attempts, calls and approvals join into one list, and
how long waits are cut out. Invariants: a bar's length is true; a stretch in which
nothing worked, if it would squash the rest, has a fixed width and says so.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from apps.access.models import Principal
from apps.agents.engine.scale import PAUSE_WIDTH, Scale, quiet
from apps.agents.models import Handoff, Step, StepKind, Turn, TurnState
from apps.common import clock
from apps.common.errors import ApprovalRequired, NotFound
from apps.gateway.models import (
    ApprovalRequest,
    ApprovalState,
    Call,
    CallKind,
    CallState,
)
from apps.providers.models import Attempt, LaneReason, Outcome
from apps.runs.models import Run

ICONS: dict[str, str] = {CallKind.MESSAGE: "deliver", CallKind.HANDOFF: "handoff"}


@dataclass(kw_only=True)
class Bar:
    """One row of the waterfall."""

    key: str
    icon: str
    title: str
    about: str = ""
    depth: int = 0
    start: datetime
    end: datetime
    style: str = "bar-span"
    tone: str = ""
    note: str = ""
    tokens: str = ""
    micros: int | None = None
    call_id: UUID | None = None
    is_work: bool = True
    is_open: bool = False
    x: float = 0.0
    width: float = 0.0

    @property
    def indent(self) -> int:
        """Deeper rows than this stand no further to the right."""
        return min(self.depth, 5)

    @property
    def seconds(self) -> float:
        return max(0.0, (self.end - self.start).total_seconds())

    @property
    def reaches_far(self) -> bool:
        """To its right there is no room for a note."""
        return self.x + self.width > 62

    @property
    def note_before(self) -> bool:
        """The note stands left of bars that end near the right edge, where there
        is room for it."""
        return self.reaches_far and self.x > 25

    @property
    def note_x(self) -> float:
        if self.note_before:
            return self.x - 0.8
        # A bar that fills the figure carries its note inside.
        return self.x + (1.6 if self.reaches_far else self.width + 0.8)


@dataclass
class Pause:
    x: float
    width: float
    seconds: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass
class Trace:
    """Everything one trace page shows."""

    trace_id: str
    runs: list[Run]
    turns: list[Turn]
    calls: list[Call]
    bars: list[Bar] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    ticks: list[tuple[float, str]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return any(turn.state == TurnState.OPEN for turn in self.turns)

    @property
    def took(self) -> float:
        bars = self.bars
        if not bars:
            return 0.0
        start, end = min(bar.start for bar in bars), max(bar.end for bar in bars)
        return (end - start).total_seconds()

    def find_call(self, call_id: UUID | None) -> Call | None:
        return next((call for call in self.calls if call.id == call_id), None)


def read_trace(trace_id: str, principal: Principal) -> Trace:
    """Read one trace as far as the principal may see it. Raises: NotFound."""
    runs = list(Run.objects.visible_to(principal).filter(trace_id=trace_id))
    turns = Turn.objects.visible_to(principal).filter(trace_id=trace_id)
    turns = turns.select_related("profile", "conversation", "principal", "run")
    calls = Call.objects.visible_to(principal).filter(trace_id=trace_id).order_by("id")
    trace = Trace(trace_id, runs, list(turns.order_by("id")), list(calls))
    if not (trace.runs or trace.turns or trace.calls):
        raise NotFound("There is no such trace, or it is not yours to see.")
    trace.bars = _Rows(trace).bars()
    _place(trace)
    return trace


class _Rows:
    """Joins the rows of one trace in the order in which they happened."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.now = clock.now()
        self.calls = {call.id: call for call in trace.calls}
        self.by_step: dict[UUID, list[Call]] = defaultdict(list)
        for call in trace.calls:
            if call.step_id:
                self.by_step[call.step_id].append(call)
        self.attempts: dict[UUID, list[Attempt]] = defaultdict(list)
        for attempt in Attempt.objects.filter(trace_id=trace.trace_id).order_by("id"):
            if attempt.step_id:
                self.attempts[attempt.step_id].append(attempt)
        self.approvals = {
            asked.call_id: asked
            for asked in ApprovalRequest.objects.filter(call__in=trace.calls)
        }
        self.steps: dict[UUID, list[Step]] = defaultdict(list)
        for step in Step.objects.filter(turn__in=trace.turns).order_by("seq"):
            self.steps[step.turn_id].append(step)
        self.below: dict[UUID, Turn] = {}
        turns = {turn.id: turn for turn in trace.turns}
        for row in Handoff.objects.filter(child__in=trace.turns):
            if row.call_id and row.child_id in turns:
                self.below[row.call_id] = turns[row.child_id]

    def bars(self) -> list[Bar]:
        known = {turn.id for turn in self.trace.turns}
        rows: list[Bar] = []
        for turn in self.trace.turns:
            if turn.parent_id not in known:
                rows += self._turn(turn, 0)
        told = {step.id for steps in self.steps.values() for step in steps}
        loose = [call for call in self.trace.calls if call.step_id not in told]
        return rows + [self._call(call, 0) for call in loose]

    def _turn(self, turn: Turn, depth: int) -> list[Bar]:
        own = Bar(
            key=str(turn.id),
            icon="turn",
            title="Turn",
            about=f"{turn.profile}, {turn.requested_lane} lane asked",
            depth=depth,
            start=turn.created_at,
            end=turn.finished_at or self.now,
            style="bar-edge",
            is_work=False,
            is_open=turn.finished_at is None,
            micros=turn.header.get("micros"),
        )
        rows = [own]
        for step in self.steps[turn.id]:
            rows += self._step(step, depth + 1)
        told = {each.id for each in self.below.values()}
        children = [
            each
            for each in self.trace.turns
            if each.parent_id == turn.id and each.id not in told
        ]
        for child in children:
            rows += self._turn(child, depth + 1)
        return rows

    def _step(self, step: Step, depth: int) -> list[Bar]:
        if step.kind == StepKind.ROUTE:
            return []  # told with the model step that proposed it
        if step.kind == StepKind.MODEL and self.attempts[step.id]:
            tried = [self._attempt(each, depth) for each in self.attempts[step.id]]
            return tried + self._route(step, depth)
        calls = self.by_step[step.id]
        rows = [
            self._approval(self.approvals[c.id], depth)
            for c in calls
            if c.id in self.approvals
        ]
        if step.kind == StepKind.MODEL or not calls:
            return rows + [self._bare_step(step, depth)] + self._route(step, depth)
        for call in calls:
            rows.append(self._call(call, depth))
            if call.id in self.below:
                rows += self._turn(self.below[call.id], depth + 1)
        return rows

    def _route(self, step: Step, depth: int) -> list[Bar]:
        """What a model proposed and code decided, where either said something."""
        said = step.result.get("routing", {})
        vetoes = said.get("vetoes", [])
        if not vetoes and not said.get("explicit"):
            return []
        at = step.finished_at or self.now
        about = [f"{said['proposed']} proposed", f"{said['decided']} decided"]
        sure, risk = said.get("confidence"), said.get("risk")
        about += [f"confidence {sure}"] if sure is not None else []
        about += [f"risk {risk}"] if risk else []
        return [
            Bar(
                key=f"{step.id}-route",
                icon="arrow",
                title="Route",
                about=", ".join(about),
                depth=depth,
                start=at,
                end=at,
                tone="attention" if vetoes else "",
                note=", ".join(vetoes),
                is_work=False,
            )
        ]

    def _bare_step(self, step: Step, depth: int) -> Bar:
        start = step.started_at or self.trace.turns[0].created_at
        failed = step.state in ("failed", "unknown")
        return Bar(
            key=str(step.id),
            icon="model" if step.kind == StepKind.MODEL else "tool",
            title=str(step.request.get("name") or step.kind),
            about=step.state,
            depth=depth,
            start=start,
            end=step.finished_at or (self.now if step.started_at else start),
            style="bar-fail" if failed else "bar-span",
            tone="critical" if failed else "",
            note=step.error_code,
            is_open=step.finished_at is None and step.started_at is not None,
            call_id=step.call_id,
        )

    def _attempt(self, attempt: Attempt, depth: int) -> Bar:
        took = timedelta(milliseconds=attempt.duration_ms)
        skipped = attempt.outcome == Outcome.SKIPPED
        failed = bool(attempt.error_class) and not skipped
        lane = attempt.lane or attempt.requested_lane
        counted = attempt.tokens_in or attempt.tokens_out
        return Bar(
            key=str(attempt.id),
            icon="skipped" if skipped else "model",
            title=lane,
            about=attempt.route_name.removeprefix(f"{lane} ") + _why(attempt),
            depth=depth,
            start=attempt.created_at - took,
            end=attempt.created_at,
            style="bar-skip" if skipped else "bar-fail" if failed else f"lane-{lane}",
            tone="" if skipped else "critical" if failed else "ok",
            note=attempt.reason or attempt.error_class,
            tokens=f"{attempt.tokens_in:,} → {attempt.tokens_out:,}" if counted else "",
            micros=attempt.micros if counted else None,
            call_id=attempt.call_id,
        )

    def _call(self, call: Call, depth: int) -> Bar:
        refused = call.state in (CallState.DENIED, CallState.FAILED)
        doubt = call.state == CallState.UNKNOWN
        start = call.started_at or call.created_at
        running = call.state == CallState.EXECUTING
        group, _, title = call.capability.rpartition("/")
        about = f"{group} {call.kind}".strip()
        if call.kind == CallKind.HANDOFF:
            title, about = "Handoff", f"to @{title}"
        return Bar(
            key=str(call.id),
            icon=ICONS.get(call.kind, "tool"),
            title=title or call.kind,
            about=about,
            depth=depth,
            start=start,
            end=call.finished_at or (self.now if running else start),
            style="bar-doubt" if doubt else "bar-fail" if refused else "bar-span",
            tone="doubt" if doubt else "critical" if refused else "ok",
            note=_outcome(call),
            micros=call.micros or None,
            call_id=call.id,
            is_open=running,
        )

    def _approval(self, asked: ApprovalRequest, depth: int) -> Bar:
        call = self.calls[asked.call_id]
        return Bar(
            key=str(asked.id),
            icon="approval",
            title="Approval",
            about=call.capability,
            depth=depth,
            start=asked.created_at,
            end=asked.decided_at or self.now,
            style="bar-wait",
            tone="attention",
            note=_answer(asked),
            is_work=False,
            is_open=asked.state == ApprovalState.PENDING,
            call_id=call.id,
        )


def _outcome(call: Call) -> str:
    """Say why a call ended as it did; what was asked for and approved just ran."""
    if call.state == CallState.SUCCEEDED and call.reason_code == ApprovalRequired.code:
        return "as approved"
    return call.reason_code or call.error_code


def _answer(asked: ApprovalRequest) -> str:
    if asked.decided_by is None:
        return str(asked.state)
    said = "rejected" if asked.state == ApprovalState.REJECTED else "approved"
    return f"{said} by {asked.decided_by.label}"


def _why(attempt: Attempt) -> str:
    """Say why a route was tried in its lane, where it is not the agent's own."""
    if attempt.lane_reason in ("", LaneReason.ASKED, LaneReason.PROFILE):
        return ""
    return f", {LaneReason(attempt.lane_reason).label}"


def _place(trace: Trace) -> None:
    """Give every bar its place, cutting out what would squash the rest."""
    if not trace.bars:
        return
    start = min(bar.start for bar in trace.bars)
    end = max(max(bar.end for bar in trace.bars), start + timedelta(milliseconds=1))
    total = (end - start).total_seconds()
    work = sorted(
        ((bar.start - start).total_seconds(), (bar.end - start).total_seconds())
        for bar in trace.bars
        if bar.is_work
    )
    scale = Scale(total, quiet(work, total))
    for bar in trace.bars:
        bar.x = scale.at((bar.start - start).total_seconds())
        bar.width = max(0.4, scale.at((bar.end - start).total_seconds()) - bar.x)
    trace.pauses = [
        Pause(scale.at(begin), PAUSE_WIDTH, until - begin)
        for begin, until in scale.pauses
    ]
    trace.ticks = scale.ticks()


def stage_strip(call: Call) -> list[dict[str, Any]]:
    """What every stage said about one call, in the order of the pipeline."""
    said = call.facts.get("stages", {})
    strip, refused = [], False
    for name in STAGES:
        if name == call.stage:
            asks = call.state == CallState.AWAITING_APPROVAL
            tone = "attention" if asks else "critical"
            refused = True
        else:
            tone = "off" if refused and name not in said else "ok"
        strip.append({"name": name, "tone": tone, "said": said.get(name, "")})
    return strip


STAGES = (
    "identify",
    "halt",
    "contract",
    "trust",
    "capability",
    "guardrail",
    "loop_guard",
    "budget",
    "approval",
    "credential",
    "execute",
)
