"""The clock is killed at each of its steps: a slot fires once, the log seals whole."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.processes import House, eventually, house

pytestmark = pytest.mark.journey

#: Where the clock dies, one death after the other. The first is a slot being fired.
FAILPOINTS = [
    "run.enqueued",
    "audit.seal.before_commit",
    "audit.sealed",
    "audit.witnessed",
]
LEASE = ("--lease", "2")
DUE = """
    UPDATE runs_schedule SET next_at = '2026-01-01 06:00:00', catch_up = 'one'
    WHERE slug = 'snapshots'
"""
SLOTS = """
    SELECT slot.state, count(*) FROM runs_slot AS slot
    JOIN runs_schedule AS plan ON plan.id = slot.schedule_id
    WHERE plan.slug = 'snapshots' AND slot.state = 'fired' GROUP BY slot.state
"""
ANSWERED = "SELECT state, count(*) FROM agents_turn GROUP BY state"
UNSEALED = "SELECT count(*) FROM audit_event WHERE gseq IS NULL"


@pytest.fixture
def polar(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, "seed_demo") as built:
        yield built


def test_clock_when_killed_at_each_step_then_the_next_one_goes_on(
    polar: House,
) -> None:
    polar.write(DUE)
    for failpoint in FAILPOINTS:
        # Each death has something of its own to seal.
        assert polar.do("ask", "What time is it?") == 0, polar.output()
        dying = polar.start(*LEASE, "clock", die=failpoint)
        assert dying.wait(timeout=60) == -signal.SIGKILL, polar.output()

    polar.start(*LEASE, "clock")
    polar.start("worker", "--concurrency", "2")

    done = eventually(lambda: polar.rows(ANSWERED) == [("answered", len(FAILPOINTS))])
    assert done, f"{polar.states()} {polar.output()}"
    fired = eventually(lambda: polar.rows(SLOTS) == [("fired", 1)])
    assert fired, f"{polar.rows(SLOTS)} {polar.output()}"
    sealed = eventually(lambda: polar.rows(UNSEALED) == [(0,)])
    assert sealed, polar.output()
    assert polar.do("audit", "verify") == 0, polar.output()
