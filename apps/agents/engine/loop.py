"""The turn loop: the handler of runs of kind `agents.turn`.

Hides: in which order steps are planned, started, committed and resumed.
Invariants: a step is a row before it happens; its result and the next step are
one commit, made only while the lease is ours; a finished step is never repeated;
what suspends a run (approval, no route, sealed vault) leaves its step started.
Source: design, reliability section 10 (K5 to K16).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.agents.engine import (
    failures,
    handoffs,
    lanes,
    requests,
    routing,
    summary,
    together,
)
from apps.agents.engine.context import Context, Past, assemble, load_past
from apps.agents.engine.ending import Close, close_turn
from apps.agents.engine.journal import Ending, Journal
from apps.agents.engine.stream import DeltaStream
from apps.agents.engine.toolbox import Toolbox, record
from apps.agents.models import Step, StepKind, StepState, Turn, TurnState
from apps.common import clock, redaction, statements, tracing
from apps.common.errors import Fenced, PolarError, UpstreamError
from apps.common.failpoints import reach
from apps.common.statements import Reading
from apps.gateway.errors import OutcomeUnknown
from apps.gateway.ports import Outcome
from apps.providers import services as providers
from apps.providers.ports import CUT_SHORT
from apps.runs import ports as runs_ports

#: A model may get a tool call wrong this often before the turn is cut short.
MOST_INVALID_TOOL_CALLS = 2
MODEL_STEP_SECONDS = 900.0
TOOL_STEP_SECONDS = 600.0
#: A worker that lost this run may still be in the middle of its effect.
BUSY_SECONDS = 5.0

NOTICES = {
    "max_tool_calls": "I stopped here: this turn has used all its tool calls.",
    "max_turns": "I stopped here: this turn has used all its model calls.",
    "max_output_tokens": "I stopped here: this answer reached its longest length.",
    "tool_validation": "I stopped here: I could not form a valid tool call.",
    failures.LOOP_GUARD: "I stopped here: the loop guard cut this short.",
}


_TURN = Reading(
    lambda: Turn.objects.select_related(
        "conversation__workspace", "profile", "principal", "run"
    ),
    "WHERE agents_turn.id = %s",
)


def advance(ctx: runs_ports.RunContext) -> runs_ports.Outcome:
    """Carry a turn as far as it goes.

    Again: replays finished steps from their rows. Raises: whatever suspends or
    retries the run; the step at hand stays as it is.
    """
    [turn] = _TURN.fetch(UUID(str(ctx.payload["turn_id"])))
    if turn.state != TurnState.OPEN:
        return outcome_of(turn)
    with tracing.span(tracing.AGENT, turn.profile.slug, trace_id=turn.trace_id):
        return TurnLoop(ctx, turn).run()


def outcome_of(turn: Turn) -> runs_ports.Finish:
    """Say what a turn's end means for its run."""
    result = {"turn_id": str(turn.id), "state": turn.state}
    if turn.state == TurnState.ANSWERED:
        return runs_ports.Finish(result)
    state = "truncated" if turn.state == TurnState.TRUNCATED else "failed"
    return runs_ports.Finish(
        result, state=state, reason=turn.reason, error_code=turn.reason
    )


