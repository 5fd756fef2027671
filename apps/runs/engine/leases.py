"""One thread per process keeps the leases of what the process carries.

Hides: renewal, lost leases, the process's beat, the end of a hung interpreter.
Invariants: a lease is renewed only while its step has time left; a run that was
lost stops counting as ours; after `leave` nothing is claimed or renewed.
"""

import faulthandler
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection
from django.db.models import F

from apps.common import clock, ids
from apps.common.loops import run_forever
from apps.runs.engine.claim import Claimed, lease_end
from apps.runs.models import Run, State, WorkerBeat
from apps.runs.ports import STEP_SECONDS
from apps.runs.queries import schema_version

#: How often leases are renewed.
RENEW_SECONDS = 10.0
#: How soon a renewal that failed is tried again, at the latest.
RETRY_SECONDS = 3.0
#: A process whose lease thread is silent for so long ends itself.
HUNG_SECONDS = 60.0


@dataclass(slots=True)
class Held:
    """A run in our hands and until when its step may take."""

    fence: int
    step_until: float
    lost: bool = False


class LeaseKeeper:
    """What this process carries, and the thread that keeps it ours."""

    def __init__(self, *, queues: tuple[str, ...] = (), concurrency: int = 1) -> None:
        self.queues = queues
        self.concurrency = concurrency
        host = socket.gethostname()[:40]
        self.owner = f"{host}:{os.getpid()}:{ids.new_id().hex[-8:]}"
        self.leaving = threading.Event()
        self._held: dict[uuid.UUID, Held] = {}
        self._claiming = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._schema = ""

    # --- what is held

    @contextmanager
    def claiming(self) -> Iterator[bool]:
        """Claim and hold inside: whoever leaves waits for it, or gives back what was
        claimed. Yields whether anything may be claimed."""
        with self._lock:
            may = not self.leaving.is_set()
            self._claiming += may
        try:
            yield may
        finally:
            with self._lock:
                self._claiming -= may

    def hold(self, claimed: Claimed, step_seconds: float = STEP_SECONDS) -> Held:
        held = Held(claimed.fence, clock.monotonic() + step_seconds)
        with self._lock:
            self._held[claimed.id] = held
        return held

    def begin_step(self, held: Held, seconds: float) -> None:
        """Give the step at hand so long from now."""
        held.step_until = clock.monotonic() + seconds

    def drop(self, claimed: Claimed) -> None:
        with self._lock:
            held = self._held.get(claimed.id)
            if held is not None and held.fence == claimed.fence:
                del self._held[claimed.id]

    def in_flight(self) -> int:
        return len(self._held) + self._claiming

    def free(self) -> int:
        """How many more runs this process may take now."""
        if self.leaving.is_set():
            return 0
        return max(0, self.concurrency - len(self._held))

    # --- the thread

    def start(self) -> None:
        """Begin to renew; from now on a hung interpreter ends itself."""
        self._schema = schema_version()
        self._thread = threading.Thread(
            target=run_forever,
            args=("leases", self._turn),
            kwargs={
                "interval": RENEW_SECONDS,
                "stop": self._stop,
                "longest": RETRY_SECONDS,
            },
            name="leases",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
        faulthandler.cancel_dump_traceback_later()

    def _turn(self) -> None:
        faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
        try:
            self.renew()
            self.beat()
        finally:
            connection.close()

    def renew(self) -> int:
        """Renew, in one UPDATE, every lease whose step has time left."""
        now, moment = clock.now(), clock.monotonic()
        with self._lock:
            live = {k: h for k, h in self._held.items() if h.step_until > moment}
            late = [h for h in self._held.values() if h.step_until <= moment]
        for held in late:
            held.lost = True
        if not live:
            return 0
        ours = Run.objects.filter(
            id__in=list(live), lease_owner=self.owner, state=State.RUNNING
        )
        renewed = ours.update(lease_until=lease_end(now))
        if renewed < len(live):
            kept = dict(ours.values_list("id", "fence"))
            for run_id, held in live.items():
                held.lost = kept.get(run_id) != held.fence
        return renewed

    def release_all(self) -> int:
        """Give back what is still running here; its workers write nothing more."""
        return Run.objects.filter(lease_owner=self.owner, state=State.RUNNING).update(
            state=State.QUEUED,
            due_at=clock.now(),
            attempt=F("attempt") - 1,
            reason="released",
            lease_owner="",
            lease_until=None,
        )

    def beat(self) -> None:
        """Say that this process lives, and whether it may still claim."""
        if self._schema and schema_version() != self._schema:
            self.leaving.set()
        WorkerBeat.objects.update_or_create(
            process=self.owner,
            defaults={
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "kinds": list(self.queues),
                "in_flight": self.in_flight(),
                "concurrency": self.concurrency,
                "state": "leaving" if self.leaving.is_set() else "working",
                "beat_at": clock.now(),
                "schema_version": self._schema,
            },
        )

    def forget_beat(self) -> None:
        WorkerBeat.objects.filter(process=self.owner).delete()


#: What this process carries. The worker replaces it at its start.
_keeper = LeaseKeeper()


def keeper() -> LeaseKeeper:
    return _keeper


def install(new: LeaseKeeper) -> LeaseKeeper:
    """Make this the process's keeper."""
    global _keeper
    _keeper = new
    return new
