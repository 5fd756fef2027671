"""`python -m bench.run`: measure a throw-away installation from end to end.

Figures of one machine at one moment: read them as ranks, not as promises.
"""

import argparse
import cProfile
import json
import pstats
import sys
from collections.abc import Callable
from typing import Any

from . import stand

PARTS = ("turns", "threads", "tools", "gate", "trace", "log", "latency", "flight")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--tools", type=int, default=500)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--flight", type=int, default=512)
    parser.add_argument("--delay", type=float, default=2.0)
    parser.add_argument("--history", type=int, default=0, help="sealed events before")
    parser.add_argument("--gate", type=int, default=1000, help="decisions measured")
    parser.add_argument("--durable", action="store_true", help="PostgreSQL with fsync")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--json", default="", help="also write the rows there")
    parser.add_argument("--profile", action="store_true", help="print hot functions")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    with stand.database(chosen.backend, durable=chosen.durable) as url:
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


def measure(
    place: stand.Stand, chosen: argparse.Namespace, profile: cProfile.Profile | None
) -> list[tuple[str, float, str]]:
    from . import gate, measures

    if chosen.history:
        measures.fill_history(chosen.history)
    measures.turns(place, 5, 1, "hello", "warm-up")
    count, asked = chosen.turns, "what is 2+3?"
    parts: dict[str, Callable[[], list[Any]]] = {
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
        "latency": lambda: measures.start_latency(place, 30),
        "flight": lambda: measures.in_flight(place, chosen.flight, chosen.delay),
    }
    rows: list[tuple[str, float, str]] = []
    for name in chosen.only or PARTS:
        if profile is not None:
            profile.enable()
        rows += parts[name]()
        if profile is not None:
            profile.disable()
        print(f"{name} measured", file=sys.stderr, flush=True)
    return rows


def report(rows: list[tuple[str, float, str]], chosen: argparse.Namespace) -> None:
    print(f"| {chosen.backend}, {chosen.history:,} events before | figure |")
    print("|---|---:|")
    for title, value, unit in rows:
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        print(f"| {title} | {shown} {unit} |")
    data = [{"what": t, "value": round(v, 3), "unit": u} for t, v, u in rows]
    text = json.dumps({"backend": chosen.backend, "rows": data}, indent=1)
    if chosen.json:
        with open(chosen.json, "w") as out:
            out.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    sys.exit(main())
