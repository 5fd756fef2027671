"""`python -m bench.pages`: what each page costs, on an empty store and on a full one.

Server time of whole answers through Django's own client: middleware, queries and
templates, no socket. Growth is judged by CPU time, which other work on the machine
stretches far less than the clock on the wall.
"""

import argparse
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import cpu, stand

#: The aims of a page: p95, statements, bytes of a fragment, growth with history.
MOST_MS, MOST_QUERIES, MOST_FRAGMENT, MOST_GROWTH = 300, 30, 50_000, 1.5
#: So many rows fill the longest list: what is slower with more is growth.
A_PAGE = 200
#: … and so far apart they fill the lists of hours too.
A_PAGE_APART = timedelta(minutes=30)
#: Growth below so many milliseconds is noise, whatever its ratio.
NOISE_MS = 10


@dataclass(frozen=True)
class Cost:
    """What one page took.   Units: milliseconds, statements, bytes."""

    p50: float
    p95: float
    queries: int
    size: int
    is_whole: bool
    #: CPU of Polar and its database server, the mean of all asked.
    cpu: float = 0.0


def main() -> int:
    chosen = _options()
    if chosen.young:
        Path(chosen.young).write_text(json.dumps(_young(chosen)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        young = _measured_apart(chosen, Path(folder) / "young.json")
    with stand.database(chosen.backend) as url:
        full = _full(chosen, url)
        from django.db import connections

        connections.close_all()
    _report(chosen, *young, full)
    return 0


def _measured_apart(chosen: argparse.Namespace, told: Path) -> list[dict[str, Cost]]:
    """The empty store and one with a page's worth, by a process of their own, so that
    a kept full store is compared with the code of today."""
    words = ["--backend", chosen.backend, "--only", chosen.only, "--young", str(told)]
    words += ["--times", str(chosen.times)]
    given = {k: v for k, v in os.environ.items() if k != "POLAR_BENCH_HOME"}
    command = [sys.executable, "-m", "bench.pages", *words]
    subprocess.run(command, check=True, env=given)  # noqa: S603 (our own module)
    return [
        {path: Cost(**cost) for path, cost in costs.items()}
        for costs in json.loads(told.read_text())
    ]


def _young(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    with stand.database(chosen.backend) as url:
        stand.build(chosen.backend, url, delay_seconds=0)
        _point_home()
        _furnish()
        empty = measure(chosen)
        _fill(A_PAGE, A_PAGE, 0, apart=A_PAGE_APART)
        found = [empty, measure(chosen)]
        from django.db import connections

        connections.close_all()
    return [{path: asdict(cost) for path, cost in one.items()} for one in found]


def _full(chosen: argparse.Namespace, url: str) -> dict[str, Cost]:
    """The full store: filled, or kept full from the last time."""
    kept = Path(stand.HOME.name) / "is-full"
    if kept.exists():
        stand.again(url)
        _point_home()
        _sum_up()
        return measure(chosen)
    stand.build(chosen.backend, url, delay_seconds=0)
    _point_home()
    _furnish()
    _fill(chosen.runs, chosen.tasks, -(-chosen.events // chosen.runs))
    kept.touch()
    return measure(chosen)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="addresses that match this")
    parser.add_argument("--slow", type=int, help="tell statements of so many ms")
    parser.add_argument("--times", type=int, default=20, help="asked so often")
    parser.add_argument("--young", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _point_home() -> None:
    from django.conf import settings
    from django.core.management import call_command

    settings.STATIC_ROOT = Path(stand.HOME.name) / "static"
    call_command("collectstatic", interactive=False, verbosity=0)
    settings.POLAR_EXTENSIONS_DIR = Path(stand.HOME.name) / "extensions"
    settings.POLAR_SNAPSHOT_DIR = Path(stand.HOME.name) / "snapshots"


def _furnish() -> None:
    from tests.desk import lived_in

    lived_in.furnish()


def _fill(runs: int, tasks: int, events: int, apart: timedelta | None = None) -> None:
    from django.db import connection, transaction

    from apps.agents.models import Turn
    from apps.boards.models import Board, Task
    from apps.common import statements

    from . import history

    turn = Turn.objects.filter(message_text__contains="17 * 23").latest("id")
    history.copy(history.of_turn(turn.trace_id, events), runs, apart or history.APART)
    board = Board.objects.get()
    for start in range(0, tasks, history.BATCH):
        with transaction.atomic():
            statements.insert(
                *(
                    Task(
                        workspace_id=board.workspace_id,
                        board=board,
                        title=f"Task {at}",
                        status="done",
                        board_column="done",
                        position=at,
                    )
                    for at in range(start, min(start + history.BATCH, tasks))
                )
            )
    _sum_up()
    if connection.vendor == "postgresql":  # what its server does of itself
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def _sum_up() -> None:
    """What the clock does of itself: close the hours that are over."""
    from apps.agents.engine import recursion_hours, usage_hours
    from apps.reliability.engine import slo_hours

    for each in (usage_hours, slo_hours, recursion_hours):
        for _ in range(100):
            if not each.sum_up():
                break


def measure(chosen: argparse.Namespace) -> dict[str, Cost]:
    """Ask for each page some times.   Shape: by address with its ids taken out."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client

    from apps.common import settling
    from tests.desk import pages

    logging.getLogger("django.request").setLevel(logging.ERROR)
    settling.load_pages()
    settling.freeze()
    client = Client()
    client.force_login(get_user_model().objects.get(username="ada"))
    costs = {}
    for path in (*pages.addresses(), *pages.admin_addresses()):
        if not re.search(chosen.only, path):
            continue
        counter = Counter(chosen.slow)
        with connection.execute_wrapper(counter):
            answer = client.get(path)
        if answer.status_code != 200:
            continue
        for took, text in counter.slow:
            print(f"{path}: {took:.0f} ms: {text}")
        before = cpu.now()
        took = sorted(_timed(client, path) for _ in range(chosen.times))
        spent = cpu.now() - before
        costs[pages.pattern(path)] = Cost(
            p50=statistics.median(took),
            p95=took[min(len(took) - 1, int(len(took) * 0.95))],
            queries=counter.count,
            size=len(answer.content),
            is_whole=b"</html>" in answer.content,
            cpu=(spent.polar + spent.server) * 1000 / chosen.times,
        )
    return costs


class Counter:
    """Counts the statements that pass; notes those of at least so many ms."""

    def __init__(self, least: int | None) -> None:
        self.count, self.slow = 0, list[tuple[float, str]]()
        self._least = least

    def __call__(self, execute: Any, sql: str, params: Any, *given: Any) -> Any:
        self.count += 1
        begun = time.perf_counter()
        found = execute(sql, params, *given)
        took = (time.perf_counter() - begun) * 1000
        if self._least is not None and took >= self._least:
            self.slow.append((took, f"{sql} {params}"))
        return found


def _timed(client: Any, path: str) -> float:
    begun = time.perf_counter()
    client.get(path)
    return (time.perf_counter() - begun) * 1000


def _report(chosen: argparse.Namespace, *stores: dict[str, Cost]) -> None:
    empty, page, full = stores
    print(
        f"{chosen.backend}: {chosen.runs:,} runs, {chosen.events:,} events, "
        f"{chosen.tasks:,} tasks more"
    )
    print(
        "| page | empty CPU | a page's worth CPU | full CPU | full p50 / p95 | growth "
        "| queries | KB | |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for path, cost in sorted(full.items(), key=lambda pair: -pair[1].p95):
        before = page.get(path, cost)
        first = empty.get(path, before)
        print(
            f"| `{path}` | {first.cpu:.0f} | {before.cpu:.0f} | {cost.cpu:.0f} "
            f"| {cost.p50:.0f} / {cost.p95:.0f} | {cost.cpu / (before.cpu or 1):.2f} "
            f"| {cost.queries} | {cost.size / 1000:.0f} | {_missed(cost, before)} |"
        )


def _missed(cost: Cost, before: Cost) -> str:
    missed = []
    if cost.p95 > MOST_MS:
        missed.append("slow")
    if cost.queries > MOST_QUERIES:
        missed.append("queries")
    if not cost.is_whole and cost.size > MOST_FRAGMENT:
        missed.append("large")
    if cost.cpu > max(before.cpu * MOST_GROWTH, before.cpu + NOISE_MS):
        missed.append("grows")
    return ", ".join(missed)


if __name__ == "__main__":
    sys.exit(main())
