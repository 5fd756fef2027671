"""Find what nobody rings for: lapsed leases, sleepers, forgotten runs.

Invariants: idempotent, may run in every process at once; each move is conditioned
on what was read.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q

from apps.common import clock
from apps.gateway.models import Halt
from apps.runs.engine import settle
from apps.runs.models import Reason, Run, State, WorkerBeat
from apps.runs.ports import doorbell

#: How many rows of a sort one sweep handles.
BATCH = 200
#: Runs that have been due for longer are rung for again.
OVERDUE = timedelta(seconds=3)
#: How a run names the halt that it waits for.
HALT = "halt:"
#: A process that was silent for so long is forgotten.
SILENT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Swept:
    """How much one sweep found."""

    reclaimed: int
    poisoned: int
    woken: int


def sweep() -> Swept:
    """Put lapsed and sleeping runs back in line.

    Again: finds nothing that the last sweep settled.
    """
    now = clock.now()
    lapsed = list(Run.objects.expired(now).order_by("lease_until", "id")[:BATCH])
    poisoned = sum(_reclaim(run, now) for run in lapsed)
    woken = _wake_sleepers(now) + _wake_resumed()
    WorkerBeat.objects.filter(beat_at__lt=now - SILENT).delete()
    return Swept(len(lapsed) - poisoned, poisoned, woken)


def _reclaim(run: Run, now: datetime) -> bool:
    """Free a run whose worker is gone; True when it is now a dead letter."""
    lapsed = Run.objects.filter(id=run.id, fence=run.fence).expired(now)
    if run.attempt < run.max_attempts:
        lapsed.update(
            state=State.QUEUED,
            due_at=now + settle.back_off(run.attempt),
            reason="lease_lapsed",
            **settle.NOT_LEASED,
        )
        return False
    with transaction.atomic():
        settle.lock_parent(run)
        dead = lapsed.update(
            state=State.DEAD_LETTER,
            reason=Reason.POISON,
            finished_at=now,
            **settle.NOT_LEASED,
        )
        if dead:
            settle.dead_lettered(run, Reason.POISON, attempt=run.attempt)
    return bool(dead)


def _wake_sleepers(now: datetime) -> int:
    overslept = Run.objects.overslept(now).order_by("wake_at", "id")[:BATCH]
    sleepers = [run.id for run in overslept]
    if not sleepers:
        return 0
    due = Q(id__in=sleepers, wake_at__lte=now)
    return len(settle.queue_waiting(due, reason="time_to_go_on"))


def _wake_resumed() -> int:
    """Queue the runs that waited for a halt which is lifted."""
    halted = Run.objects.filter(
        state=State.WAITING_OPERATOR, waiting_on__startswith=HALT
    )
    waited_for = set(halted.values_list("waiting_on", flat=True).distinct()[:BATCH])
    if not waited_for:
        return 0
    active = {f"{HALT}{row.id}" for row in Halt.objects.active()}
    over = Q(waiting_on__in=waited_for - active)
    return len(settle.queue_waiting(over, reason="resumed"))


def ring_for_overdue() -> int:
    """Ring for runs whose hint was lost."""
    now = clock.now()
    overdue = Run.objects.due(now - OVERDUE).in_line()[:BATCH]
    rung = list(overdue.values_list("id", "queue"))
    for run_id, queue in rung:
        doorbell.ring(run_id, queue)
    return len(rung)
