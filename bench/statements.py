"""How many statements and commits a turn and a call cost: figures no load changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.gateway import services as gateway
from apps.runs import services as runs

from . import gate, measures
from .measures import Row
from .stand import Stand


class Count:
    """What went to the database."""

    def __init__(self) -> None:
        self.statements = self.commits = 0

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, told: Any
    ) -> Any:
        self.statements += 1
        alone = not told["connection"].in_atomic_block
        self.commits += alone and "UPDATE" in sql  # a transaction of its own
        return execute(sql, params, many, told)


@contextmanager
def counting() -> Iterator[Count]:
    """Count what this thread sends while the block runs."""
    count, connection = Count(), connections["default"]
    commit = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    def counted(self: BaseDatabaseWrapper) -> None:
        count.commits += 1
        commit(self)

    BaseDatabaseWrapper._commit = counted  # type: ignore[attr-defined]
    try:
        with connection.execute_wrapper(count):
            yield count
    finally:
        BaseDatabaseWrapper._commit = commit  # type: ignore[attr-defined]


def counts(stand: Stand) -> list[Row]:
    """Count a turn of each kind and one allowed call of the gate."""
    rows: list[Row] = []
    for title, text in (("answer", "hello"), ("answer with a tool", "what is 2+3?")):
        measures.turns(stand, 3, 1, text, "warm-up")
        with counting() as taken_in:
            [turn] = measures.start_turns(stand, 1, text)
        with counting() as carried:
            runs.execute(turn.run_id)
        measures.check_answered([turn])
        rows += _rows(f"{title}: taking in", taken_in)
        rows += _rows(f"{title}: carrying", carried)
    gate._make_rules(stand)
    request = gate._request(stand)
    gateway.call(gate._request(stand))
    with counting() as called:
        gateway.call(request)
    return [*rows, *_rows("allowed call", called)]


def _rows(title: str, count: Count) -> list[Row]:
    return [
        (f"{title}, statements", count.statements, ""),
        (f"{title}, commits", count.commits, ""),
    ]