class TurnLoop:
    """One worker's hold on one turn."""

    def __init__(self, ctx: runs_ports.RunContext, turn: Turn) -> None:
        self.ctx = ctx
        self.turn = turn
        self.journal = Journal(turn)
        self.box = Toolbox(turn)
        self.past = Past()
        self.stream = DeltaStream(
            turn_id=turn.id,
            attempt=turn.attempt + 1,
            watched_until=turn.watched_until,
        )
        self.steps_aside = False

    def run(self) -> runs_ports.Outcome:
        self.turn.started_at = self.turn.started_at or clock.now()
        if self.turn.parent_id is None:
            self.past = load_past(self.turn)
        self._take_up()
        while self.turn.state == TurnState.OPEN:
            if self.steps_aside:
                return runs_ports.Again(after_seconds=BUSY_SECONDS)
            if self.ctx.stopping():
                return runs_ports.Again()
            step = self.journal.pending()
            if step is None:
                raise Fenced("An open turn has nothing to do; somebody else moved it.")
            if (parked := self._carry(step)) is not None:
                return parked
        return outcome_of(self.turn)

    # --- one step

    def _carry(self, step: Step) -> runs_ports.Park | None:
        """Do one step; say what to wait for, if anything."""
        if step.kind == StepKind.HANDOFF:
            return self._handoff_step(step)
        carry = {
            StepKind.MODEL: self._model_step,
            StepKind.ROUTE: self._route_step,
            StepKind.PLAN: self._plan_step,
        }.get(StepKind(step.kind), self._tool_step)
        carry(step)
        return None

    def _model_step(self, step: Step) -> None:
        self.ctx.begin_step(MODEL_STEP_SECONDS)
        context = self._context()
        request = requests.model_request(
            self.turn, step, self.ctx, context, self.box.offered()
        )
        self.stream.begin()
        try:
            answer = providers.generate(
                request=request,
                on_delta=self.stream.write,
                on_reset=self.stream.reset,
            )
        except PolarError as error:
            self._model_failed(step, error)
            return
        self.stream.end()
        result = _model_result(answer, context.tokens)
        calls = redaction.scrub_tree([c.as_json() for c in answer.tool_calls])
        decision = self.box.decide(calls, self.journal, self.past, context.labels)
        result["routing"] = decision.as_json()
        if decision.goes_on:
            asked = self.box.asked_together(step, self.ctx, calls, context.labels)
            result |= {"together": asked} if asked else {}
        ending = Ending(StepState.DONE, result, answer.call_id)
        self._commit(step, ending, also=lambda: record(self.turn, decision))

    def _route_step(self, step: Step) -> None:
        """Tell the model what was decided on the way it proposed."""
        try:
            routing.read(step.request["arguments"])
        except PolarError as error:
            self._tool_failed(step, error)
            return
        told = routing.told(self.journal.last_routing())
        self._commit(step, Ending(StepState.DONE, {"output": told}))

    def _plan_step(self, step: Step) -> None:
        """Ask for several calls at once; they follow, each in a step of its own."""
        self.ctx.begin_step(TOOL_STEP_SECONDS)
        try:
            call_id = together.ask(self.turn, step, self.ctx, self._context().labels)
        except PolarError as error:
            self._tool_failed(step, error)
            return
        self._commit(step, Ending(StepState.DONE, {}, call_id))

    def _tool_step(self, step: Step) -> None:
        self.ctx.begin_step(TOOL_STEP_SECONDS)
        try:
            self.box.check(step)
            self.journal.check_plan(step)
            outcome = requests.run_tool(
                self.turn, step, self.ctx, self._context().labels
            )
        except PolarError as error:
            self._tool_failed(step, error)
            return
        done = Ending(StepState.DONE, _brought(outcome), outcome.call_id)
        self._commit(step, done)

    def _handoff_step(self, step: Step) -> runs_ports.Park | None:
        """Open children, or put their results together once they are over."""
        self.ctx.begin_step(TOOL_STEP_SECONDS)
        try:
            self.box.check(step)
            work = handoffs.Delegation(
                self.turn, step, self.ctx, self._context().labels
            )
            parked = work.open()
        except PolarError as error:
            self._tool_failed(step, error)
            return None
        if parked is not None:
            return parked
        ended = work.collect()
        end: Close | None = None
        if handoffs.cut_by_guard(ended):
            end = _cut_short(self.journal, failures.LOOP_GUARD, handoffs.partial(ended))
        elif answer := work.direct_answer(ended):
            end = Close(TurnState.ANSWERED, answer)
        done = Ending(StepState.DONE, work.result(ended))
        self._commit(step, done, end, also=lambda: work.close(ended))
        return None

    # --- failures

    def _model_failed(self, step: Step, error: PolarError) -> None:
        """A refusal ends the turn by name; the rest is the run's business."""
        if failures.is_busy(error):
            self.steps_aside = True
            return
        passing = isinstance(error, UpstreamError) and not error.permanent
        if failures.suspends(error) or passing:
            raise error
        told = failures.told_to_model(error)
        ending = Ending(StepState.FAILED, told, error_code=error.code[:60])
        if failures.is_loop(error):
            cut = _cut_short(self.journal, failures.LOOP_GUARD)
            self._commit(step, ending, cut)
            return
        reason = (error.reason_code or error.code)[:40]
        text = f"I could not answer: {error.detail}"
        self._commit(step, ending, end=Close(TurnState.FAILED, text, reason))

    def _tool_failed(self, step: Step, error: PolarError) -> None:
        """A failed tool is news for the model, unless the run has to wait."""
        if failures.is_busy(error):
            self.steps_aside = True
            return
        told = failures.told_to_model(error)
        if isinstance(error, OutcomeUnknown):
            lost = Ending(StepState.UNKNOWN, {}, error_code=error.code)
            self._mark_unknown(step, lost)
        if failures.suspends(error):
            raise error
        ending = Ending(StepState.FAILED, told, error_code=error.code[:60])
        if failures.is_loop(error):
            cut = _cut_short(self.journal, failures.LOOP_GUARD)
            self._commit(step, ending, cut)
            return
        invalid = self.journal.failures(failures.VALIDATION)
        if told["class"] == failures.VALIDATION and invalid >= MOST_INVALID_TOOL_CALLS:
            self._commit(step, ending, end=_cut_short(self.journal, "tool_validation"))
            return
        self._commit(step, ending)

    def _mark_unknown(self, step: Step, ending: Ending) -> None:
        if step.state == StepState.UNKNOWN:
            return
        with transaction.atomic():
            self.journal.end(step, ending)
            self.ctx.check_fence()

    # --- commits

    def _take_up(self) -> None:
        """Count the attempt; plan and start whatever comes next."""
        turn = self.turn
        with transaction.atomic():
            held = {"id": turn.id, "state": TurnState.OPEN, "attempt": turn.attempt}
            turn.attempt += 1
            taken = {"attempt": turn.attempt, "started_at": turn.started_at}
            lost = Fenced("This turn was taken up by somebody else.")
            statements.update_one(Turn, held, taken, otherwise=lost)
            after = self._plan_next()
            self.ctx.check_fence()
        after()

    def _commit(
        self,
        step: Step,
        ending: Ending,
        end: Close | None = None,
        also: Callable[[], None] | None = None,
    ) -> None:
        """Write a step's end and what follows from it, as one commit."""
        with transaction.atomic():
            self.journal.end(step, ending)
            if also is not None:
                also()
            after = self._close(end) if end else self._plan_next()
            self.ctx.check_fence()
            reach(f"step.{step.kind}.done.before_commit")
            if self.turn.state != TurnState.OPEN:
                reach("turn.answer.before_commit")
        reach(f"step.{step.kind}.done")
        after()

    def _plan_next(self) -> Callable[[], None]:
        """Plan and start the next step, or end the turn; return its failpoint."""
        pending = self.journal.pending()
        if pending is not None:
            self.journal.start(pending)
            return lambda: reach(f"step.{pending.kind}.planned")
        said = self.journal.last_model()
        newest = self.journal.steps[-1] if self.journal.steps else None
        if said is not None and said is newest:
            if (end := _end_of(said, self.box, self.journal)) is not None:
                return self._close(end)
            return self._plan_tools(said)
        if self.journal.count(StepKind.MODEL) >= self.turn.profile.max_turns:
            return self._close(_cut_short(self.journal, "max_turns"))
        lanes.plan_call(self.turn, self.journal)
        return lambda: reach("step.model.planned")

    def _plan_tools(self, said: Step) -> Callable[[], None]:
        wanted = self.box.effects(said.result["tool_calls"])
        if (
            self.journal.count(StepKind.TOOL) + len(wanted)
            > self.turn.profile.max_tool_calls
        ):
            return self._close(_cut_short(self.journal, "max_tool_calls"))
        steps = self.journal.plan(self.box.steps_of(said.result))
        self.journal.start(steps[0])
        return lambda: reach("step.tool.planned")

    def _close(self, close: Close) -> Callable[[], None]:
        context = self._context()
        labels = tuple(context.labels)
        summary.plan_if_due(self.turn, self.past, context)
        close_turn(self.turn, self.journal.steps, replace(close, labels=labels))
        return lambda: reach(f"turn.{close.state}")

    def _context(self) -> Context:
        return assemble(self.turn, self.journal.steps, self.past)


