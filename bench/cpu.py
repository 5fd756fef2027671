"""CPU time of Polar and of its database server; wall time says little under load.

Hides: how /proc tells it, and that PostgreSQL is a family of processes whose dead
children are counted by their parent.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds so far, or between two readings."""

    polar: float
    server: float

    def __sub__(self, before: "Spent") -> "Spent":
        return Spent(self.polar - before.polar, self.server - before.server)


def now(*pids: int) -> Spent:
    """Read what this process, these processes and the server have used."""
    others = sum(_of(pid) for pid in pids)
    return Spent(time.process_time() + others, _server())


def _server() -> float:
    """Sum the throw-away PostgreSQL's processes; 0 where there is none."""
    named = os.environ.get("POLAR_BENCH_POSTMASTER", "")
    if not named:
        return 0.0
    parent = int(named)
    total = _of(parent, with_dead=True)
    for child in _children(parent):
        total += _of(child)
    return total


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def _of(pid: int, *, with_dead: bool = False) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    if with_dead:
        ticks += int(fields[13]) + int(fields[14])
    return ticks / TICK
