"""Turn due slots into runs.

Invariants: `next_at` moves by one conditional UPDATE, so of two clocks one fires;
the unique slot row says it again; every passed slot leaves a row: fired, missed or
skipped; the moment, not the clock's state, names a slot, so a clock that jumps
either way fires none twice.
"""

import hashlib
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.errors import PolarError, Unavailable
from apps.runs.engine import slots
from apps.runs.engine.intake import NewRun, enqueue
from apps.runs.models import (
    SETTLED,
    CatchUp,
    Overlap,
    Run,
    Schedule,
    ScheduleState,
    Slot,
    SlotState,
    State,
    Trigger,
)

#: A slot this late was not missed, only served slowly.
GRACE = timedelta(seconds=60)
#: Schedules fired in one go.
BATCH = 100
#: Slots of one schedule looked at in one go; the rest follows at the next tick.
MOST_SLOTS = 500


def fire_due() -> int:
    """Fire every schedule whose slot has come. Again: nothing fires twice."""
    now = clock.now()
    due = Schedule.objects.due(now).select_related("workspace", "principal")
    fired = 0
    for schedule in due.order_by("next_at", "id")[:BATCH]:
        try:
            with transaction.atomic():
                fired += fire(schedule, now)
        except Unavailable:
            # The queue is full: the slot stays due and is served when it is not.
            continue
        except PolarError as error:
            # One schedule that cannot be read must not stop the others.
            disable(schedule, f"It cannot be planned: {error.detail}")
    return fired


def fire(schedule: Schedule, now: datetime) -> int:
    """Fire one schedule's passed slots as its catch-up rule says."""
    moments = slots.due_moments(schedule, now, MOST_SLOTS)
    # 1. Move on first: of two clocks only one moves from this `next_at`.
    upcoming = slots.next_moment(schedule, moments[-1])
    moved = Schedule.objects.filter(
        id=schedule.id, next_at=schedule.next_at, state=ScheduleState.ACTIVE
    ).update(next_at=upcoming)
    if not moved:
        return 0
    # 2. Every passed slot leaves a row; those that are to run also a run.
    wanted = _wanted(schedule, moments, now, more_to_come=_is_due(upcoming, now))
    missed = [moment for moment in moments if moment not in wanted]
    Slot.objects.bulk_create(
        [_slot(schedule, moment, SlotState.MISSED) for moment in missed],
        ignore_conflicts=True,
    )
    if missed:
        _record(schedule, "schedule.missed", missed[-1], count=len(missed))
    return sum(
        _fire_slot(schedule, moment, now) for moment in moments if moment in wanted
    )


