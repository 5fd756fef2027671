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

from django.db import IntegrityError, connection, transaction
from django.db.models import DateTimeField, F, Value
from django.db.models.functions import Coalesce

from apps.common import clock, failpoints
from apps.common.errors import Fenced
from apps.runs.models import Run, RunQuerySet, State

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


def claim(
    *,
    owner: str,
    queues: Sequence[str],
    limit: int = 1,
    run_id: uuid.UUID | None = None,
) -> list[Claimed]:
    """Take up to `limit` due runs, or the one that is named.

    Writes: Run: state, fence, attempt, lease (one conditional UPDATE).
    Again: a run that is not due, not next, or taken is not returned.
    """
    now = clock.now()
    due = Run.objects.due(now)
    due = due.filter(id=run_id) if run_id else due.filter(queue__in=queues)
    try:
        with transaction.atomic():
            taken = _take(due.in_line()[:limit], owner=owner, now=now)
            if taken:
                failpoints.reach("run.claimed.before_commit")
    except IntegrityError:
        # Another worker started an older run of one of these keys: not our turn.
        return []
    if taken:
        failpoints.reach("run.claimed")
    return taken


def _take(due: RunQuerySet, *, owner: str, now: datetime) -> list[Claimed]:
    # 1. Look at the head of the line; on PostgreSQL past rows in other hands.
    if connection.features.has_select_for_update_skip_locked:
        due = due.select_for_update(skip_locked=True, of=("self",))
    runs = list(due)
    if not runs:
        return []
    # 2. Take them: the condition repeats what made them claimable.
    until = lease_end(now)
    taken = Run.objects.filter(
        id__in=[run.id for run in runs], state=State.QUEUED, due_at__lte=now
    ).update(
        state=State.RUNNING,
        fence=F("fence") + 1,
        attempt=F("attempt") + 1,
        lease_owner=owner,
        lease_until=until,
        started_at=Coalesce(F("started_at"), Value(now, DateTimeField())),
        wake_at=None,
    )
    # 3. The rows were ours to lock, so a difference is a broken database.
    if taken != len(runs):
        raise Fenced(f"claimed {taken} of {len(runs)} runs")
    return [Claimed(run, owner, run.fence + 1, run.attempt + 1, until) for run in runs]


def anything_due(queues: Sequence[str]) -> bool:
    """Look, without a lock, whether a claim is worth a transaction."""
    return Run.objects.due(clock.now()).filter(queue__in=queues).exists()


def check_fence(run_id: uuid.UUID, fence: int) -> None:
    """Refuse a worker that lost its run; inside a transaction, hold the run.

    Raises: Fenced.
    """
    ours = Run.objects.filter(id=run_id, fence=fence, state=State.RUNNING)
    if connection.in_atomic_block:
        ours = ours.select_for_update()
    if not ours.values_list("id", flat=True).first():
        raise Fenced(run_id=str(run_id), fence=fence)
