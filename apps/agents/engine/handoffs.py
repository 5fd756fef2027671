"""Handing work to other agents, and putting their results together.

Hides: how children are opened once each, waited for without a worker, and told to
the parent. Invariants: every handoff passes the gateway; a child's turn, its run,
the handoff's row and both events are one commit; results come back in the order in
which they were asked for, whoever finished first; what a child cannot do is told
to its parent as a typed failure.
Source: docs/decisions/0017-handoffs-are-parked-children.md
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.access import services as access
from apps.agents.engine import failures, lanes, proposal, requests
from apps.agents.engine.beginning import RUN_KIND, record_started
from apps.agents.engine.proposal import Bounds, Left, Part
from apps.agents.engine.reach import left_of
from apps.agents.models import (
    HANDOFF,
    AgentProfile,
    Handoff,
    HandoffState,
    Mode,
    Step,
    Turn,
    TurnState,
)
from apps.audit import services as audit
from apps.common import canonical, clock, ids
from apps.common.errors import Conflict, NotFound, PolarError
from apps.common.failpoints import reach as reach_point
from apps.common.statements import Reading
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
from apps.runs import services as runs
from apps.runs.models import SETTLED, State
from apps.runs.ports import Park, RunContext

#: An agent's work inside the house; its own effects are decided one by one.
RISK = Risk("write", side_effects="internal")
STATE_OF = {
    TurnState.TRUNCATED: HandoffState.TRUNCATED,
    TurnState.FAILED: HandoffState.FAILED,
    TurnState.CANCELLED: HandoffState.FAILED,
}


@lru_cache(maxsize=64)
def _targets(count: int) -> Reading[AgentProfile]:
    marks = ", ".join(["%s"] * count)
    tail = f"AND workspace_id = %s AND slug IN ({marks})"
    return Reading(AgentProfile.objects.active, tail)


def targets_of(turn: Turn) -> list[AgentProfile]:
    """Return the agents that a turn may hand work to; none at its last depth."""
    names = turn.profile.allowed_handoff_targets
    if not names or turn.depth >= turn.profile.max_depth:
        return []
    workspace_id = turn.conversation.workspace_id
    wanted = sorted({str(name) for name in names})
    found = _targets(len(wanted)).fetch(workspace_id, *wanted)
    return sorted(found, key=lambda row: str(row.slug))


@dataclass(frozen=True, slots=True)
class Ended:
    """How one handoff ended, before it is written down."""

    row: Handoff
    state: str
    reason: str = ""
    output: Any = None
    detail: str = ""
    micros: int = 0
    labels: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """What the parent's model is told. Failures are typed."""
        told: dict[str, Any] = {"agent": self.row.target, "status": str(self.state)}
        if self.state == HandoffState.SUCCEEDED:
            return told | {"output": self.output}
        error = {"code": self.reason, "detail": self.detail}
        return told | {"error": error, "partial": self.output or ""}


