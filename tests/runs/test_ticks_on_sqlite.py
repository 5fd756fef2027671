"""What the clock asks every few seconds reads no table that grows for ever.

SQLite keeps no statistics here, so what it plans for empty tables it plans for full
ones too.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from apps.runs import ports

pytestmark = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="SQLite's planner"
)

#: Rows of these are made by the work itself and never taken away.
GROWING = (
    "agents_conversation",
    "agents_step",
    "agents_turn",
    "audit_event",
    "audit_runhead",
    "channels_inboxmessage",
    "channels_outboxmessage",
    "gateway_approvalrequest",
    "gateway_call",
    "gateway_reservation",
    "providers_attempt",
    "providers_usagerow",
    "runs_run",
    "runs_slot",
)


def partial() -> set[str]:
    """The indexes that hold the few rows of a table that are still of interest."""
    return {
        index.name
        for model in apps.get_models()
        for index in model._meta.indexes
        if index.condition is not None
    }


def plans(job: Any) -> Iterator[tuple[str, str]]:
    """Shape: a statement and a step of its plan."""
    said: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, *given: Any) -> Any:
        said.append((sql, params))
        return execute(sql, params, *given)

    with connection.execute_wrapper(note):
        job()
    for sql, params in said:
        if re.match(r"\s*(SELECT|UPDATE|DELETE|WITH)\b", sql):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
                yield from ((sql, step[-1]) for step in cursor.fetchall())


@pytest.mark.parametrize("tick", list(ports.ticks), ids=lambda tick: tick.name)
def test_tick_reads_no_growing_table_whole(tick: ports.Tick, db: None) -> None:
    small = partial()

    for sql, step in plans(tick.job):
        found = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
        if found and found[1] in GROWING and not sql.endswith("LIMIT 1"):
            assert found[2] in small, f"{step}: {sql[:400]}"
