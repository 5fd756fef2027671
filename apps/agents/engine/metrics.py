"""The numbers that Prometheus reads, as text.

Counters count the origin `real` from midnight UTC on: they fall to nought once a
day, which `rate()` and `increase()` know how to read, and no scrape reads more than
a day of rows.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

from django.db.models import Count, QuerySet, Sum

from apps.agents.models import Handoff, Turn
from apps.common import clock
from apps.gateway.models import Budget
from apps.providers.models import Attempt, Breaker, BreakerState, Outcome, UsageRow
from apps.runs.models import Run

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Of one number so many groups are shown at most.
MOST_GROUPS = 500

Sample = tuple[Mapping[str, object], float]


@dataclass(frozen=True, slots=True)
class Family:
    """One number and what it is split by."""

    name: str
    kind: str
    about: str
    samples: Iterable[Sample]

    def lines(self) -> Iterator[str]:
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            told = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
            yield f"{self.name}{{{told}}} {value:g}"


def exposition() -> str:
    """Write every number down. Reads: at most a day of rows."""
    today = datetime.combine(clock.now().date(), time(), clock.now().tzinfo)
    families = [*_usage(today), *_work(today), *_standing()]
    return "\n".join(line for family in families for line in family.lines()) + "\n"


def _usage(today: datetime) -> Iterator[Family]:
    rows = (
        UsageRow.objects.filter(origin="real", created_at__gte=today)
        .values(
            "served_provider",
            "served_model",
            "requested_lane",
            "served_lane",
            "lane_change",
            "lane_reason",
            "ok",
        )
        .annotate(
            calls=Count("id"),
            sent=Sum("tokens_in"),
            said=Sum("tokens_out"),
            cost=Sum("micros"),
            took=Sum("duration_ms"),
        )
        .order_by("served_provider", "served_model", "requested_lane", "served_lane")
    )
    shown = [
        (
            {
                "provider": row["served_provider"],
                "model": row["served_model"],
                "asked_lane": row["requested_lane"],
                "lane": row["served_lane"],
                "lane_change": row["lane_change"],
                "lane_reason": row["lane_reason"],
                "ok": str(row["ok"]).lower(),
            },
            row,
        )
        for row in rows[:MOST_GROUPS]
    ]
    for name, field, scale, about in (
        ("polar_model_calls_total", "calls", 1, "Model calls today."),
        ("polar_model_tokens_in_total", "sent", 1, "Tokens sent today."),
        ("polar_model_tokens_out_total", "said", 1, "Tokens answered today."),
        ("polar_model_cost_usd_total", "cost", 1e6, "Dollars spent today."),
        ("polar_model_seconds_total", "took", 1e3, "Seconds waited today."),
    ):
        samples = [(labels, float(row[field] or 0) / scale) for labels, row in shown]
        yield Family(name, "counter", about, samples)


def _work(today: datetime) -> Iterator[Family]:
    failed = Attempt.objects.filter(
        origin="real", created_at__gte=today, outcome=Outcome.ATTEMPTED
    ).exclude(error_class="")
    about = "Tries of a route that failed today."
    found = _counted(failed, "route_name", "error_class")
    yield Family("polar_route_failures_total", "counter", about, found)
    turns = Turn.objects.filter(run__origin="real", created_at__gte=today)
    about = "Turns begun today, by how they stand."
    found = _counted(turns, "profile__slug", "state")
    yield Family("polar_turns_total", "counter", about, found)
    asked = Handoff.objects.filter(origin="real", created_at__gte=today)
    about = "Handoffs begun today, by how they stand."
    found = _counted(asked, "source", "target", "state")
    yield Family("polar_handoffs_total", "counter", about, found)


def _standing() -> Iterator[Family]:
    runs = Run.objects.unsettled()
    yield Family("polar_runs", "gauge", "Runs now, by state.", _counted(runs, "state"))
    open_ = Breaker.objects.exclude(state=BreakerState.CLOSED).select_related(
        "route__model__provider"
    )
    samples: list[Sample] = [
        ({"route": str(row.route), "state": row.state}, 1.0)
        for row in open_.order_by("id")[:MOST_GROUPS]
    ]
    yield Family("polar_breakers_open", "gauge", "Routes that rest now.", samples)
    budgets = Budget.objects.filter(is_active=True, limit__gt=0).order_by("id")
    used: list[Sample] = [
        (
            {
                "budget": b.id,
                "scope": b.scope,
                "key": b.scope_key,
                "unit": b.unit,
                "window": b.window,
            },
            (b.spent + b.reserved) / b.limit,
        )
        for b in budgets[:MOST_GROUPS]
    ]
    about = "Spent and set aside, as a share of the limit."
    yield Family("polar_budget_used_ratio", "gauge", about, used)


def _counted(rows: QuerySet[Any], *names: str) -> list[Sample]:
    found = rows.values(*names).annotate(times=Count("pk")).order_by(*names)
    return [
        ({name.split("__")[0]: row[name] for name in names}, float(row["times"]))
        for row in found[:MOST_GROUPS]
    ]


def _escaped(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return text.replace("\n", "\\n")
