"""The work gate: who may carry a run, and until when.

Hides: how two workers that want one run end with one owner.
Invariants: a claim is one conditional UPDATE whose row count is checked; it sets
state, fence, attempt and lease at once, so there is no claimed run without a
lease; due comes before LIMIT; the oldest queued run of a serial key goes first.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, connection, transaction

from apps.common import clock, failpoints
from apps.common.errors import Fenced
from apps.runs.engine import guard
from apps.runs.models import Run

#: How long a claim holds without being renewed.
LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that is ours until its lease lapses."""

    run: Run
    owner: str
    fence: int
    attempt: int
    lease_until: datetime

    @property
    def id(self) -> uuid.UUID:
        return self.run.id


def lease_end(now: datetime) -> datetime:
    return now + timedelta(seconds=LEASE_SECONDS)


#: One run per serial key is next: nothing of the key runs, and nothing older of it
#: is queued. A run that was tried and backs off holds its place; one that is planned
#: for later or parked lets others pass. SQLite uses a partial index only where its
#: condition stands word for word, so states are literals and `NOT (… = '')` is what
#: Django wrote into the index. Without it a claim reads the queue once for each run
#: of the queue.
DUE_AND_NEXT = """
    SELECT run.id FROM runs_run run
    WHERE run.state = 'queued' AND run.due_at <= %(now)s AND {chosen}
      AND (run.serial_key = '' OR (
        NOT EXISTS (
          SELECT 1 FROM runs_run busy
          WHERE busy.state = 'running' AND NOT (busy.serial_key = '')
            AND busy.serial_key = run.serial_key)
        AND NOT EXISTS (
          SELECT 1 FROM runs_run ahead
          WHERE ahead.state = 'queued' AND NOT (ahead.serial_key = '')
            AND ahead.serial_key = run.serial_key AND ahead.id < run.id
            AND (ahead.due_at <= %(now)s OR ahead.attempt > 0))))
"""
IN_ORDER = """
    ORDER BY run.priority DESC, run.due_at, run.id
    LIMIT %(limit)s
"""
TAKE = """
    WITH next_in_line AS MATERIALIZED ({next_in_line})
    UPDATE runs_run SET state = 'running', fence = fence + 1, attempt = attempt + 1,
        lease_owner = %(owner)s, lease_until = %(until)s, wake_at = NULL,
        started_at = COALESCE(started_at, %(now)s)
    WHERE state = 'queued' AND id IN (SELECT id FROM next_in_line)
    RETURNING *
"""


OURS = "SELECT 1 FROM runs_run WHERE id = %s AND fence = %s AND state = 'running'"


def claim(
    *,
    owner: str,
    queues: Sequence[str],
    limit: int = 1,
    run_id: uuid.UUID | None = None,
) -> list[Claimed]:
    """Take up to `limit` due runs, or the one that is named.

    Writes: Run: state, fence, attempt, lease (one conditional UPDATE).
    Again: a run that is not due, not next, or taken is not returned; while the
    store is in doubt, none is.
    """
    if not guard.may_go_on():
        return []
    now = clock.now()
    until = lease_end(now)
    next_in_line, wanted = _next_in_line(queues, limit, now, run_id)
    next_in_line += IN_ORDER
    if connection.features.has_select_for_update_skip_locked:
        next_in_line += " FOR UPDATE OF run SKIP LOCKED"
    moment = connection.ops.adapt_datetimefield_value
    taking = {**wanted, "owner": owner, "until": moment(until)}
    try:
        with transaction.atomic():
            sql = TAKE.format(next_in_line=next_in_line)
            taken = list(Run.objects.raw(sql, taking))
            if taken:
                failpoints.reach("run.claimed.before_commit")
    except IntegrityError:
        # Another worker started an older run of one of these keys: not our turn.
        return []
    if taken:
        failpoints.reach("run.claimed")
    taken.sort(key=lambda run: (-run.priority, run.due_at, run.id))
    return [Claimed(run, owner, run.fence, run.attempt, until) for run in taken]


def anything_due(queues: Sequence[str]) -> bool:
    """Look, without a lock, whether a claim is worth a transaction."""
    sql, wanted = _next_in_line(queues, 1, clock.now(), None)
    with connection.cursor() as cursor:
        cursor.execute(sql + " LIMIT 1", wanted)
        return cursor.fetchone() is not None


def _next_in_line(
    queues: Sequence[str], limit: int, now: datetime, run_id: uuid.UUID | None
) -> tuple[str, dict[str, Any]]:
    wanted: dict[str, Any] = {
        "now": connection.ops.adapt_datetimefield_value(now),
        "limit": limit,
    }
    if run_id is not None:
        key = Run._meta.get_field("id").get_db_prep_value(run_id, connection)
        return DUE_AND_NEXT.format(chosen="run.id = %(id)s"), {**wanted, "id": key}
    named = {f"queue{number}": queue for number, queue in enumerate(queues)}
    marks = ", ".join(f"%({name})s" for name in named)
    return DUE_AND_NEXT.format(chosen=f"run.queue IN ({marks})"), {**wanted, **named}


def check_fence(run_id: uuid.UUID, fence: int) -> None:
    """Refuse a worker that lost its run; inside a transaction, hold the run.

    Raises: Fenced.
    """
    held = connection.in_atomic_block and connection.features.has_select_for_update
    key = Run._meta.pk.get_db_prep_value(run_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(OURS + (" FOR UPDATE" if held else ""), [key, fence])
        if cursor.fetchone() is None:
            raise Fenced(run_id=str(run_id), fence=fence)
