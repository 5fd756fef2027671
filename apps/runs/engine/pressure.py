"""Back-pressure: a queue that is too long takes no more work that can wait.

Invariants: what was accepted stays; people's messages, handoffs and children are
never refused; the queue is measured at most once a second per process, and never
beyond the limit.
"""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db.models import Count, Min

from apps.common import clock
from apps.runs.errors import QueueFull
from apps.runs.models import Run, State, Trigger, WorkerBeat

#: What may be asked again later.
CAN_WAIT = frozenset(
    {Trigger.API, Trigger.EVENT, Trigger.SCHEDULE, Trigger.HEARTBEAT, Trigger.REPLAY}
)
MEASURE_SECONDS = 1.0


@dataclass(slots=True)
class _Measured:
    at: float = float("-inf")
    is_full: bool = False


_measured = _Measured()


def check(trigger: str, *, has_parent: bool, priority: int) -> None:
    """Refuse work that can wait while the queue is too long. Raises: QueueFull."""
    if trigger not in CAN_WAIT or has_parent or priority > 0:
        return
    if is_full():
        limit = settings.POLAR_QUEUE_LIMIT
        raise QueueFull(f"{limit} runs wait already; work that can wait is refused.")


def is_full() -> bool:
    """Tell whether the queue is at its limit."""
    moment = clock.monotonic()
    if moment - _measured.at >= MEASURE_SECONDS:
        limit = settings.POLAR_QUEUE_LIMIT
        waiting = Run.objects.due(clock.now()).order_by()[:limit].count()
        _measured.at, _measured.is_full = moment, waiting >= limit
    return _measured.is_full


@dataclass(frozen=True, slots=True)
class Depth:
    """How many due runs of a queue wait, and since when."""

    queue: str
    depth: int
    oldest: datetime | None


def depths(now: datetime) -> list[Depth]:
    """Measure every queue that has due runs."""
    rows = Run.objects.due(now).values("queue").order_by("queue")
    found = rows.annotate(depth=Count("id"), oldest=Min("due_at"))
    return [Depth(row["queue"], row["depth"], row["oldest"]) for row in found]


def metrics() -> str:
    """Write the state of the work for Prometheus.

    Shape: text exposition format 0.0.4.   Reads: open work alone, by index.
    """
    now = clock.now()
    queues = depths(now)
    known = {depth.queue for depth in queues} | {"default", "listen"}
    by_queue = {depth.queue: depth for depth in queues}
    lines = [
        "# HELP polar_queue_depth Runs that are due and wait for a worker.",
        "# TYPE polar_queue_depth gauge",
    ]
    for queue in sorted(known):
        count = by_queue[queue].depth if queue in by_queue else 0
        lines.append(f'polar_queue_depth{{queue="{queue}"}} {count}')
    lines += [
        "# HELP polar_queue_oldest_seconds How long the oldest due run waits.",
        "# TYPE polar_queue_oldest_seconds gauge",
    ]
    for queue in sorted(known):
        oldest = by_queue[queue].oldest if queue in by_queue else None
        age = max(0.0, (now - oldest).total_seconds()) if oldest else 0.0
        lines.append(f'polar_queue_oldest_seconds{{queue="{queue}"}} {age:.3f}')
    return "\n".join([*lines, *_open_runs(), *_workers(), ""])


def _open_runs() -> list[str]:
    states = [State.QUEUED, State.RUNNING, State.DEAD_LETTER]
    states += [state for state in State if state.startswith("waiting_")]
    rows = Run.objects.filter(state__in=states).order_by().values_list("state")
    counts = dict(rows.annotate(runs=Count("id")))
    return [
        "# HELP polar_runs Runs that are not over, and dead letters.",
        "# TYPE polar_runs gauge",
        *(f'polar_runs{{state="{state}"}} {counts.get(state, 0)}' for state in states),
    ]


def _workers() -> list[str]:
    beats = WorkerBeat.objects.count()
    return [
        "# HELP polar_workers Worker processes heard of in the last ten minutes.",
        "# TYPE polar_workers gauge",
        f"polar_workers {beats}",
    ]