class Delegation:
    """One handoff step on its way: opened, waited for, put together."""

    def __init__(
        self, turn: Turn, step: Step, ctx: RunContext, labels: frozenset[str]
    ) -> None:
        self.turn, self.step, self.ctx = turn, step, ctx
        self.labels = labels
        self.asked = proposal.read(step.request["arguments"])
        self.rows: list[Handoff] = []

    def open(self) -> Park | None:
        """Open what is not open yet; say what to wait for, if anything.

        Raises: what suspends the run; then what was opened stays open.
        Again: opens nothing twice.
        """
        found = Handoff.objects.filter(step=self.step)
        known = {row.position: row for row in found}
        for place, part in enumerate(self.asked.parts):
            if place not in known:
                known[place] = self._hand_over(place, part)
        self.rows = [known[place] for place in sorted(known)]
        now = clock.now()
        over = self._over()
        waiting = [row for row in self.rows if row.id not in over]
        late = [row for row in waiting if row.deadline_at and row.deadline_at <= now]
        if not waiting or len(late) == len(waiting):
            return None
        until = max(row.deadline_at for row in waiting if row.deadline_at)
        return Park(State.WAITING_CHILD, waiting_on=f"step:{self.step.id}", until=until)

    def _over(self) -> set[UUID]:
        """Return the handoffs that nothing more is to come of."""
        ids_ = [row.child_id for row in self.rows if row.child_id]
        children = Turn.objects.select_related("run").in_bulk(ids_)
        return {
            row.id
            for row in self.rows
            if row.child_id is None or _is_over(children[row.child_id])
        }

    # --- opening

    @cached_property
    def _line(self) -> Lineage:
        return requests.lineage(self.turn, self.step, self.ctx)

    @cached_property
    def _named(self) -> dict[str, AgentProfile]:
        """The active agents that are named here, wherever they may be handed to."""
        here = self.turn.conversation.workspace_id
        wanted = sorted({part.agent for part in self.asked.parts})
        found = _targets(len(wanted)).fetch(here, *wanted)
        return {str(row.slug): row for row in found}

    def _hand_over(self, place: int, part: Part) -> Handoff:
        bounds, target = self._bounds(part)
        arguments = asdict(part) | {"mode": self.asked.mode, "place": place}
        arguments["capabilities"] = list(part.capabilities or ())

        def perform(permit: Permit) -> Result:
            if target is None:
                raise NotFound(f"There is no active agent @{part.agent} here.")
            permit.spend(arguments, waits=False)
            with transaction.atomic():
                self.ctx.check_fence()
                row = self._open_child(place, part, target, bounds, permit)
                reach_point("handoff.opened.before_commit")
            reach_point("handoff.opened")
            return Result({"turnId": str(row.child_id), "handoffId": str(row.id)})

        request = CallRequest(
            kind=CallKind.HANDOFF,
            capability=f"handoff/{part.agent}",
            principal=self.turn.principal,
            workspace_id=self.turn.conversation.workspace_id,
            arguments=arguments,
            perform=perform,
            effect_class=EffectClass.INTERNAL,
            is_inside=True,
            risk=RISK,
            lineage=replace(
                self._line,
                seq=f"{self.step.seq}.{place}",
                allowance_micros=left_of(self.turn),
            ),
            scope={"allowed": {"handoff": self.turn.profile.allowed_handoff_targets}},
            labels=self.labels,
        )
        try:
            gateway.call(request)
        except PolarError as error:
            if failures.suspends(error) or failures.is_busy(error):
                raise
            return self._refused(place, part, error)
        return Handoff.objects.get(step=self.step, position=place)

    def _bounds(self, part: Part) -> tuple[Bounds, AgentProfile | None]:
        target = self._named.get(part.agent)
        ends = self.ctx.deadline_at
        seconds = (ends - clock.now()).total_seconds() if ends else None
        left = Left(seconds, left_of(self.turn))
        return proposal.clamp(self.turn, target, part, self.asked, left), target

    def _open_child(
        self,
        place: int,
        part: Part,
        target: AgentProfile,
        bounds: Bounds,
        permit: Permit,
    ) -> Handoff:
        found = Handoff.objects.filter(step=self.step, position=place).first()
        if found is not None:
            return found
        turn, child_id = self.turn, ids.new_id()
        choice = lanes.choose(target, "handoff")
        run = runs.enqueue(
            kind=RUN_KIND,
            payload={"turn_id": str(child_id)},
            principal=turn.principal,
            workspace=turn.conversation.workspace,
            trigger="handoff",
            trace_id=turn.trace_id,
            parent=turn.run,
            deadline_at=bounds.deadline_at,
            origin=turn.run.origin,
        )
        child = Turn.objects.create(
            id=child_id,
            conversation=turn.conversation,
            run=run,
            parent=turn,
            depth=turn.depth + 1,
            profile=target,
            profile_version=target.version,
            principal=turn.principal,
            trace_id=turn.trace_id,
            message_text=_message(part),
            labels=sorted(self.labels),
            requested_lane=choice.lane,
            lane_reason=choice.reason,
            scope=bounds.scope,
            budget_micros=bounds.budget_micros,
        )
        record_started(child)
        row = self._row(place, part)
        row.child, row.call_id = child, permit.call_id
        row.adjustments, row.budget_micros = bounds.adjustments, bounds.budget_micros
        row.deadline_at = bounds.deadline_at
        return self._save(row, "handoff.started", {"child_turn": str(child.id)})

    def _refused(self, place: int, part: Part, error: PolarError) -> Handoff:
        """A refused target stays refused; nobody else is asked in its place."""
        with transaction.atomic():
            self.ctx.check_fence()
            row = self._row(place, part)
            row.state, row.finished_at = HandoffState.REFUSED, clock.now()
            row.reason = (error.reason_code or error.code)[:64]
            row.adjustments = [{"field": "agent", "why": error.detail[:300]}]
            return self._save(row, "handoff.finished", {})

    def _row(self, place: int, part: Part) -> Handoff:
        turn = self.turn
        return Handoff(
            workspace_id=turn.conversation.workspace_id,
            step=self.step,
            position=place,
            root_id=turn.run.root_id,
            trace_id=turn.trace_id,
            source=turn.profile.slug,
            target=part.agent[:64],
            mode=self.asked.mode,
            depth=turn.depth + 1,
            expects=part.expects,
            origin=turn.run.origin,
        )

    def _save(self, row: Handoff, event: str, facts: dict[str, Any]) -> Handoff:
        row.save(force_insert=True)
        _record(self.turn, row, event, facts)
        return row

    # --- putting together

    def collect(self) -> list[Ended]:
        """Say how each handoff ended, in the order in which they were asked."""
        return [self._ended(row) for row in self.rows]

    def _ended(self, row: Handoff) -> Ended:
        if row.child_id is None:
            detail = str(row.adjustments[0].get("why", "")) if row.adjustments else ""
            return Ended(row, HandoffState.REFUSED, row.reason, detail=detail)
        child = Turn.objects.select_related("run").get(id=row.child_id)
        spent = int(child.header.get("micros", 0))
        labels = tuple(child.labels)
        if child.state == TurnState.ANSWERED:
            output, problem = proposal.fulfil(child.answer_text, row.expects)
            state = HandoffState.FAILED if problem else HandoffState.SUCCEEDED
            reason = "output_contract" if problem else ""
            return Ended(row, state, reason, output, problem, spent, labels)
        if not _is_over(child):
            return Ended(row, HandoffState.LATE, "late", detail="the deadline passed")
        ended = STATE_OF.get(TurnState(child.state), HandoffState.FAILED)
        reason = child.reason or child.run.reason or child.run.error_code or child.state
        detail = f"@{row.target} ended {child.state}"
        return Ended(row, ended, reason[:64], child.answer_text, detail, spent, labels)

    def close(self, all_ended: list[Ended]) -> None:
        """Write down how they ended, inside the caller's transaction; what is late
        is stopped."""
        for ended in all_ended:
            if ended.row.state == HandoffState.OPEN:
                _close_row(self.turn, ended)
            if ended.state == HandoffState.LATE and ended.row.child is not None:
                stop(ended.row.child, "late")

    def result(self, all_ended: list[Ended]) -> dict[str, Any]:
        """What the step comes to, for the model and for the journal."""
        told = [ended.told for ended in all_ended]
        one = self.asked.mode != Mode.FAN_OUT
        return {
            "output": told[0] if one else told,
            "labels": sorted({name for each in all_ended for name in each.labels}),
            "micros": sum(each.micros for each in all_ended),
            "handoffs": [str(each.row.id) for each in all_ended],
        }

    def direct_answer(self, all_ended: list[Ended]) -> str:
        """The answer that becomes the parent's own, or ""."""
        first = all_ended[0]
        if self.asked.mode != Mode.DIRECT or first.state != HandoffState.SUCCEEDED:
            return ""
        text = first.output
        return text if isinstance(text, str) else canonical.arguments(text)