def _end_of(said: Step, box: Toolbox, journal: Journal) -> Close | None:
    """Say how an answer ends the turn; None when it asks for more."""
    result, routed = said.result, said.result.get("routing", {})
    if routed.get("decided") == routing.CLARIFY:
        return Close(TurnState.ANSWERED, routed["question"])
    calls = result["tool_calls"]
    answers = routed.get("decided") == routing.RESPOND and bool(result["text"])
    if calls and not (answers and not box.effects(calls)):
        return None
    if result.get("finish") in CUT_SHORT:
        return _cut_short(journal, "max_output_tokens")
    return Close(TurnState.ANSWERED, result["text"])


def _cut_short(journal: Journal, reason: str, came_back: str = "") -> Close:
    """Keep what was said so far, and say why there is no more."""
    said = journal.last_model()
    partial = said.result.get("text", "") if said is not None else ""
    parts = (partial, came_back, NOTICES[reason])
    text = "\n\n".join(part for part in parts if part)
    return Close(TurnState.TRUNCATED, text, reason)


def _brought(outcome: Outcome) -> dict[str, Any]:
    """What the journal keeps of a tool's answer."""
    result: dict[str, Any] = {
        "output": redaction.scrub_tree(outcome.output),
        "micros": outcome.usage.micros,
    }
    if outcome.labels:
        result["labels"] = sorted(outcome.labels)
    if outcome.is_degraded:
        result["isolation"] = "degraded"
    return result


def _model_result(
    answer: providers.Generated, context_tokens: int
) -> dict[str, object]:
    """Keep what a model said, as JSON, redacted; `parts` are replayed verbatim."""
    calls = [call.as_json() for call in answer.tool_calls]
    return {
        "text": redaction.scrub(answer.text),
        "tool_calls": redaction.scrub_tree(calls),
        "parts": answer.parts,
        "served_by": answer.served_by,
        "lane": answer.lane,
        "degraded": answer.degraded,
        "lane_change": answer.lane_change,
        "micros": answer.usage.micros,
        "tokens_in": answer.usage.tokens_in,
        "tokens_out": answer.usage.tokens_out,
        "finish": answer.finish,
        "context_tokens": context_tokens,
        "attempts": list(answer.attempts),
        "scripted": answer.is_scripted,
    }
