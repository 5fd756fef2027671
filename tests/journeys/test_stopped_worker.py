"""Workers are stopped until others carry their runs; awake again, they write nothing.

Each stop is three leases long, so only `make chaos` plays it: POLAR_STORM_STOPS says
how often, POLAR_STOP_LEASE how long a lease is.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys import aftermath
from tests.journeys.processes import Process, eventually
from tests.journeys.storm import Storm, plain, storm

STOPS = int(os.environ.get("POLAR_STORM_STOPS", "0"))
LEASE = os.environ.get("POLAR_STOP_LEASE", "1.5")
WORKERS = 5
#: So many runs wait at any time that nobody is ever idle.
WAITING = 40
HELD = "SELECT id, fence FROM runs_run WHERE state = 'running' AND lease_owner LIKE "

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(not STOPS, reason="make chaos plays it"),
]

#: A run and the fence under which somebody carried it.
Carried = tuple[str, int]


class Feed:
    """Messages, as many as the workers can take, until told to stop."""

    def __init__(self, built: Storm) -> None:
        self.built, self.texts = built, dict[str, str]()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._feed)

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self._enough.set()
        self._thread.join()

    def _feed(self) -> None:
        number = 0
        while not self._enough.wait(0.02):
            if self.built.polar.states().get("queued", 0) < WAITING:
                text = "once" if number % 4 == 3 else "keyed"
                self.texts[self.built.ask(number, text)] = text
                number += 1


def test_worker_that_was_stopped_for_three_leases_writes_nothing_when_it_wakes(
    tmp_path: Path,
) -> None:
    told = {"workers": WORKERS, "lease": LEASE, "effect_seconds": 0.5}
    with storm(tmp_path, **told) as built:
        taken: set[Carried] = set()
        stops = 0
        with Feed(built) as feed:
            for awake in rounds():
                if stops >= STOPS:
                    break
                stopped, lost = stop_all_but(built, awake)
                stops, taken = stops + stopped, taken | lost
        assert built.quiet(), f"{built.polar.states()} {built.polar.output()[-4000:]}"
        refused = set(fenced(built))
        sys.stdout.write(
            f"{stops} stops of {3 * float(LEASE)} s, {len(feed.texts)} runs,"
            f" {len(taken)} taken over, {len(refused)} stale ends refused,"
            f" ends {built.polar.states()}\n"
        )

        assert taken
        assert taken <= refused
        check_no_stale_end(built)
        aftermath.check(built, feed.texts)


def rounds() -> Iterator[str]:
    """Who stays awake, in turn, so that everybody is stopped and takes over."""
    while True:
        yield from (f"worker{number + 1}" for number in range(WORKERS))


def stop_all_but(built: Storm, awake: str) -> tuple[int, set[Carried]]:
    """Shape: how many were stopped at work, what others took from them."""
    victims = [
        process
        for role, process in built.roles.items()
        if role.startswith("worker") and role != awake
    ]
    for victim in victims:
        at_work = eventually(lambda pid=victim.pid: bool(held_by(built, pid)))
        assert at_work, built.polar.output()[-2000:]
        stop(built, victim)
    held = [held_by(built, victim.pid) for victim in victims]
    time.sleep(3 * float(LEASE))
    now = fences(built)
    for victim in victims:
        victim.send_signal(signal.SIGCONT)
    lost = {(run, fence) for each in held for run, fence in each if now[run] > fence}
    return sum(bool(each) for each in held), lost


def stop(built: Storm, victim: Process) -> None:
    """Stop a worker between its transactions: one that stops with the SQLite file in
    its hand lets nobody else write, and so nobody can take over from it."""
    for _ in range(200):
        victim.send_signal(signal.SIGSTOP)
        # Looked at twice: a system call that was under way may end by taking the lock.
        if built.polar.takes_writers():
            time.sleep(0.05)
            if built.polar.takes_writers():
                return
        victim.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    raise AssertionError("it never lets go of the file")


def held_by(built: Storm, pid: int) -> list[Carried]:
    rows = built.polar.rows(f"{HELD}'%:{pid}:%'")
    return [(plain(run), int(fence)) for run, fence in rows]


def fences(built: Storm) -> dict[str, int]:
    rows = built.polar.rows("SELECT id, fence FROM runs_run")
    return {plain(run): int(fence) for run, fence in rows}


def fenced(built: Storm) -> Iterator[Carried]:
    """What workers said that they dropped because it was no longer theirs."""
    for line in built.polar.output().splitlines():
        if '"run.fenced"' in line:
            said = json.loads(line)
            yield plain(said["run_id"]), int(said["fence"])


def check_no_stale_end(built: Storm) -> None:
    """Each run has one end, under the fence of whoever carried it last."""
    now = fences(built)
    ends = built.polar.rows(
        "SELECT run_id, body FROM audit_event WHERE type = 'run.finished'"
    )
    under = [(plain(run), int(json.loads(body)["data"]["fence"])) for run, body in ends]
    assert len(under) == len(dict(under))
    assert all(now[run] == fence for run, fence in under)
