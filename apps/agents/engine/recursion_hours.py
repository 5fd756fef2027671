"""The heat map's counts by the hour, so that a window costs its hours and no more.

Hides: which part of a window comes from the sums and which from the log.
Invariants: the sums are made from the log's events and nothing else; see hourly.
Source: docs/decisions/0036-windows-are-summed-by-the-hour.md
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import CharField, Count, Func, Q, QuerySet, Sum

from apps.agents.engine.failures import LOOP_GUARD
from apps.agents.models import RecursionHour, RecursionMark, Told
from apps.audit.models import Event
from apps.common import ids
from apps.common.periods import hour_of

from .hourly import HourlySums

HOUR = timedelta(hours=1)


class Key(NamedTuple):
    """What a count is of. `a` and `b`: agent and depth, or caller and called."""

    told: str
    a: str
    b: str


class Word(Func):
    """One member of the `data` that an event's body holds, as text."""

    arity = 1
    output_field = CharField()

    def __init__(self, name: str) -> None:
        super().__init__("body")
        self.name = name

    def as_sqlite(
        self, compiler: Any, connection: Any, **extra_context: Any
    ) -> tuple[str, Any]:
        template = f"CAST(json_extract(%(expressions)s, '$.data.{self.name}') AS TEXT)"
        return self.as_sql(compiler, connection, template=template)

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        template = f"(%(expressions)s::jsonb #>> '{{data,{self.name}}}')"
        return self.as_sql(compiler, connection, template=template)


#: Which events tell what, and which of their words.
SOURCES: dict[str, tuple[Q, str, str]] = {
    Told.TURN: (Q(type="turn.started"), "agent", "depth"),
    Told.EDGE: (Q(type="handoff.started"), "source", "target"),
    Told.CUT: (
        Q(type="handoff.finished", decision="refused", reason=LOOP_GUARD),
        "source",
        "target",
    ),
}


def counted(*, since: datetime, workspaces: Sequence[UUID]) -> Counter[Key]:
    """Count what the log tells since the hour of a moment, exactly."""
    mark, since = SUMMED.mark(), hour_of(since)
    found = Counter[Key]()
    # The mark is read first and only moves on: an hour before it has its sums by now.
    sums = RecursionHour.objects.filter(
        workspace_id__in=workspaces, hour__gte=since, hour__lt=mark
    )
    for told, a, b, count in (
        sums.values_list("told", "a", "b").annotate(Sum("count")).order_by()
    ):
        found[Key(told, a, b)] += count
    mine = Q(workspace_id__in=workspaces, id__gte=ids.first_at(max(since, mark)))
    for told, rows in _groups(mine):
        for row in rows:
            found[Key(told, row["a"] or "", row["b"] or "")] += row["count"]
    return found


def sum_up() -> int:
    """Sum up the hours that are over; return how many.

    Writes: RecursionHour and RecursionMark.   Again: begins where the last one ended.
    """
    done = SUMMED.sum_up()
    if done:
        mend()
    return done


def mend() -> int:
    """Sum the youngest hours again whose events are not as many as were summed."""
    return _sum_again([hour for hour in _hours(*SUMMED.young()) if _differs(hour)])


def rebuild() -> int:
    """Sum every summed hour again from the log; return how many hours differed."""
    until = SUMMED.mark()
    return _sum_again(
        [
            hour
            for hour in _hours(SUMMED.first(until), until)
            if _written(hour) != _wanted(hour, hour + HOUR)
        ]
    )


def _sum_again(hours: list[datetime]) -> int:
    for hour in hours:
        SUMMED.again(hour, hour + HOUR)
    return len(hours)


def _hours(since: datetime, until: datetime) -> list[datetime]:
    return [since + HOUR * place for place in range((until - since) // HOUR)]


def _differs(hour: datetime) -> bool:
    """Whether events came to an hour after it was summed: how many, not what."""
    inside = Q(id__gte=ids.first_at(hour), id__lt=ids.first_at(hour + HOUR))
    there = sum(
        Event.objects.filter(kind & inside).count() for kind, *_ in SOURCES.values()
    )
    held = RecursionHour.objects.filter(hour=hour).aggregate(all=Sum("count"))["all"]
    return there != (held or 0)


def _groups(rows: Q) -> list[tuple[str, QuerySet[Event, dict[str, Any]]]]:
    """Each kind by an index of its own: its type, from an id on."""
    return [
        (
            told,
            Event.objects.filter(kind & rows)
            .values("workspace_id", a=Word(first), b=Word(second))
            .annotate(count=Count("id"))
            .order_by(),
        )
        for told, (kind, first, second) in SOURCES.items()
    ]


def _wanted(since: datetime, upto: datetime) -> Counter[tuple[UUID | None, Key]]:
    inside = Q(id__gte=ids.first_at(since), id__lt=ids.first_at(upto))
    found = Counter[tuple[UUID | None, Key]]()
    for told, rows in _groups(inside):
        for row in rows:
            key = Key(told, row["a"] or "", row["b"] or "")
            found[row["workspace_id"], key] += row["count"]
    return found


def _written(hour: datetime) -> Counter[tuple[UUID | None, Key]]:
    rows = RecursionHour.objects.filter(hour=hour)
    return Counter({(row.workspace_id, Key(*row.of)): row.count for row in rows})


def _oldest() -> datetime | None:
    return Event.objects.order_by("id").values_list("occurred_at", flat=True).first()


def _write(since: datetime, upto: datetime) -> None:
    RecursionHour.objects.bulk_create(
        [
            RecursionHour(
                hour=since, workspace_id=workspace, count=count, **key._asdict()
            )
            for (workspace, key), count in _wanted(since, upto).items()
        ]
    )


SUMMED = HourlySums(
    marks=RecursionMark,
    rows=RecursionHour.objects.all,
    write=_write,
    oldest=_oldest,
    settles=timedelta(minutes=10),
    chunk=HOUR,
    most_chunks=24 * 40,
)
