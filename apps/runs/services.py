"""The verbs of background work.

Invariants: state changes go through one conditional UPDATE each, with their event
in the same transaction; what a person does carries who and why.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from django.db import transaction
from django.db.models import Q

from apps.access.models import Principal, Workspace
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import Actor
from apps.common.errors import Conflict, Invalid
from apps.runs import policies
from apps.runs.engine import calendar, executor, intake, leases, settle, slots
from apps.runs.engine.sweep import Swept, ring_for_overdue, sweep
from apps.runs.errors import NotDeadLetter
from apps.runs.models import (
    CANCELLABLE,
    LIFECYCLE,
    SCHEDULE_LIFECYCLE,
    WAITING,
    CatchUp,
    Overlap,
    Run,
    Schedule,
    ScheduleKind,
    ScheduleState,
    State,
)

ACTIONS = ("retry_now", "requeue", "dismiss")
#: A requeued dead letter waits so long before its first new attempt.
REQUEUE_SECONDS = 30


class Options(TypedDict, total=False):
    """What may be said about a new run beyond its kind and owner."""

    trigger: str
    trace_id: str | None
    serial_key: str
    due_at: datetime | None
    parent: Run | None
    deadline_at: datetime | None
    origin: str
    priority: int
    max_attempts: int


def enqueue(
    *,
    kind: str,
    payload: dict[str, Any],
    principal: Principal,
    workspace: Workspace,
    **options: Unpack[Options],
) -> Run:
    """Put a run into the queue; the doorbell rings after the commit.

    Writes: Run.   Raises: Invalid.   Shape: the payload holds ids and plain values.
    """
    return intake.enqueue(intake.NewRun(kind, payload, principal, workspace, **options))


def execute(run_id: uuid.UUID) -> bool:
    """Claim one run and carry it. Again: False when it is not ours to take."""
    return executor.execute(run_id, leases.keeper())


@transaction.atomic
def wake(
    *,
    run_id: uuid.UUID | None = None,
    waiting_on: str = "",
    state: str = "",
    reason: str = "",
) -> list[Run]:
    """Queue the waiting runs that match all that is given.

    Raises: Invalid when nothing is given.   Again: a queued run is left alone.
    """
    given = {"id": run_id, "waiting_on": waiting_on, "state": state}
    wanted = {name: value for name, value in given.items() if value}
    if not wanted:
        raise Invalid("Say which runs to wake.")
    if state and state not in WAITING:
        raise Invalid(f"{state!r} is not a waiting state.")
    if run_id is not None:
        # It may be on its way to wait: parking finds this mark and goes on.
        Run.objects.filter(id=run_id, state=State.RUNNING).update(wake_at=clock.now())
    return settle.queue_waiting(Q(**wanted), reason=reason)


@transaction.atomic
def cancel(*, by: Principal, run_id: uuid.UUID, reason: str) -> Run:
    """End a run that is not over; a worker that carries it loses its lease.

    Raises: NotFound, Denied, InvalidTransition.
    """
    run = policies.check_may_steer(by, run_id)
    LIFECYCLE.check(run.state, State.CANCELLED)
    settle.lock_parent(run)
    cancelled = Run.objects.filter(id=run_id, state__in=CANCELLABLE).update(
        state=State.CANCELLED,
        reason=reason[:64],
        finished_at=clock.now(),
        wake_at=None,
        waiting_on="",
        **settle.NOT_LEASED,
    )
    if not cancelled:
        raise Conflict("The run ended meanwhile.")
    settle.record(run, "run.cancelled", by=by.actor, reason=reason)
    settle.release_parent(run)
    run.refresh_from_db()
    return run


@transaction.atomic
def dead_letter(*, by: Actor, run_id: uuid.UUID, reason: str) -> Run:
    """Set a run aside for a person to look at.

    Raises: InvalidTransition, Conflict.   Again: a dead letter stays as it is.
    """
    run = Run.objects.get(id=run_id)
    if run.state == State.DEAD_LETTER:
        return run
    LIFECYCLE.check(run.state, State.DEAD_LETTER)
    settle.lock_parent(run)
    moved = Run.objects.filter(id=run_id, state=run.state, fence=run.fence).update(
        state=State.DEAD_LETTER,
        reason=reason,
        finished_at=clock.now(),
        wake_at=None,
        **settle.NOT_LEASED,
    )
    if not moved:
        raise Conflict("The run moved on meanwhile.")
    settle.record(run, "run.dead_lettered", by=by, reason=reason)
    settle.release_parent(run)
    run.refresh_from_db()
    return run


@transaction.atomic
def act_on_dead_letter(
    *, by: Principal, run_id: uuid.UUID, action: str, reason: str
) -> Run:
    """Retry now, requeue for later, or dismiss a dead letter.

    Raises: Invalid, NotFound, Denied, NotDeadLetter.
    Again: the second answer is refused; the first stands.
    """
    if action not in ACTIONS:
        raise Invalid(f"Unknown action {action!r}.")
    if not reason.strip():
        raise Invalid("An action on a dead letter needs a reason.")
    run = policies.check_may_steer(by, run_id)
    dead = Run.objects.filter(id=run_id, state=State.DEAD_LETTER, fence=run.fence)
    wait = timedelta(seconds=0 if action == "retry_now" else REQUEUE_SECONDS)
    if action == "dismiss":
        changed = dead.update(state=State.DISMISSED)
    else:
        changed = dead.update(
            state=State.QUEUED,
            reason="",
            due_at=clock.now() + wait,
            attempt=0,
            finished_at=None,
            error_code="",
            error_detail="",
        )
    if not changed:
        raise NotDeadLetter(f"The run is {run.state}.")
    settle.record(
        run,
        "run.dead_letter_acted",
        by=by.actor,
        decision=action,
        reason=reason,
        was=run.reason,
    )
    if action == "retry_now":
        settle.ring_later(run)
    run.refresh_from_db()
    return run


def act_on_dead_letters(
    *, by: Principal, run_ids: Iterable[uuid.UUID], action: str, reason: str
) -> list[Run]:
    """Act on many dead letters, each in its own transaction and event."""
    return [
        act_on_dead_letter(by=by, run_id=run_id, action=action, reason=reason)
        for run_id in run_ids
    ]


def tick() -> Swept:
    """Fire due slots, sweep, and ring for forgotten runs.

    Again: idempotent, in any number of processes at once.
    """
    calendar.fire_due()
    swept = sweep()
    ring_for_overdue()
    return swept


def fire_due_slots() -> int:
    """Turn the slots that have come into runs."""
    return calendar.fire_due()


def wake_for_decision(run_id: uuid.UUID) -> None:
    """Queue the run that a decision of the gateway lets go on.

    Writes: Run, in the deciding transaction.   Again: wakes nothing twice.
    """
    wake(run_id=run_id, reason="decided")


def wake_for_unseal() -> None:
    """Queue the runs that waited for the vault, in the transaction that opens it."""
    wake(state=State.WAITING_VAULT, reason="unsealed")


class Timing(TypedDict, total=False):
    """What a schedule is called, whom it acts for, how it treats its moments."""

    title: str
    principal: Principal
    timezone: str
    catch_up: str
    overlap: str
    jitter_seconds: int
    payload: dict[str, Any]


@transaction.atomic
def create_schedule(
    *,
    by: Principal,
    workspace: Workspace,
    slug: str,
    when: tuple[str, str],
    run_kind: str,
    **timing: Unpack[Timing],
) -> Schedule:
    """Plan runs of one kind.

    Raises: BadSchedule, Denied.   Shape: `when` is (kind, expression).
    """
    policies.check_may_plan(by, workspace)
    schedule = Schedule(
        workspace=workspace,
        slug=slug,
        kind=when[0],
        expression=when[1],
        run_kind=run_kind,
        **{"principal": by, "title": slug, **timing},
    )
    _check_choices(schedule)
    schedule.next_at = slots.next_moment(schedule, clock.now())
    schedule.save(force_insert=True)
    _record_schedule(schedule, "schedule.created", by.actor)
    return schedule


@transaction.atomic
def update_schedule(
    *, by: Principal, schedule_id: uuid.UUID, **changes: Any
) -> Schedule:
    """Change a schedule; its next moment is counted anew.

    Raises: BadSchedule, Invalid, Denied.
    """
    schedule = Schedule.objects.select_for_update().get(id=schedule_id)
    policies.check_may_plan(by, schedule.workspace)
    allowed = {"expression", "run_kind", *Timing.__annotations__}
    if unknown := set(changes) - allowed:
        raise Invalid(f"A schedule has no changeable {', '.join(sorted(unknown))}.")
    for name, value in changes.items():
        setattr(schedule, name, value)
    _check_choices(schedule)
    schedule.next_at = slots.next_moment(schedule, clock.now())
    schedule.save()
    _record_schedule(schedule, "schedule.updated", by.actor, changed=sorted(changes))
    return schedule


@transaction.atomic
def set_schedule_state(
    *, by: Principal, schedule_id: uuid.UUID, state: str, reason: str = ""
) -> Schedule:
    """Pause, resume or disable a schedule.

    Raises: InvalidTransition, Denied.   Again: the same state is left alone.
    """
    schedule = Schedule.objects.select_for_update().get(id=schedule_id)
    policies.check_may_plan(by, schedule.workspace)
    if schedule.state == state:
        return schedule
    SCHEDULE_LIFECYCLE.check(schedule.state, state)
    schedule.state = state
    if state == ScheduleState.ACTIVE:
        # What passed while it was paused was not wanted.
        schedule.next_at = slots.next_moment(schedule, clock.now())
    schedule.save(update_fields=["state", "next_at"])
    _record_schedule(
        schedule, "schedule.updated", by.actor, state=state, because=reason
    )
    return schedule


CHOICES = {"kind": ScheduleKind, "catch_up": CatchUp, "overlap": Overlap}


def _check_choices(schedule: Schedule) -> None:
    for name, choices in CHOICES.items():
        if getattr(schedule, name) not in choices.values:
            raise Invalid(f"A schedule's {name} is one of {', '.join(choices.values)}.")
    slots.check(schedule)


def _record_schedule(schedule: Schedule, event: str, by: Actor, **facts: Any) -> None:
    audit.record(
        type=event,
        actor=by,
        subject=("schedule", str(schedule.id)),
        workspace_id=schedule.workspace_id,
        data={
            "slug": schedule.slug,
            "expression": schedule.expression,
            "timezone": schedule.timezone,
            **facts,
        },
    )
