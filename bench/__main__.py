"""`make bench`: figures of the hot paths, on a throw-away SQLite database.

Figures of one machine at one moment: read them as ranks, not as promises.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HOME = tempfile.TemporaryDirectory(prefix="polar-bench-")
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
os.environ.setdefault("DATABASE_URL", f"sqlite:///{Path(HOME.name) / 'bench.db'}")
os.environ["POLAR_WITNESS_DIR"] = str(Path(HOME.name) / "witness")

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402

from apps.access import services as access  # noqa: E402
from apps.audit import services as audit  # noqa: E402
from apps.common.actor import SYSTEM  # noqa: E402
from apps.runs import services as runs  # noqa: E402

ROWS = int(os.environ.get("BENCH_ROWS", "1000"))


def measure(title: str, rows: int, work: Callable[[], None]) -> None:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    print(f"{title:<44} {rows / seconds:>10,.0f} /s   {seconds / rows * 1000:8.3f} ms")


def record_events() -> None:
    for number in range(ROWS):
        with transaction.atomic():
            audit.record(type="token.issued", actor=SYSTEM, data={"n": str(number)})


def enqueue_runs() -> None:
    workspace = access.ensure_default_workspace()
    system = access.system_principal()
    for _ in range(ROWS):
        runs.enqueue(
            kind="bench",
            payload={},
            principal=system,
            workspace=workspace,
            trigger="manual",
            origin="synthetic",
        )


def main() -> int:
    call_command("migrate", verbosity=0)
    print(f"{ROWS} rows each; BENCH_ROWS changes that")
    measure("audit: record, one transaction each", ROWS, record_events)
    measure("audit: seal in batches", ROWS, audit.seal_all)
    measure("runs: enqueue, one transaction each", ROWS, enqueue_runs)
    measure("audit: verify the whole log", ROWS, audit.verify)
    return 0


if __name__ == "__main__":
    sys.exit(main())
