"""How long real processes take to see that the store under them went back."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.processes import House, eventually

#: The issue asks for 10 s while running; a machine under load may take longer.
PATIENCE = 60.0


@contextmanager
def at_work(folder: Path, url: str) -> Iterator[House]:
    """A clock and a worker over a store, once all that was queued is done."""
    polar = House(folder, url)
    try:
        polar.start("clock")
        polar.start("worker", "--concurrency", "4")
        assert eventually(lambda: ready(polar)), polar.output()
        yield polar
    finally:
        polar.stop_all()


def ready(polar: House) -> bool:
    owned = polar.rows("SELECT 1 FROM runs_clocklease WHERE owner <> ''")
    unsealed = polar.rows("SELECT 1 FROM audit_event WHERE gseq IS NULL")
    settled = "queued" not in polar.states() and "running" not in polar.states()
    return bool(owned and polar.working() and settled and not unsealed)


def seen_while_running(
    name: str, folder: Path, url: str, swap: Callable[[], None]
) -> list[str]:
    """Let the store go back under live processes. Shape: the runs they carried."""
    with at_work(folder, url) as polar:
        swap()
        seconds = until_alarm(polar)
        time.sleep(3)  # whoever would carry something again has the time for it
        carried = [line[0] for line in polar.carried()]
    sys.stdout.write(f"{name}: seen {seconds:.1f} s after it, processes running\n")
    assert len(carried) == len(set(carried)), carried
    return carried


def seen_at_start(name: str, folder: Path, url: str) -> None:
    """Start a worker over a store that went back, and measure what it takes."""
    polar = House(folder, url)
    try:
        bare = time.monotonic()
        assert polar.do("enqueue", "journey.note", "{}", "0") == 0, polar.output()
        bare = time.monotonic() - bare
        polar.start("worker", "--concurrency", "4")
        seconds = until_alarm(polar)
        time.sleep(2)
        carried = polar.carried()
    finally:
        polar.stop_all()
    sys.stdout.write(
        f"{name}: seen {seconds:.1f} s after a worker was started; a process that"
        f" does nothing takes {bare:.1f} s\n"
    )
    assert not carried


def until_alarm(polar: House) -> float:
    begun = time.monotonic()
    alarm = polar.folder / "witness" / "alarm.json"
    assert eventually(alarm.exists, PATIENCE), polar.output()[-3000:]
    return time.monotonic() - begun
