"""Reads about runs, schedules and workers."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, F, Q, Window
from django.db.models.functions import RowNumber
from django.urls import reverse

from apps.access.models import Principal
from apps.common import clock
from apps.common.errors import NotFound
from apps.common.search import MOST_HITS, Hit, Words
from apps.gateway.models import Call
from apps.runs.models import (
    Proposal,
    ProposalState,
    Run,
    RunQuerySet,
    Schedule,
    Slot,
    State,
    WorkerBeat,
)

#: A worker that was silent for longer is not counted.
BEAT_SECONDS = 30
#: Effects that happened or may have happened, and those that failed after starting.
SHOWN_EFFECTS = ("executing", "succeeded", "unknown", "failed")
MOST_EFFECTS = 500
#: Among so many of the newest runs the last six characters of an id are looked for.
MOST_RECENT = 2000


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
    """Count the runs that are not over, and the dead letters. Reads no others."""
    mine = Run.objects.visible_to(principal)
    rows = mine.unsettled().values_list("state")
    counts = dict(rows.annotate(runs=Count("id")).order_by("state"))
    return {**counts, State.DEAD_LETTER: mine.dead_letters().count()}


def dead_letters(*, principal: Principal, limit: int = 50) -> RunQuerySet:
    return newest(principal=principal, states=[State.DEAD_LETTER], limit=limit)


def dead_letters_like(
    *,
    principal: Principal,
    reason: str = "",
    kind: str = "",
    before: datetime | None = None,
) -> RunQuerySet:
    """Return the dead letters that match all that is given."""
    runs = Run.objects.visible_to(principal).dead_letters()
    given = {"reason": reason, "kind": kind, "finished_at__lt": before}
    return runs.filter(**{name: value for name, value in given.items() if value})


def dead_letter_kinds(*, principal: Principal) -> list[str]:
    letters = Run.objects.visible_to(principal).dead_letters()
    return list(letters.order_by("kind").values_list("kind", flat=True).distinct())


def effects_of(
    runs: Iterable[Run], principal: Principal
) -> dict[uuid.UUID, list[Call]]:
    """Return what runs did or may have done to the world, by run, in order."""
    ids = [run.id for run in runs]
    calls = Call.objects.visible_to(principal).filter(run_id__in=ids)
    found: dict[uuid.UUID, list[Call]] = {run_id: [] for run_id in ids}
    for call in calls.filter(state__in=SHOWN_EFFECTS).order_by("id")[:MOST_EFFECTS]:
        assert call.run_id is not None
        found[call.run_id].append(call)
    return found


def get_schedule(schedule_id: uuid.UUID, *, principal: Principal) -> Schedule:
    """Raises: NotFound."""
    mine = Schedule.objects.visible_to(principal).filter(id=schedule_id)
    schedule = mine.select_related("workspace", "principal").first()
    if schedule is None:
        raise NotFound(f"No schedule {schedule_id}.")
    return schedule


def newest_slots(
    schedules: Iterable[Schedule], *, limit: int = 30
) -> dict[uuid.UUID, list[Slot]]:
    """Return each schedule's newest slots, oldest first, in one statement."""
    ids = [schedule.id for schedule in schedules]
    newest = Window(
        RowNumber(), partition_by=F("schedule_id"), order_by=F("slot_at").desc()
    )
    rows = Slot.objects.filter(schedule_id__in=ids).annotate(place=newest)
    found: dict[uuid.UUID, list[Slot]] = {schedule_id: [] for schedule_id in ids}
    for slot in rows.filter(place__lte=limit).order_by("slot_at"):
        found[slot.schedule_id].append(slot)
    return found


def open_proposals(*, principal: Principal) -> list[Proposal]:
    mine = Proposal.objects.visible_to(principal)
    return list(mine.filter(state=ProposalState.PENDING).order_by("id"))


def get_proposal(proposal_id: uuid.UUID, *, principal: Principal) -> Proposal:
    """Raises: NotFound."""
    mine = Proposal.objects.visible_to(principal).filter(id=proposal_id)
    found = mine.select_related("workspace", "proposed_by", "schedule").first()
    if found is None:
        raise NotFound(f"No proposal {proposal_id}.")
    return found


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


def find(words: Words, principal: Principal) -> Iterator[Hit]:
    """Find runs by id or its last six characters, and schedules by name."""
    mine = Run.objects.visible_to(principal)
    if words.id is not None:
        for run in mine.filter(id=words.id):
            yield _run_hit(run)
    elif _is_tail(words.name):
        recent = mine.order_by("-id").only("id", "kind", "state")[:MOST_RECENT]
        for run in recent:
            if run.id.hex.endswith(words.name):
                yield _run_hit(run)
    named = Q(slug__icontains=words.name) | Q(title__icontains=words.text)
    schedules = Schedule.objects.visible_to(principal).filter(named)
    for schedule in schedules.order_by("slug")[:MOST_HITS]:
        url = reverse("runs:schedule", args=[schedule.pk])
        yield Hit("Schedule", schedule.title or schedule.slug, url, schedule.state)


def _is_tail(text: str) -> bool:
    return len(text) == 6 and all(letter in "0123456789abcdef" for letter in text)


def _run_hit(run: Run) -> Hit:
    url = reverse("runs:detail", args=[run.pk])
    return Hit("Run", f"{run.kind} {run.id.hex[-6:]}", url, run.state, is_exact=True)
