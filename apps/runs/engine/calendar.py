"""Turn due slots into runs.

Invariants: `next_at` moves by one conditional UPDATE, so of two clocks one fires;
the unique slot row says it again; every passed slot leaves a row: fired, missed or
skipped.
"""

import random
from datetime import datetime, timedelta

from django.db import transaction

from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.runs.engine import slots
from apps.runs.engine.intake import NewRun, enqueue
from apps.runs.models import (
    CatchUp,
    Overlap,
    Run,
    Schedule,
    ScheduleState,
    Slot,
    SlotState,
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
        with transaction.atomic():
            fired += fire(schedule, now)
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
    serial_key = f"schedule:{schedule.id}"
    running = Run.objects.filter(serial_key=serial_key).unsettled()
    if schedule.overlap == Overlap.FORBID and running.exists():
        Slot.objects.bulk_create(
            [_slot(schedule, moment, SlotState.SKIPPED)], ignore_conflicts=True
        )
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
            serial_key=serial_key,
            due_at=max(now, moment) + _jitter(schedule),
        )
    )
    Slot.objects.filter(id=slot.id).update(run=run)
    _record(schedule, "schedule.fired", moment, run_id=str(run.id))
    return 1


def _jitter(schedule: Schedule) -> timedelta:
    # Spreading load needs no unpredictable numbers.
    return timedelta(seconds=random.uniform(0, schedule.jitter_seconds))  # noqa: S311


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
