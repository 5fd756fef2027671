"""A turn's journal in memory and in rows, and the numbers that follow from it.

Invariants: every write happens inside the caller's transaction, after its fence
was checked; a finished step is never written again.
"""

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.agents.errors import PlanRefused
from apps.agents.models import STEP, Step, StepKind, StepState, Turn
from apps.common import clock, statements
from apps.common.errors import Fenced

#: PostgreSQL holds no U+0000, and UTF-8 no half of a surrogate pair.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a step ended."""

    state: str
    result: dict[str, Any]
    call_id: UUID | None = None
    error_code: str = ""


def storable(value: Any) -> Any:
    """Replace what no database holds in text: U+0000 and halves of characters."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


class Journal:
    """The steps of one turn, in order."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        # A turn that nobody has taken up yet has no steps to read.
        found = Step.objects.filter(turn=turn).order_by("seq")
        self.steps = list(found) if turn.attempt else []

    def pending(self) -> Step | None:
        """Return the first step that is not finished, or None."""
        return next((step for step in self.steps if not step.is_finished), None)

    def last_model(self) -> Step | None:
        """Return the newest finished model step, or None."""
        done = (s for s in reversed(self.steps) if s.kind == StepKind.MODEL)
        return next((step for step in done if step.state == StepState.DONE), None)

    def last_routing(self) -> dict[str, Any]:
        """Return what was decided on the newest proposal of a way."""
        said = self.last_model()
        return said.result.get("routing", {}) if said is not None else {}

    def count(self, kind: str) -> int:
        return sum(step.kind == kind for step in self.steps)

    def failures(self, error: str) -> int:
        """Count tool calls that failed with this class of error."""
        return sum(step.result.get("class") == error for step in self.steps)

    def micros(self) -> int:
        return sum(int(step.result.get("micros", 0)) for step in self.steps)

    def check_plan(self, step: Step) -> None:
        """Refuse a call whose plan was refused. Raises: PlanRefused."""
        before = (each for each in reversed(self.steps) if each.seq < step.seq)
        plan = next((each for each in before if each.kind == StepKind.PLAN), None)
        if plan is None or not step.request.get("planned"):
            return
        if plan.state == StepState.FAILED:
            _, _, why = str(plan.result.get("error", "")).partition(": ")
            raise PlanRefused(why)

    def plan(self, wanted: list[tuple[str, dict[str, Any]]]) -> list[Step]:
        """Write down what is to be done next; nothing is started yet."""
        first = self.steps[-1].seq + 1 if self.steps else 1
        rows = [
            Step(turn=self.turn, seq=seq, kind=kind, request=request)
            for seq, (kind, request) in enumerate(wanted, first)
        ]
        return self._insert(rows)

    def plan_and_start(self, kind: str, request: dict[str, Any]) -> Step:
        """Write down one step that starts with this very commit."""
        seq = self.steps[-1].seq + 1 if self.steps else 1
        step = Step(turn=self.turn, seq=seq, kind=kind, request=request)
        step.state, step.started_at = StepState.STARTED, clock.now()
        return self._insert([step])[0]

    def start(self, step: Step) -> None:
        """Move a planned step on. Again: a started step stays as it is."""
        if step.state == StepState.PLANNED:
            self._move(step, StepState.STARTED, started_at=clock.now())

    def end(self, step: Step, ending: Ending) -> None:
        """Write down how a step ended."""
        finished = None if ending.state == StepState.UNKNOWN else clock.now()
        self._move(
            step,
            ending.state,
            result=storable(ending.result),
            call_id=ending.call_id,
            error_code=ending.error_code,
            finished_at=finished,
        )

    def _insert(self, rows: list[Step]) -> list[Step]:
        statements.insert(*rows)
        self.steps += rows
        return rows

    def _move(self, step: Step, state: str, **values: Any) -> None:
        STEP.check(step.state, state)
        where = {"id": step.id, "state": step.state}
        lost = Fenced(f"Step {step.seq} was moved on by another worker.")
        statements.update_one(Step, where, {"state": state, **values}, otherwise=lost)
        for name, value in (values | {"state": state}).items():
            setattr(step, name, value)
