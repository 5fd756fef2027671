"""A worker is killed at each step of a turn: resumed, no step twice, chain whole."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from tests.journeys.processes import House, eventually, house

pytestmark = pytest.mark.journey

QUESTION = "What time is it?"
#: Where the worker dies. Each is reached by a turn that uses one tool.
FAILPOINTS = [
    "run.claimed.before_commit",
    "run.claimed",
    "run.handler.start",
    "step.model.planned",
    "call.authorized",
    "call.start.before_commit",
    "call.executing",
    "model.before_spend",
    "model.in_flight",
    "model.answered",
    "call.settle.before_commit",
    "call.settled",
    "step.model.done.before_commit",
    "step.model.done",
    "step.tool.planned",
    "tool.before_spend",
    "tool.in_flight",
    "tool.answered",
    "step.tool.done.before_commit",
    "step.tool.done",
    "turn.answer.before_commit",
    "turn.answered",
    "run.handler.done",
    "run.finish.before_commit",
    "run.finished",
]
#: Each backend takes every other one; `make chaos` takes all of them on both.
EVERY_FAILPOINT = os.environ.get("POLAR_EVERY_FAILPOINT") == "1"
TAKEN = FAILPOINTS if EVERY_FAILPOINT else FAILPOINTS[bool(settings.DATABASE_URL) :: 2]
TWICE_PER_KEY = """
    SELECT idempotency_key FROM gateway_call WHERE state = 'succeeded'
    GROUP BY idempotency_key HAVING count(*) > 1
"""
STEPS = "SELECT seq, kind, state FROM agents_step ORDER BY seq"
ANSWERED = "SELECT state FROM agents_turn"


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, "seed_demo") as built:
        yield built


@pytest.mark.parametrize("failpoint", TAKEN)
def test_turn_when_its_worker_is_killed_then_resumed_once(
    polar: House, failpoint: str
) -> None:
    assert polar.do("ask", QUESTION) == 0, polar.output()
    dying = polar.start("worker", "--concurrency", "2", die=failpoint)
    assert dying.wait(timeout=30) == -signal.SIGKILL, polar.output()

    polar.hurry()
    polar.start("worker", "--concurrency", "2")

    done = eventually(lambda: polar.states() == {"succeeded": 1})
    assert done, f"{polar.states()} {polar.output()}"
    assert polar.rows(ANSWERED) == [("answered",)]
    assert polar.rows(STEPS) == [
        (1, "model", "done"),
        (2, "tool", "done"),
        (3, "model", "done"),
    ]
    assert polar.rows(TWICE_PER_KEY) == []
    assert polar.do("audit", "verify") == 0, polar.output()


@pytest.mark.parametrize("failpoint", ["turn.started", "run.enqueued"])
def test_message_when_intake_is_killed_before_its_commit_then_nothing_is_half_done(
    polar: House, failpoint: str
) -> None:
    polar.do("ask", QUESTION, die=failpoint)

    counts = polar.rows(
        "SELECT (SELECT count(*) FROM agents_turn), (SELECT count(*) FROM runs_run)"
    )

    assert counts[0] in ((0, 0), (1, 1))
