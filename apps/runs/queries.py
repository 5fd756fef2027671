"""Reads about runs, schedules and workers."""

import hashlib
import uuid
from collections.abc import Iterable
from datetime import timedelta

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count

from apps.access.models import Principal
from apps.common import clock
from apps.common.errors import NotFound
from apps.runs.models import Run, RunQuerySet, Schedule, State, WorkerBeat

#: A worker that was silent for longer is not counted.
BEAT_SECONDS = 30


def get_run(run_id: uuid.UUID, *, principal: Principal) -> Run:
    """Raises: NotFound."""
    run = Run.objects.visible_to(principal).filter(id=run_id).first()
    if run is None:
        raise NotFound(f"No run {run_id}.")
    return run


def find_run(run_id: uuid.UUID) -> Run | None:
    return Run.objects.filter(id=run_id).first()


def newest(
    *, principal: Principal, states: Iterable[str] = (), limit: int = 50
) -> RunQuerySet:
    """Return the newest runs a principal may see."""
    runs = Run.objects.visible_to(principal)
    if states := list(states):
        runs = runs.filter(state__in=states)
    return runs.order_by("-created_at", "-id")[:limit]


def count_by_state(*, principal: Principal) -> dict[str, int]:
    rows = Run.objects.visible_to(principal).values_list("state")
    return dict(rows.annotate(runs=Count("id")).order_by("state"))


def dead_letters(*, principal: Principal, limit: int = 50) -> RunQuerySet:
    return newest(principal=principal, states=[State.DEAD_LETTER], limit=limit)


def schedules(*, principal: Principal) -> list[Schedule]:
    return list(Schedule.objects.visible_to(principal).order_by("slug", "id"))


def live_workers() -> list[WorkerBeat]:
    """Return the worker processes heard of lately."""
    since = clock.now() - timedelta(seconds=BEAT_SECONDS)
    return list(WorkerBeat.objects.filter(beat_at__gte=since).order_by("process"))


def schema_version() -> str:
    """Digest the applied migrations; "" where none are recorded."""
    recorder = MigrationRecorder(connection)
    if not recorder.has_table():
        return ""
    applied = sorted(recorder.migration_qs.values_list("app", "name"))
    return hashlib.sha256(repr(applied).encode()).hexdigest()[:16]
