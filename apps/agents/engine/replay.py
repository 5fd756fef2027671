"""Replay a turn's journal: the loop decides anew, on what was recorded.

Hides: a journal that lives in memory, and the comparison. Invariants: nothing is
executed, sent or written; models and tools are the recorded results; the first
step that would now be planned otherwise, or with another context, is named.
"""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from apps.agents.engine.context import load_past
from apps.agents.engine.ending import Close
from apps.agents.engine.journal import Ending, Journal
from apps.agents.engine.loop import TurnLoop
from apps.agents.models import Step, StepKind, StepState, Turn, TurnState
from apps.common.errors import NotFound
from apps.runs.ports import RunContext


class _Memory(Journal):
    """A journal whose rows are never saved."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.steps: list[Step] = []

    def _insert(self, rows: list[Step]) -> list[Step]:
        self.steps += rows
        return rows

    def _move(self, step: Step, state: str, **values: Any) -> None:
        for name, value in (values | {"state": state}).items():
            setattr(step, name, value)


class _Replay(TurnLoop):
    """The turn loop with its hands tied: it plans, and nothing happens."""

    def __init__(self, turn: Turn) -> None:
        run = turn.run
        context = RunContext(
            run_id=run.id,
            fence=run.fence,
            attempt=run.attempt,
            trace_id=run.trace_id,
            payload=run.payload,
            root_id=run.root_id,
            origin=run.origin,
        )
        super().__init__(context, turn)
        self.recorded = list(Step.objects.filter(turn=turn).order_by("seq"))
        self.journal = _Memory(turn)
        if turn.parent_id is None:
            self.past = load_past(turn)
        self.ended: Close | None = None
        self.divergence: dict[str, Any] | None = None
        self.same = 0

    def _close(self, close: Close) -> Callable[[], None]:
        self.ended = close
        return lambda: None

    def walk(self) -> None:
        """Plan step by step, feed what was recorded, stop where it differs."""
        self._plan_next()
        for recorded in self.recorded:
            step = self.journal.pending()
            if step is None:
                end = self.ended.state if self.ended else "nothing"
                self._differs(recorded.seq, "end", recorded.kind, end)
                return
            if not self._is_same(recorded, step):
                return
            self.same += 1
            if not recorded.is_finished:
                return
            self.journal.end(
                step, Ending(recorded.state, recorded.result, recorded.call_id)
            )
            last = recorded is self.recorded[-1]
            if last and recorded.state == StepState.FAILED:
                # A refusal ends a turn where it happens; refusals are not re-made.
                return
            if self.journal.pending() is None or recorded.kind != StepKind.MODEL:
                self._plan_next()
        self._compare_end()

    def _is_same(self, recorded: Step, step: Step) -> bool:
        if (recorded.kind, _plain(recorded.request)) != (
            step.kind,
            _plain(step.request),
        ):
            self._differs(
                recorded.seq,
                "plan",
                {"kind": recorded.kind, **recorded.request},
                {"kind": step.kind, **step.request},
            )
            return False
        if recorded.kind == StepKind.MODEL and "context_tokens" in recorded.result:
            before, now = recorded.result["context_tokens"], self._context().tokens
            if before != now:
                self._differs(recorded.seq, "context", before, now)
                return False
        return True

    def _compare_end(self) -> None:
        turn = self.turn
        if turn.state == TurnState.OPEN or self.divergence is not None:
            return
        after = (self.recorded[-1].seq if self.recorded else 0) + 1
        if self.ended is None:
            planned = self.journal.pending()
            self._differs(after, "end", turn.state, planned.kind if planned else "open")
        elif self.ended.state != turn.state:
            self._differs(after, "end", turn.state, self.ended.state)

    def _differs(self, seq: int, what: str, recorded: Any, replayed: Any) -> None:
        self.divergence = {
            "seq": seq,
            "what": what,
            "recorded": _plain(recorded),
            "replayed": _plain(replayed),
        }


def replay(run_id: UUID) -> dict[str, Any]:
    """Re-run a turn's journal and name the first divergence. Writes nothing.

    Raises: NotFound.   Shape: JSON.
    """
    found = Turn.objects.filter(run_id=run_id).select_related(
        "run", "conversation__workspace", "profile", "principal"
    )
    turn = found.first()
    if turn is None:
        raise NotFound(f"Run {run_id} has no turn.")
    again = _Replay(turn)
    again.walk()
    return {
        "run_id": str(run_id),
        "turn_id": str(turn.id),
        "state": turn.state,
        "steps": len(again.recorded),
        "same": again.same,
        "divergence": again.divergence,
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
