"""A worker process from start to leaving: keeper, watch, hand-over, goodbye.

Invariants: after the first sign to leave nothing is claimed; leases are given back
before the process is gone; it is gone within `LEAVE_SECONDS`.
"""

import logging
import os
import threading
from collections.abc import Callable

from django.db import DatabaseError, connection

from apps.common import clock, settling
from apps.runs.engine import leases
from apps.runs.engine.claim import Claimed
from apps.runs.engine.executor import carry
from apps.runs.engine.leases import LeaseKeeper
from apps.runs.engine.watch import Watch
from apps.runs.ports import warm_ups

logger = logging.getLogger(__name__)

#: Runs in hand may end by themselves for so long after the sign to leave.
PATIENCE_SECONDS = 15.0
#: Work waits so long at most for what is loaded ahead of it.
WARM_UP_SECONDS = 10.0

Submit = Callable[[Callable[[Claimed, LeaseKeeper], None], Claimed, LeaseKeeper], None]


class Carrier:
    """What a worker does besides listening to the broker."""

    def __init__(self, *, queues: tuple[str, ...], concurrency: int) -> None:
        self.keeper = leases.install(
            LeaseKeeper(queues=queues, concurrency=concurrency)
        )
        self._watch: Watch | None = None

    def start(self, submit: Submit) -> None:
        """Begin to renew, to beat, to look and to sweep."""

        def hand(claimed: Claimed) -> None:
            submit(carry, claimed, self.keeper)

        self.keeper.start()
        self._watch = Watch(self.keeper, hand)
        warm_up = threading.Thread(target=_warm_up, name="warm-up", daemon=True)
        warm_up.start()
        # What is loaded beside the work slows down who holds a lock meanwhile, and
        # everybody who waits for it.
        warm_up.join(WARM_UP_SECONDS)
        self._watch.start()
        logger.info("worker started", extra={"event": "worker.started"})

    def leave(self) -> int:
        """Stop claiming, wait for runs in hand, give back the rest.

        Shape: how many runs were given back while their threads still run.
        """
        self.keeper.leaving.set()
        if self._watch is not None:
            self._watch.stop()
        until = clock.monotonic() + PATIENCE_SECONDS
        while self.keeper.in_flight() and clock.monotonic() < until:
            clock.sleep(0.05)
        left = self.keeper.release_all()
        self.keeper.forget_beat()
        self.keeper.stop()
        connection.close()
        return left

    def leave_for_good(self) -> None:
        """Leave; threads that do not end are abandoned with their process."""
        left = self.leave()
        if left or self.keeper.in_flight():
            logger.warning(
                "left with runs in hand", extra={"event": "worker.left", "runs": left}
            )
            logging.shutdown()
            os._exit(0)


def _warm_up() -> None:
    """A store that is not ready now is met again by the runs themselves."""
    try:
        warm_ups.do_all()
    except DatabaseError:
        logger.warning("not warmed up", extra={"event": "worker.cold"}, exc_info=True)
    finally:
        connection.close()
        settling.freeze()
