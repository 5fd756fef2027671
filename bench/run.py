"""`python -m bench.run`: measure a throw-away installation from end to end.

Figures of one machine at one moment: read them as ranks, not as promises.
`--figures docs` measures everything that docs/performance.md tells, each part in a
fresh installation, in a few minutes.
"""

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from . import stand

PARTS = (
    "statements",
    "turns",
    "threads",
    "tools",
    "gate",
    "trace",
    "log",
    "workers",
    "latency",
    "flight",
    "past",
    "circle",
)
#: What `--figures docs` runs: options of one fresh installation each.
DOCS = (
    "--only statements --only turns --only threads --only tools --only log",
    "--only workers --only latency",
    "--redis --only workers --only latency",
    "--durable --only gate",
    "--only flight",
    "--only past",
    "--only circle",
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--figures", choices=["docs"], help="everything, in parts")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--tools", type=int, default=500)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--flight", type=int, default=512)
    parser.add_argument("--delay", type=float, default=2.0)
    parser.add_argument("--past", type=int, default=1_000_000, help="events before")
    parser.add_argument("--gate", type=int, default=1000, help="decisions measured")
    parser.add_argument("--durable", action="store_true", help="PostgreSQL with fsync")
    parser.add_argument("--redis", action="store_true", help="with a Redis to ring")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--json", default="", help="write the rows there")
    parser.add_argument("--profile", action="store_true", help="print hot functions")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    if chosen.figures:
        return figures(chosen)
    durable = chosen.durable
    with (
        stand.database(chosen.backend, durable=durable) as url,
        stand.broker(chosen.redis),
    ):
        place = stand.build(chosen.backend, url, delay_seconds=chosen.delay)
        profile = cProfile.Profile() if chosen.profile else None
        rows = measure(place, chosen, profile)
        from django.db import connections

        connections.close_all()
    report(rows, chosen)
    if profile is not None:
        stats = pstats.Stats(profile)
        stats.sort_stats("tottime").print_stats(30)
        stats.sort_stats("cumulative").print_stats("polar|apps|gateway", 60)
    return 0


def figures(chosen: argparse.Namespace) -> int:
    """Run each part in an installation of its own and put the rows together."""
    rows: list[tuple[str, float, str]] = []
    begun = time.monotonic()
    for part in DOCS:
        with tempfile.NamedTemporaryFile(suffix=".json") as out:
            command = [sys.executable, "-m", "bench.run", "--json", out.name]
            command += ["--backend", chosen.backend, "--past", str(chosen.past)]
            ended = subprocess.run(
                [*command, *part.split()], stdout=subprocess.DEVNULL, check=False
            )
            took = time.monotonic() - begun
            print(f"{part}: done at {took:.0f} s", file=sys.stderr, flush=True)
            if ended.returncode:
                rows.append((f"NOT MEASURED: {part}", float(ended.returncode), ""))
                continue
            data = json.load(out)
        rows += [(row["what"], row["value"], row["unit"]) for row in data["rows"]]
    report(rows, chosen)
    return 1 if any(what.startswith("NOT MEASURED") for what, _, _ in rows) else 0


def measure(
    place: stand.Stand, chosen: argparse.Namespace, profile: cProfile.Profile | None
) -> list[tuple[str, float, str]]:
    rows: list[tuple[str, float, str]] = []
    for name, part in parts_of(place, chosen).items():
        if name not in (chosen.only or PARTS):
            continue
        if profile is not None:
            profile.enable()
        rows += part()
        if profile is not None:
            profile.disable()
        print(f"{name} measured", file=sys.stderr, flush=True)
    return rows


def parts_of(
    place: stand.Stand, chosen: argparse.Namespace
) -> dict[str, Callable[[], list[Any]]]:
    from . import circle, gate, measures, past, statements, workers

    measures.turns(place, 5, 1, "hello", "warm-up")
    count, asked = chosen.turns, "what is 2+3?"
    how = "by Redis" if chosen.redis else "by the worker's own look"
    sizes = tuple(size for size in past.SIZES if size <= chosen.past)
    return {
        "statements": lambda: statements.counts(place),
        "turns": lambda: [
            *measures.turns(place, count, 1, "hello", "answer, 1 at a time"),
            *measures.turns(place, count, 1, asked, "answer with a tool, 1 at a time"),
        ],
        "threads": lambda: measures.turns(
            place, count, 32, "hello", "answer, 32 at a time"
        ),
        "tools": lambda: measures.tool_calls(place, chosen.tools),
        "gate": lambda: gate.measure(place, chosen.gate, 16),
        "trace": lambda: measures.trace(place),
        "log": lambda: measures.log(chosen.events),
        "workers": lambda: workers.throughput(place, 3 * count, 2, "hello", how),
        "latency": lambda: workers.start_latency(place, 40, how),
        "flight": lambda: measures.in_flight(place, chosen.flight, chosen.delay),
        "past": lambda: past.measure(place, sizes),
        "circle": lambda: circle.measure(place),
    }


def report(rows: list[tuple[str, float, str]], chosen: argparse.Namespace) -> None:
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"| {chosen.backend}, load at the end {load} | figure |")
    print("|---|---:|")
    for title, value, unit in rows:
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        print(f"| {title} | {shown} {unit} |")
    if chosen.json:
        data = [{"what": t, "value": round(v, 3), "unit": u} for t, v, u in rows]
        with open(chosen.json, "w") as out:
            json.dump({"backend": chosen.backend, "rows": data}, out, indent=1)


if __name__ == "__main__":
    sys.exit(main())
