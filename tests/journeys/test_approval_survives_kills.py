"""Everybody dies between the question and the answer; the act is done once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.processes import House, eventually, house

pytestmark = pytest.mark.journey


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as built:
        yield built


def test_question_when_every_process_is_killed_then_answered_and_done_once(
    polar: House,
) -> None:
    polar.do("enqueue", "journey.send", "{}")
    first = polar.start("worker", "--concurrency", "2")
    assert eventually(lambda: polar.states() == {"waiting_approval": 1}), polar.output()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert polar.carried() == []

    assert polar.do("approve", "2") == 0, polar.output()
    second = polar.start("worker", "--concurrency", "2")

    assert eventually(lambda: polar.states() == {"succeeded": 1}), polar.output()
    assert [line[2] for line in polar.carried()] == [str(second.pid)]
    assert polar.rows("SELECT state FROM gateway_approvalrequest") == [("used",)]
    assert "Already approved by bob" in polar.output()
