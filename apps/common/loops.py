"""The boundary of every long-lived loop.

A loop meets faults that pass: a broker gone, a disk full, a database restarting.
It says so once per fault, lets go of its connection, which may be what is broken,
waits longer each time, and goes on.
"""

import logging
import threading
from collections.abc import Callable

from django.db import connections

from . import clock

logger = logging.getLogger(__name__)

#: The longest pause between two tries. Units: seconds.
LONGEST_PAUSE_SECONDS = 30.0


def run_forever(
    name: str,
    step: Callable[[], object],
    *,
    interval: float,
    stop: threading.Event,
    longest: float = LONGEST_PAUSE_SECONDS,
) -> None:
    """Call `step` every `interval` seconds until `stop` is set.

    Again: a step that raises is tried again after 1, 2, 4 … `longest` seconds.
    """
    pause = 1.0
    while not stop.is_set():
        started = clock.monotonic()
        try:
            step()
        except Exception:
            logger.exception(
                "loop step failed", extra={"event": "loop.failed", "loop": name}
            )
            _let_go()
            stop.wait(min(pause, longest))
            pause = min(pause * 2, longest)
            continue
        pause = 1.0
        stop.wait(max(0.0, interval - (clock.monotonic() - started)))


def _let_go() -> None:
    """Close this thread's connections: a server that restarted has forgotten them,
    and a pool that has lent them all has none for those who ask anew."""
    for each in connections.all(initialized_only=True):
        if not each.in_atomic_block:
            each.close()