def _is_over(child: Turn) -> bool:
    return child.state != TurnState.OPEN or child.run.state in SETTLED


def cut_by_guard(all_ended: list[Ended]) -> bool:
    """Tell whether the loop guard cut anything below: then the tree ends here."""
    return any(each.reason == failures.LOOP_GUARD for each in all_ended)


def partial(all_ended: list[Ended]) -> str:
    """What the children had when the tree was cut."""
    return "\n\n".join(
        f"@{each.row.target}: {each.output}" for each in all_ended if each.output
    )


def stop(child: Turn, reason: str) -> None:
    """Cancel a child's run; its turn and its own children follow."""
    try:
        runs.cancel(by=access.system_principal(), run_id=child.run_id, reason=reason)
    except Conflict:
        return  # it ended by itself in this very moment


def _message(part: Part) -> str:
    pieces = [part.task]
    if part.input:
        pieces.append(f"Input:\n{canonical.arguments(part.input)}")
    if part.expects:
        schema = canonical.arguments(part.expects)
        pieces.append(f"Answer with JSON alone that matches this schema:\n{schema}")
    return "\n\n".join(pieces)


def _close_row(turn: Turn, ended: Ended) -> None:
    row, now = ended.row, clock.now()
    HANDOFF.check(row.state, ended.state)
    values: dict[str, Any] = {
        "state": ended.state,
        "reason": ended.reason,
        "micros": ended.micros,
        "finished_at": now,
        "duration_ms": round((now - row.created_at).total_seconds() * 1000),
    }
    held = Handoff.objects.filter(id=row.id, state=HandoffState.OPEN)
    if held.update(**values) == 1:
        for name, value in values.items():
            setattr(row, name, value)
        _record(turn, row, "handoff.finished", {"duration_ms": row.duration_ms})


def _record(turn: Turn, row: Handoff, event: str, facts: dict[str, Any]) -> None:
    audit.record(
        type=event,
        actor=turn.principal.actor,
        subject=("handoff", str(row.id)),
        workspace_id=row.workspace_id,
        run_id=turn.run_id,
        trace_id=row.trace_id,
        decision="" if row.state == HandoffState.OPEN else str(row.state),
        reason=row.reason,
        data={
            "source": row.source,
            "target": row.target,
            "mode": str(row.mode),
            "depth": row.depth,
            "root": str(row.root_id),
            "parent_turn": str(turn.id),
            "adjustments": row.adjustments,
            **facts,
        },
    )
