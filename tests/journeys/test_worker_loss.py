"""Workers die; runs do not."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.processes import House, eventually, house

pytestmark = pytest.mark.journey


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as built:
        yield built


def all_succeeded(polar: House, count: int) -> bool:
    return polar.states() == {"succeeded": count}


def test_run_when_another_process_enqueues_then_the_watch_finds_it(
    polar: House,
) -> None:
    polar.start("worker", "--concurrency", "4")
    assert eventually(polar.working), polar.output()

    polar.do("enqueue", "journey.note", "{}", "20")

    assert eventually(lambda: all_succeeded(polar, 20)), polar.output()
    assert len(polar.carried()) == 20


def test_run_when_its_worker_is_killed_then_another_carries_it_on(
    polar: House,
) -> None:
    polar.do("enqueue", "journey.wait", '{"seconds": 1}')
    first = polar.start("worker", "--concurrency", "4")
    assert eventually(lambda: polar.states() == {"running": 1}), polar.output()

    first.send_signal(signal.SIGKILL)
    first.wait()
    polar.hurry()
    second = polar.start("worker", "--concurrency", "4")

    assert eventually(lambda: all_succeeded(polar, 1)), polar.output()
    assert [line[1:] for line in polar.carried()] == [["2", str(second.pid)]]


@pytest.mark.parametrize(
    ("failpoint", "carried"),
    [
        ("run.claimed.before_commit", 1),
        ("run.claimed", 1),
        ("run.handler.start", 1),
        ("run.handler.done", 2),
        ("run.finish.before_commit", 2),
        ("run.finished", 1),
    ],
)
def test_run_when_worker_dies_at_a_failpoint_then_it_ends_once(
    polar: House, failpoint: str, carried: int
) -> None:
    polar.do("enqueue", "journey.note", "{}")
    dying = polar.start("worker", "--concurrency", "2", die=failpoint)
    assert dying.wait(timeout=15) == -signal.SIGKILL, polar.output()

    polar.hurry()
    polar.start("worker", "--concurrency", "2")

    assert eventually(lambda: all_succeeded(polar, 1)), polar.output()
    finished = "SELECT count(*) FROM audit_event WHERE type = 'run.finished'"
    assert (len(polar.carried()), polar.rows(finished)) == (carried, [(1,)])


def test_worker_when_told_to_leave_then_polite_runs_go_back_to_the_queue(
    polar: House,
) -> None:
    polar.do("enqueue", "journey.wait", '{"seconds": 60, "polite": true}')
    worker = polar.start("worker", "--concurrency", "2")
    assert eventually(lambda: polar.states() == {"running": 1}), polar.output()

    told_at = time.monotonic()
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(timeout=10) == 0, polar.output()
    assert time.monotonic() - told_at < 10
    assert polar.states() == {"queued": 1}


def test_worker_when_told_to_leave_then_stubborn_runs_are_given_back(
    polar: House,
) -> None:
    polar.do("enqueue", "journey.wait", '{"seconds": 60}')
    worker = polar.start("--patience", "1", "worker", "--concurrency", "2")
    assert eventually(lambda: polar.states() == {"running": 1}), polar.output()

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(timeout=20) == 0, polar.output()
    given_back = polar.rows("SELECT state, reason, attempt FROM runs_run")
    assert given_back == [("queued", "released", 0)]
