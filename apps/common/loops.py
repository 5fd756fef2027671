"""The boundary of every long-lived loop.

A loop meets faults that pass: a broker gone, a disk full, a database restarting.
It says so once per fault, waits longer each time, and goes on.
"""

import logging
import threading
from collections.abc import Callable

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
) -> None:
    """Call `step` every `interval` seconds until `stop` is set.

    Again: a step that raises is tried again after 1, 2, 4 … 30 s.
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
            stop.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            continue
        pause = 1.0
        stop.wait(max(0.0, interval - (clock.monotonic() - started)))
