"""The measurements. Each returns rows of (what, value, unit)."""

import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from django.db import connection, transaction

from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import Turn
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.errors import Denied
from apps.extensions import services as extensions
from apps.gateway.ports import Lineage
from apps.runs import services as runs
from apps.runs.engine import leases
from apps.runs.models import Run

from . import cpu
from .stand import Stand

Row = tuple[str, float, str]
CLOCK_TOOL = "polar__clock_now"


def percentile(values: list[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


def start_turns(stand: Stand, count: int, text: str) -> list[Turn]:
    """One conversation each, so that no turn waits for another."""
    return [
        agents.start_turn(
            conversation=agents.start_conversation(
                workspace=stand.workspace, principal=stand.principal, channel="bench"
            ),
            principal=stand.principal,
            text=text,
            origin="synthetic",
        )
        for _ in range(count)
    ]


def check_answered(turns: list[Turn]) -> None:
    ids = [turn.id for turn in turns]
    rows = Turn.objects.filter(id__in=ids).exclude(state="answered")
    bad = list(rows.values_list("state", "reason", "run__state", "run__error_detail"))
    if bad:
        raise SystemExit(f"{len(bad)} turns did not answer, such as {bad[0]}")


def _execute(turn: Turn) -> float:
    begun = time.perf_counter()
    runs.execute(turn.run_id)
    return time.perf_counter() - begun


def turns(stand: Stand, count: int, threads: int, text: str, title: str) -> list[Row]:
    """Start and carry turns; the model answers in no time, so this is overhead."""
    begun = time.perf_counter()
    started = start_turns(stand, count, text)
    starting = time.perf_counter() - begun
    before, begun = cpu.now(), time.perf_counter()
    if threads == 1:
        took = [_execute(turn) for turn in started]
    else:
        with ThreadPoolExecutor(threads) as pool:
            took = list(pool.map(_execute, started))
    wall, used = time.perf_counter() - begun, cpu.now() - before
    check_answered(started)
    return [
        (f"{title}: turns carried", count / wall, "/s"),
        (f"{title}: in worker, p50", statistics.median(took) * 1000, "ms"),
        (f"{title}: in worker, p95", percentile(took, 0.95) * 1000, "ms"),
        (f"{title}: CPU per turn", used.polar / count * 1000, "ms"),
        (f"{title}: the server's CPU per turn", used.server / count * 1000, "ms"),
        (f"{title}: taking a message in", starting / count * 1000, "ms"),
    ]


def tool_calls(stand: Stand, count: int) -> list[Row]:
    """Tool calls straight through the gateway, allowed and denied."""

    def call(scope: list[str]) -> None:
        extensions.execute_tool(
            alias=CLOCK_TOOL,
            arguments={},
            principal=stand.agent,
            workspace_id=stand.workspace.id,
            lineage=Lineage(agent="bench"),
            scope={"allowed": {"polar": scope}},
            idempotency_key=uuid.uuid4().hex,
        )

    def denied() -> None:
        try:
            call(["calculator.evaluate"])
        except Denied:
            return
        raise SystemExit("a call outside its scope was allowed")

    return [
        rate("tool calls allowed, one thread", count, lambda: call(["clock.now"])),
        rate("tool calls denied, one thread", count, denied),
    ]


def rate(title: str, count: int, work: Callable[[], object]) -> Row:
    begun = time.perf_counter()
    for _ in range(count):
        work()
    return (title, count / (time.perf_counter() - begun), "/s")


def _record() -> None:
    audit.record(type="token.issued", actor=SYSTEM, data={"what": "bench"})


def fill_log(count: int) -> None:
    for start in range(0, count, 1000):
        with transaction.atomic():
            for _ in range(min(1000, count - start)):
                _record()


def trace(stand: Stand) -> list[Row]:
    """Read one turn's trace, as the trace page does."""
    [turn] = start_turns(stand, 1, "what is 2+3?")
    _execute(turn)
    check_answered([turn])

    def read() -> float:
        begun = time.perf_counter()
        agents_queries.trace(trace_id=turn.trace_id, principal=stand.principal)
        return time.perf_counter() - begun

    took = [read() for _ in range(50)]
    return [("one trace read, p50", statistics.median(took) * 1000, "ms")]


def log(count: int) -> list[Row]:
    """Record, seal and verify."""

    def one() -> None:
        with transaction.atomic():
            _record()

    audit.seal_all()
    rows = [rate("audit events recorded, one commit each", min(count, 2000), one)]
    begun = time.perf_counter()
    fill_log(count)
    rows.append(("audit events recorded, 1000 a commit", count / _since(begun), "/s"))
    begun = time.perf_counter()
    sealed = audit.seal_all()
    rows.append(("audit events sealed", sealed / _since(begun), "/s"))
    begun = time.perf_counter()
    verdict = audit.verify()
    if not verdict.ok:
        raise SystemExit(f"the log does not verify: {verdict}")
    rows.append(
        (
            f"audit events verified, of {verdict.size:,}",
            verdict.size / _since(begun),
            "/s",
        )
    )
    return rows


def _since(begun: float) -> float:
    return time.perf_counter() - begun


def wait_for(done: Callable[[], bool], seconds: float) -> None:
    until = clock.monotonic() + seconds
    while not done():
        if clock.monotonic() > until:
            raise SystemExit(f"not done within {seconds} s")
        time.sleep(0.1)


def in_flight(stand: Stand, count: int, delay_seconds: float) -> list[Row]:
    """Many turns that wait for a slow model at once, in this one process."""
    started = start_turns(stand, count, "wait")
    leases.keeper().start()
    peak = Peak(stand.backend)
    begun = time.perf_counter()
    with peak, ThreadPoolExecutor(count) as pool:
        took = list(pool.map(_execute, started))
    wall = time.perf_counter() - begun
    leases.keeper().stop()
    check_answered(started)
    title = f"{count} turns, a {delay_seconds:g} s model"
    return [
        (f"{title}: all answered in", wall, "s"),
        (f"{title}: in worker, p95", percentile(took, 0.95), "s"),
        (f"{title}: peak in flight", peak.calls, ""),
        (f"{title}: peak database connections", peak.connections, ""),
        (f"{title}: peak file descriptors", peak.descriptors, ""),
        (f"{title}: peak memory", peak.memory_mib, "MiB"),
    ]


class Peak:
    """Watches this process from a thread and keeps the highest figures."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.connections = self.descriptors = self.calls = 0
        self.memory_mib = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            names = list(self._descriptors())
            self.descriptors = max(self.descriptors, len(names))
            self.connections = max(self.connections, self._count(names))
            with open("/proc/self/statm") as statm:
                pages = int(statm.read().split()[1])
            self.memory_mib = max(self.memory_mib, pages * 4096 // 2**20)
            waiting = Run.objects.filter(state="running").count()
            self.calls = max(self.calls, waiting)
        connection.close()

    def _descriptors(self) -> Iterator[str]:
        for name in os.listdir("/proc/self/fd"):
            try:
                yield os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue

    def _count(self, names: list[str]) -> int:
        if self.backend == "sqlite":
            path = str(connection.settings_dict["NAME"])
            return sum(1 for name in names if name == path)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname ="
                " current_database()"
            )
            return int(cursor.fetchone()[0])