def _is_due(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now


def _wanted(
    schedule: Schedule, moments: list[datetime], now: datetime, *, more_to_come: bool
) -> set[datetime]:
    if schedule.catch_up == CatchUp.ALL:
        return set(moments)
    if more_to_come:
        return set()
    last = moments[-1]
    on_time = now - last <= GRACE
    return {last} if on_time or schedule.catch_up == CatchUp.ONE else set()


def _fire_slot(schedule: Schedule, moment: datetime, now: datetime) -> int:
    if busy := unfinished_run(schedule):
        skipped = _slot(schedule, moment, SlotState.SKIPPED)
        skipped.reason = f"overlap {busy}"
        Slot.objects.bulk_create([skipped], ignore_conflicts=True)
        return 0
    slot, is_new = Slot.objects.get_or_create(
        schedule=schedule, slot_at=moment, defaults={"state": SlotState.FIRED}
    )
    if not is_new:
        return 0
    run = enqueue(
        NewRun(
            kind=schedule.run_kind,
            payload={
                **schedule.payload,
                "schedule_id": str(schedule.id),
                "slot_at": moment.isoformat(),
            },
            principal=schedule.principal,
            workspace=schedule.workspace,
            trigger=Trigger.SCHEDULE,
            serial_key=serial_key(schedule),
            due_at=max(now, moment) + jitter(schedule, moment),
        )
    )
    Slot.objects.filter(id=slot.id).update(run=run)
    _record(schedule, "schedule.fired", moment, run_id=str(run.id))
    return 1


def serial_key(schedule: Schedule) -> str:
    return f"schedule:{schedule.id}"


def unfinished_run(schedule: Schedule) -> object | None:
    """Return the run that forbids another one now, or None."""
    if schedule.overlap != Overlap.FORBID:
        return None
    running = Run.objects.filter(serial_key=serial_key(schedule)).unsettled()
    return running.order_by("id").values_list("id", flat=True).first()


def jitter(schedule: Schedule, moment: datetime) -> timedelta:
    """Spread a slot's start: the same slot always by the same amount."""
    if not schedule.jitter_seconds:
        return timedelta()
    seed = f"{schedule.id}|{moment.isoformat()}".encode()
    part = int.from_bytes(hashlib.sha256(seed).digest()[:8]) / 2**64
    return timedelta(seconds=part * schedule.jitter_seconds)


def take_back() -> int:
    """Plan anew what a clock in the future had passed over; it is back now.

    Slots that were fired stay, so nothing fires twice.   Again: finds nothing.
    """
    now = clock.now()
    ahead = Slot.objects.filter(slot_at__gt=now + GRACE).exclude(state=SlotState.FIRED)
    active = Schedule.objects.filter(state=ScheduleState.ACTIVE)
    taken = 0
    for schedule in active.filter(id__in=ahead.values("schedule_id"))[:BATCH]:
        with transaction.atomic():
            moved = Schedule.objects.filter(
                id=schedule.id, next_at=schedule.next_at, state=ScheduleState.ACTIVE
            ).update(next_at=slots.next_moment(schedule, now))
            if moved:
                ahead.filter(schedule=schedule).delete()
                _record(schedule, "schedule.taken_back", now)
        taken += moved
    return taken


def note_outcomes() -> int:
    """Count how planned runs ended; too many failures in a row disable a schedule.

    Again: each slot's end is counted once, by one conditional UPDATE.
    """
    # Slots first, which are few: SQLite would begin with all the runs that are over.
    over = Run.objects.filter(pk=OuterRef("run_id"), state__in=SETTLED)
    ended = Slot.objects.filter(Exists(over), state=SlotState.FIRED, outcome="")
    ended = ended.select_related("schedule", "run")
    noted = 0
    for slot in ended.order_by("slot_at", "id")[:BATCH]:
        with transaction.atomic():
            noted += _note(slot)
    return noted


def _note(slot: Slot) -> int:
    assert slot.run is not None
    outcome = slot.run.state
    open_slot = Slot.objects.filter(id=slot.id, outcome="")
    if not open_slot.update(outcome=outcome):
        return 0
    schedule = Schedule.objects.filter(id=slot.schedule_id)
    if outcome in (State.SUCCEEDED, State.TRUNCATED):
        schedule.exclude(failures=0).update(failures=0)
    elif outcome in (State.FAILED, State.DEAD_LETTER):
        schedule.update(failures=F("failures") + 1)
        found = schedule.filter(failures__gte=F("max_failures")).first()
        if found is not None:
            disable(
                found,
                f"{found.failures} planned runs failed in a row,"
                f" the last one {slot.run_id}.",
            )
    return 1


def disable(schedule: Schedule, why: str) -> bool:
    """Take a schedule out of service, with one notice. Again: does nothing."""
    with transaction.atomic():
        active = Schedule.objects.filter(id=schedule.id, state=ScheduleState.ACTIVE)
        moved = active.update(state=ScheduleState.DISABLED, state_reason=why[:300])
        if moved:
            _record(schedule, "schedule.disabled", clock.now(), because=why)
    return bool(moved)


def _slot(schedule: Schedule, moment: datetime, state: str) -> Slot:
    return Slot(schedule=schedule, slot_at=moment, state=state)


def _record(
    schedule: Schedule, event: str, moment: datetime, **facts: str | int
) -> None:
    audit.record(
        type=event,
        actor=SYSTEM,
        subject=("schedule", str(schedule.id)),
        workspace_id=schedule.workspace_id,
        data={"slug": schedule.slug, "slot_at": moment.isoformat(), **facts},
    )
