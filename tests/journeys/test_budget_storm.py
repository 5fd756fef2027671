"""Turns fight for one budget of $1.00 while workers are killed in mid-call.

The vendor keeps its cap and counts what it would bill, whoever still listens.
`make chaos` sets the size: POLAR_PURSE_TURNS, POLAR_PURSE_KILLS.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.openai_server import FakeOpenAI, openai_server
from tests.journeys.processes import House, eventually, house
from tests.journeys.storm import end

TURNS = int(os.environ.get("POLAR_PURSE_TURNS", "0"))
KILLS = int(os.environ.get("POLAR_PURSE_KILLS", "6"))
LEASE = 6
LIMIT, TOKENS, PRICE = 1_000_000, 480, 40
BILLED = TOKENS * PRICE
MOVING = {"queued", "running", "waiting_provider"}

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(not TURNS, reason="`make chaos` has this storm"),
]


HELD = """
    SELECT r.lease_owner, c.id FROM gateway_reservation h
      JOIN gateway_call c ON c.id = h.call_id JOIN runs_run r ON r.id = c.run_id
     WHERE h.settled_amount IS NULL AND r.state = 'running' AND c.state = 'executing'
"""
OPEN = "SELECT call_id FROM gateway_reservation WHERE settled_amount IS NULL"


class Purse:
    """A house whose people spend one budget at a vendor."""

    def __init__(self, polar: House, vendor: FakeOpenAI) -> None:
        self.polar, self.vendor = polar, vendor
        self.workers = {each.pid: each for each in map(self.worker, range(3))}
        self.most = self.kills = 0
        self.chance = random.Random(1)
        #: When the worker of a call was killed, and how long it kept the money.
        self.orphaned: dict[str, float] = {}
        self.kept: list[float] = []

    def worker(self, _: int = 0) -> "subprocess.Popen[bytes]":
        return self.polar.start("--lease", str(LEASE), "worker", "--concurrency", "8")

    def look(self) -> tuple[int, int]:
        """Return what is spent and what is set aside; note what changed."""
        ((spent, reserved),) = self.polar.rows(
            "SELECT spent, reserved FROM gateway_budget"
        )
        self.most = max(self.most, spent + reserved)
        still = {str(call) for (call,) in self.polar.rows(OPEN)}
        for call in set(self.orphaned) - still:
            self.kept.append(time.monotonic() - self.orphaned.pop(call))
        return spent, reserved

    def held(self) -> dict[int, list[str]]:
        """Return the calls under way that hold money, by their worker."""
        found: dict[int, list[str]] = {}
        for owner, call in self.polar.rows(HELD):
            pid = int(owner.split(":")[-2])
            if pid in self.workers:
                found.setdefault(pid, []).append(str(call))
        return found

    def kill(self) -> None:
        """SIGKILL a worker that holds money, while there is one; start another."""
        eventually(lambda: bool(self.held()) or self.is_quiet(), 90)
        if not (held := self.held()):
            return
        self.kills += 1
        pid = self.chance.choice(sorted(held))
        end(self.workers.pop(pid))
        now = time.monotonic()
        self.orphaned |= dict.fromkeys(held[pid], now)
        self.look()
        fresh = self.worker()
        self.workers[fresh.pid] = fresh

    def is_quiet(self) -> bool:
        return not self.look()[1] and not set(self.polar.states()) & MOVING


@pytest.fixture
def purse(tmp_path: Path) -> Iterator[Purse]:
    with openai_server() as vendor, house(tmp_path, "seed_demo") as polar:
        vendor.delay_seconds, vendor.tokens_out = 0.7, TOKENS
        assert polar.do("purse", vendor.url, str(TURNS)) == 0, polar.output()
        polar.start("--lease", str(LEASE), "clock")
        yield Purse(polar, vendor)


def test_nothing_is_overspent_and_nothing_stays_set_aside(purse: Purse) -> None:
    for _ in range(KILLS):
        purse.kill()
        pause(purse, 0.8)
    assert eventually(purse.is_quiet, 60 + TURNS), purse.polar.output()[-4000:]

    spent, reserved = purse.look()
    billed = len(purse.vendor.requests) * BILLED
    tell(purse, billed)
    assert purse.kept and not purse.orphaned
    assert billed <= spent <= purse.most <= LIMIT and reserved == 0
    check_books(purse.polar, spent)


def pause(purse: Purse, seconds: float) -> None:
    until = time.monotonic() + seconds
    eventually(lambda: purse.look() and time.monotonic() > until, seconds + 5)


def tell(purse: Purse, billed: int) -> None:
    """Say what it came to, for those who run it at full size."""
    ends = dict(
        purse.polar.rows("SELECT state, count(*) FROM agents_turn GROUP BY state")
    )
    sys.stdout.write(
        f"purse: {TURNS} turns, {purse.kills} kills, turns {ends}, vendor billed "
        f"${billed / 1e6:.4f} for {len(purse.vendor.requests)} calls, booked "
        f"${purse.look()[0] / 1e6:.4f}, most at any look ${purse.most / 1e6:.4f}, "
        f"{len(purse.kept)} reservations of the dead kept {max(purse.kept):.1f} s at "
        f"most (lease {LEASE} s)\n"
    )


def check_books(polar: House, spent: int) -> None:
    """No reservation is open, and what they were settled at is what was spent."""
    ((still, booked),) = polar.rows(
        "SELECT count(*) - count(settled_amount), coalesce(sum(settled_amount), 0)"
        " FROM gateway_reservation"
    )
    assert (still, booked) == (0, spent)
    turns = polar.rows("SELECT DISTINCT state, reason FROM agents_turn")
    assert set(turns) <= {("answered", ""), ("failed", "POLAR_BUDGET_EXCEEDED")}, turns
