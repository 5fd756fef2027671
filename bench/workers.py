"""Whole worker processes: how many turns two of them carry, and how soon one starts."""

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.db.models import QuerySet

from apps.agents.models import Turn
from apps.runs.models import Run, WorkerBeat

from . import cpu
from .measures import Row, check_answered, percentile, start_turns, wait_for
from .stand import Stand, worker_command

#: The share of the runs that is looked at: while both processes are at work.
FROM, TO = 0.2, 0.8


def throughput(
    stand: Stand, count: int, processes: int, text: str, how: str
) -> list[Row]:
    """Queue turns first, then let worker processes carry them.

    The rate is that of the middle of them: starting and stopping is not in it.
    """
    queued = start_turns(stand, count, text)
    begun = cpu.now()
    with ExitStack() as stack:
        WorkerBeat.objects.all().delete()
        pids = [stack.enter_context(_worker(32)) for _ in range(processes)]
        wait_for(lambda: not _open(queued), 300)
        warm = cpu.now(*pids)
    check_answered(queued)
    ended = sorted(_runs(queued).values_list("finished_at", flat=True))
    first, last = ended[int(count * FROM)], ended[int(count * TO) - 1]
    made = (int(count * TO) - 1 - int(count * FROM)) / (last - first).total_seconds()
    used = warm - begun
    title = f"{processes} worker processes, {how}"
    return [
        (f"{title}: turns carried", made, "/s"),
        (f"{title}: CPU per turn, start-up included", used.polar / count * 1e3, "ms"),
        (f"{title}: the server's CPU per turn", used.server / count * 1e3, "ms"),
    ]


def start_latency(stand: Stand, count: int, how: str) -> list[Row]:
    """From due to started, one run after another, with one worker process."""
    with ExitStack() as stack:
        WorkerBeat.objects.all().delete()
        stack.enter_context(_worker(64))
        wait_for(lambda: WorkerBeat.objects.exists(), 60)
        warm = start_turns(stand, 5, "hello")
        wait_for(lambda: not _open(warm), 60)
        started: list[Turn] = []
        for _ in range(count):
            started += start_turns(stand, 1, "hello")
            time.sleep(0.1)
        wait_for(lambda: not _open(started), 60)
    waits = [
        (run.started_at - run.due_at).total_seconds() * 1000
        for run in _runs(started)
        if run.started_at
    ]
    return [
        (f"due to started, {how}, p50", statistics.median(waits), "ms"),
        (f"due to started, {how}, p95", percentile(waits, 0.95), "ms"),
    ]


@contextmanager
def _worker(concurrency: int) -> Iterator[int]:
    process = subprocess.Popen(worker_command(concurrency), env=dict(os.environ))
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def _runs(turns: list[Turn]) -> QuerySet[Run]:
    return Run.objects.filter(id__in=[turn.run_id for turn in turns])


def _open(turns: list[Turn]) -> bool:
    mine = Turn.objects.filter(id__in=[turn.id for turn in turns])
    return mine.filter(state="open").exists()
