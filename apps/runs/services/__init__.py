"""The verbs of background work.

Invariants: state changes go through one conditional UPDATE each, with their event
in the same transaction; what a person does carries who and why.
"""

import uuid
from datetime import datetime
from typing import Any, TypedDict, Unpack

from django.db import transaction
from django.db.models import Q

from apps.access.models import Principal, Workspace
from apps.common import clock
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import Conflict, Invalid
from apps.runs import policies, queries
from apps.runs.engine import (
    calendar,
    delivery,
    executor,
    intake,
    leases,
    pressure,
    settle,
)
from apps.runs.engine.delivery import Verdict as Verdict
from apps.runs.engine.sweep import Swept, ring_for_overdue, sweep
from apps.runs.models import CANCELLABLE, LIFECYCLE, WAITING, Run, Schedule, State
from apps.runs.ports import replayers
from apps.runs.services import letters, schedules
from apps.runs.services.letters import ACTIONS as ACTIONS
from apps.runs.services.letters import BULK as BULK
from apps.runs.services.letters import VERDICTS as VERDICTS
from apps.runs.services.letters import Filter as Filter
from apps.runs.services.letters import Progress as Progress
from apps.runs.services.letters import act_on_dead_letter as act_on_dead_letter
from apps.runs.services.letters import act_on_dead_letters as act_on_dead_letters
from apps.runs.services.letters import act_on_matching as act_on_matching
from apps.runs.services.letters import settle_effect as settle_effect
from apps.runs.services.proposals import automation_principal as automation_principal
from apps.runs.services.proposals import check_plannable as check_plannable
from apps.runs.services.proposals import check_slug as check_slug
from apps.runs.services.proposals import create_automation as create_automation
from apps.runs.services.proposals import decide_proposal as decide_proposal
from apps.runs.services.proposals import draft_of as draft_of
from apps.runs.services.proposals import propose_automation as propose_automation
from apps.runs.services.rollback import Sides as Sides
from apps.runs.services.rollback import bury_lost as bury_lost
from apps.runs.services.rollback import hold_stale as hold_stale
from apps.runs.services.rollback import note_fired as note_fired
from apps.runs.services.rollback import resume_stale as resume_stale
from apps.runs.services.rollback import set_aside_conflicted as set_aside_conflicted
from apps.runs.services.schedules import Timing as Timing
from apps.runs.services.schedules import Trial as Trial
from apps.runs.services.schedules import build as build
from apps.runs.services.schedules import create_schedule as create_schedule
from apps.runs.services.schedules import run_now as run_now
from apps.runs.services.schedules import set_schedule_state as set_schedule_state
from apps.runs.services.schedules import strip_of as strip_of
from apps.runs.services.schedules import try_out as try_out
from apps.runs.services.schedules import update_schedule as update_schedule
from apps.runs.services.schedules import words_of as words_of


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

    Writes: Run.   Raises: Invalid, QueueFull for work that can wait.
    Shape: the payload holds ids and plain values.
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


def tick() -> Swept:
    """Fire due slots, sweep, and ring for forgotten runs.

    Again: idempotent, in any number of processes at once.
    """
    calendar.take_back()
    calendar.fire_due()
    calendar.note_outcomes()
    letters.set_aside_in_doubt()
    swept = sweep()
    ring_for_overdue()
    return swept


def admit_delivery(*, schedule: Schedule, recipient: str) -> Verdict:
    """Ask, before something is delivered unasked, whether it may be.

    Binds proactive delivery alone: never a run, a reply, an approval, an alert.
    Writes: DeliveryDay when it may; an event when it may not.
    """
    with transaction.atomic():
        found = delivery.take(schedule, recipient, clock.now())
        if not found.allowed:
            schedules.record(
                schedule,
                "delivery.held_back",
                SYSTEM,
                recipient=recipient,
                because=found.reason,
            )
    return found


def replay(*, by: Principal, run_id: uuid.UUID) -> dict[str, Any]:
    """Re-run a run's journal on its recorded results; names the first divergence.

    Executes and writes nothing.   Raises: NotFound; NoHandler without a journal.
    """
    run = queries.get_run(run_id, principal=by)
    return replayers.get(run.kind)(run.id)


def metrics() -> str:
    """Describe the work for Prometheus: depth, oldest age, states, workers."""
    return pressure.metrics()


def queue_is_full() -> bool:
    """Tell whether work that can wait would be refused now."""
    return pressure.is_full()


def fire_due_slots() -> int:
    """Turn the slots that have come into runs."""
    return calendar.fire_due()


def wake_for_decision(run_id: uuid.UUID) -> None:
    """Queue the run that a decision of the gateway lets go on.

    Writes: Run, in the deciding transaction.   Again: wakes nothing twice.
    """
    wake(run_id=run_id, reason="decided")


def carried(run_ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """Keep the runs that a worker holds under a live lease."""
    held = Run.objects.filter(
        id__in=run_ids, state=State.RUNNING, lease_until__gt=clock.now()
    )
    return set(held.values_list("id", flat=True))


def wake_for_unseal() -> None:
    """Queue the runs that waited for the vault, in the transaction that opens it."""
    wake(state=State.WAITING_VAULT, reason="unsealed")
