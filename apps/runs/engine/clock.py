"""One of any number of clock processes does the jobs; the others stand by.

Invariants: the lease is taken by one conditional UPDATE; every job is safe to
repeat, so a moment with two clocks does no harm; a slow job delays no other.
"""

import os
import socket
import threading
from datetime import timedelta

from django.db import connection
from django.db.models import Q

from apps.audit import services as audit
from apps.audit.errors import StoreInDoubt
from apps.common import clock, ids
from apps.common.loops import run_forever
from apps.runs.engine import guard
from apps.runs.models import LONGEST_LEASE, ClockLease
from apps.runs.ports import Tick, ticks

LEASE_SECONDS = 15.0
RENEW_SECONDS = 3.0
#: Jobs at least this far apart give their connection back in between.
REST_SECONDS = 1.0


class Clock:
    """A process that tries to be the clock."""

    def __init__(self) -> None:
        self.owner = (
            f"{socket.gethostname()[:40]}:{os.getpid()}:{ids.new_id().hex[-8:]}"
        )
        self._held_until = 0.0

    def acquire(self) -> bool:
        """Take or renew the clock's lease; False while another process has it."""
        now, moment = clock.now(), clock.monotonic()
        ClockLease.load()
        free = Q(owner=self.owner) | Q(lease_until__isnull=True)
        over = Q(lease_until__lte=now) | Q(lease_until__gt=now + LONGEST_LEASE)
        taken = ClockLease.objects.filter(free | over).update(
            owner=self.owner, lease_until=now + timedelta(seconds=LEASE_SECONDS)
        )
        self._held_until = moment + LEASE_SECONDS if taken else 0.0
        return bool(taken)

    def holds(self) -> bool:
        return clock.monotonic() < self._held_until

    def release(self) -> None:
        """Let another process be the clock at once."""
        self._held_until = 0.0
        mine = ClockLease.objects.filter(owner=self.owner)
        mine.update(owner="", lease_until=None)

    def run(self, stop: threading.Event) -> None:
        """Do the jobs until told to stop."""
        guard.start(stop)
        threads = [self._start(tick, stop) for tick in ticks]
        run_forever(
            "clock.lease",
            self.acquire,
            interval=RENEW_SECONDS,
            stop=stop,
            longest=RENEW_SECONDS,
        )
        for thread in threads:
            thread.join(timeout=2)
        self.release()

    def _start(self, tick: Tick, stop: threading.Event) -> threading.Thread:
        def step() -> None:
            self.do(tick)

        thread = threading.Thread(
            target=run_forever,
            args=(tick.name, step),
            kwargs={"interval": tick.every_seconds, "stop": stop},
            name=tick.name,
            daemon=True,
        )
        thread.start()
        return thread

    def do(self, tick: Tick) -> None:
        """Do one job, if this process is the clock and the store is not in doubt."""
        if not self.holds():
            return
        try:
            if tick.in_doubt or _is_trusted():
                tick.job()
        finally:
            if tick.every_seconds >= REST_SECONDS and not connection.in_atomic_block:
                connection.close()


def _is_trusted() -> bool:
    try:
        audit.check_here()
    except StoreInDoubt:
        return False
    return True
