"""What is done about a store that went back: classify it, accept it, go on.

Invariants: nothing is claimed between the alarm and an operator's decision; each
decision carries who and why.
"""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.db import DatabaseError, transaction

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.boards import services as boards
from apps.boards.models import Task
from apps.common import clock
from apps.common.actor import Actor
from apps.common.errors import Conflict, Invalid, NotFound
from apps.reliability.engine import classifying
from apps.reliability.models import Rollback, RollbackState
from apps.runs import services as runs
from apps.runs.models import Run

OPEN = (RollbackState.SEEN, RollbackState.CLASSIFIED)


def look_after_alarm() -> Rollback | None:
    """Classify what a standing alarm concerns; close what no longer stands.

    Again: a classified alarm waits for the operator.
    """
    standing = audit.standing_alarm()
    if standing is None:
        _close_ended()
        return None
    if standing.kind != "rolled_back" or not standing.detected_at:
        return None
    try:
        rollback = _see(standing)
    except DatabaseError:
        return None  # the store cannot even be read: the alarm's file says so
    if rollback.state == RollbackState.SEEN:
        _classify(rollback)
    return rollback


def accept_rollback(*, by: Principal, reason: str) -> Rollback:
    """Go on from the store as it is: begin a new epoch, give up the lost future.

    Raises: RoleRequired (admin); Conflict when nothing stands or it is not yet
    classified; StoreDamaged when the store contradicts itself.
    """
    check_role(by, Role.ADMIN, access.default_workspace())
    if not reason.strip():
        raise Invalid("Say why this history is accepted.")
    standing = audit.standing_alarm()
    rollback = standing and Rollback.objects.filter(alarm_id=standing.id).first()
    if not rollback:
        raise Conflict("No rollback waits for a decision.")
    if rollback.state != RollbackState.CLASSIFIED:
        raise Conflict("What it concerns is still being found out; try again soon.")
    audit.begin_epoch(by=by.actor, reason=reason)
    _decide(rollback, RollbackState.ACCEPTED, by.label, reason)
    rollback.refresh_from_db()
    return rollback


def recover(*, by: Actor, problem: str, reason: str) -> Rollback:
    """Classify and accept an announced restore of an older store, in one go."""
    standing = audit.standing_alarm()
    if standing is None:
        raise Conflict("No restore was announced.")
    rollback = _see(replace(standing, problem=problem))
    if rollback.state == RollbackState.SEEN:
        _classify(rollback)
    audit.begin_epoch(by=by, reason=reason)
    _decide(rollback, RollbackState.ACCEPTED, by.label, reason)
    rollback.refresh_from_db()
    return rollback


def resume_stale(*, by: Principal, rollback_id: UUID, reason: str) -> list[Run]:
    """Let the runs go on that were held as stale, and their tasks with them.

    Raises: NotFound, RoleRequired; Conflict before the rollback is decided.
    """
    rollback = Rollback.objects.filter(id=rollback_id).first()
    if rollback is None:
        raise NotFound("There is no such rollback.")
    if rollback.state in OPEN:
        raise Conflict("Accept the rollback or put the newer store back first.")
    resumed = runs.resume_stale(
        by=by, workspace=access.default_workspace(), mark=rollback.mark
    )
    marked = Task.objects.filter(run_id__in=[run.id for run in resumed], status="stale")
    for task in marked.order_by("id"):
        boards.revalidate_task(by=by, task_id=task.id, reason=reason or "resumed")
    return resumed


@transaction.atomic
def _see(standing: audit.Alarm) -> Rollback:
    rollback, is_new = Rollback.objects.get_or_create(
        alarm_id=standing.id,
        defaults={
            "problem": standing.problem,
            "detected_at": datetime.fromisoformat(standing.detected_at),
            "witness_size": standing.witness_size,
            "witness_head": standing.witness_head,
            "store_size": standing.store_size,
            "store_head": standing.store_head,
            "epoch_before": audit.epoch(),
        },
    )
    if is_new:
        audit.record(
            type="store.alarm_raised",
            actor=access_services.system_principal().actor,
            subject=("alarm", standing.id),
            reason=standing.problem,
            data={
                "witness_size": standing.witness_size,
                "witness_head": standing.witness_head,
                "store_size": standing.store_size,
                "store_head": standing.store_head,
            },
        )
    return rollback


def _classify(rollback: Rollback) -> None:
    system = access_services.system_principal()
    found = classifying.classify(system, rollback.mark, rollback.detected_at)
    concerned = Run.objects.filter(waiting_on=rollback.mark)
    Rollback.objects.filter(id=rollback.id, state=RollbackState.SEEN).update(
        state=RollbackState.CLASSIFIED,
        fork=found.fork,
        events_lost=found.events,
        conflicted=len(found.conflicted),
        lost=len(found.lost),
        stale=concerned.count(),
        effects_held=found.effects,
    )
    rollback.refresh_from_db()


def _close_ended() -> None:
    """An alarm that ended without a decision here: the newer store is back."""
    for rollback in Rollback.objects.filter(state__in=OPEN):
        is_same = rollback.epoch_before == audit.epoch()
        accepted = not is_same and rollback.state == RollbackState.CLASSIFIED
        state = RollbackState.ACCEPTED if accepted else RollbackState.WITHDRAWN
        _decide(rollback, state, "", "the alarm ended")


@transaction.atomic
def _decide(rollback: Rollback, state: RollbackState, by: str, reason: str) -> None:
    Rollback.objects.filter(id=rollback.id, state=rollback.state).update(
        state=state,
        decided_by=by,
        decided_reason=reason[:300],
        decided_at=clock.now(),
    )
