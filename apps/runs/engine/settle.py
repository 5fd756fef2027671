"""What becomes of a run: every write after the claim.

Invariants: each write is one UPDATE conditioned on id, fence and running, its row
count checked; state and event share a transaction; the last child's settling
queues its waiting parent in that transaction.
"""

import random
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import DateTimeField, Exists, F, OuterRef, Q, Value
from django.db.models.functions import Coalesce

from apps.audit import services as audit
from apps.common import clock, failpoints, statements
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import Fenced
from apps.runs.engine.claim import Claimed
from apps.runs.models import LIFECYCLE, SETTLED, WAITING, Reason, Run, State
from apps.runs.ports import Again, Finish, Park, doorbell

BACK_OFF_BASE_SECONDS = 1.0
BACK_OFF_LIMIT_SECONDS = 300.0
#: How much of an error is kept with the run.
DETAIL_CHARS = 8000
#: Waits that nobody may end are looked at again after so long.
LOOK_AGAIN = {
    State.WAITING_PROVIDER: timedelta(seconds=15),
    State.WAITING_VAULT: timedelta(seconds=60),
}

MOMENT = DateTimeField()
NOT_LEASED: dict[str, Any] = {"lease_owner": "", "lease_until": None}


def write_as_owner(claimed: Claimed, target: str, **changes: Any) -> None:
    """Move our run on, or learn that it is no longer ours.

    Raises: Fenced; StoreInDoubt, so that nothing is settled in another store.
    """
    audit.check_here()
    LIFECYCLE.check(State.RUNNING, target)
    where = {"id": claimed.id, "fence": claimed.fence, "state": State.RUNNING}
    lost = Fenced(run_id=str(claimed.id), fence=claimed.fence)
    values = {"state": target, **NOT_LEASED, **changes}
    statements.update_one(Run, where, values, otherwise=lost)


def record(run: Run, event: str, *, by: Actor = SYSTEM, **facts: Any) -> None:
    """Write one event about a run."""
    fence = int(facts.get("fence", 0))
    audit.record(
        type=event,
        actor=by,
        subject=("run", str(run.id)),
        workspace_id=run.workspace_id,
        run_id=run.id,
        trace_id=run.trace_id,
        decision=facts.pop("decision", ""),
        reason=facts.pop("reason", ""),
        data={"kind": run.kind, **facts},
        fence=fence,
    )


def finish(claimed: Claimed, outcome: Finish) -> None:
    """End our run."""
    run, now = claimed.run, clock.now()
    with transaction.atomic():
        lock_parent(run)
        write_as_owner(
            claimed,
            outcome.state,
            reason=outcome.reason,
            result=outcome.result,
            error_code=outcome.error_code,
            error_detail=outcome.error_detail[:DETAIL_CHARS],
            finished_at=now,
            waiting_on="",
        )
        record(
            run,
            "run.finished",
            decision=outcome.state,
            reason=outcome.reason or outcome.error_code,
            attempt=claimed.attempt,
            fence=str(claimed.fence),
        )
        release_parent(run)
        failpoints.reach("run.finish.before_commit")
    failpoints.reach("run.finished")


def park(claimed: Claimed, outcome: Park) -> None:
    """Let our run wait without a worker. Parking is not a failed attempt."""
    run = claimed.run
    with transaction.atomic():
        write_as_owner(
            claimed,
            outcome.state,
            reason=outcome.reason,
            waiting_on=outcome.waiting_on,
            # A wake that came while it ran left its mark here.
            wake_at=Coalesce(F("wake_at"), Value(_wake_at(run, outcome), MOMENT)),
            attempt=claimed.attempt - 1,
        )
        record(
            run,
            "run.parked",
            decision=outcome.state,
            reason=outcome.reason,
            waiting_on=outcome.waiting_on,
        )
        if outcome.state == State.WAITING_CHILD:
            _queue_parent_without_children(run.id)
        queue_waiting(Q(id=run.id, wake_at__lte=clock.now()), reason="woken")
    failpoints.reach("run.parked")


def _wake_at(run: Run, outcome: Park) -> datetime | None:
    moments = [outcome.until, run.deadline_at]
    if outcome.until is None and outcome.state in LOOK_AGAIN:
        moments.append(clock.now() + LOOK_AGAIN[State(outcome.state)])
    known = [moment for moment in moments if moment is not None]
    return min(known) if known else None


def put_back(claimed: Claimed, outcome: Again) -> None:
    """Queue our run again; it did its part and lost no attempt."""
    due = clock.now() + timedelta(seconds=outcome.after_seconds)
    write_as_owner(
        claimed, State.QUEUED, due_at=due, attempt=0, error_code="", error_detail=""
    )
    if outcome.after_seconds == 0:
        ring_later(claimed.run)


def try_again(
    claimed: Claimed, *, code: str, detail: str, retry_after: float | None = None
) -> None:
    """Queue our run with back-off; out of attempts it is a dead letter."""
    run = claimed.run
    error = {"error_code": code[:80], "error_detail": detail[:DETAIL_CHARS]}
    if claimed.attempt < run.max_attempts:
        due = clock.now() + back_off(claimed.attempt, retry_after)
        write_as_owner(claimed, State.QUEUED, due_at=due, **error)
        return
    with transaction.atomic():
        lock_parent(run)
        write_as_owner(
            claimed,
            State.DEAD_LETTER,
            reason=Reason.POISON,
            finished_at=clock.now(),
            **error,
        )
        dead_lettered(run, Reason.POISON, attempt=claimed.attempt, code=code)


def dead_lettered(run: Run, reason: str, **facts: Any) -> None:
    """Record a new dead letter and let its parent go on."""
    record(run, "run.dead_lettered", reason=reason, **facts)
    release_parent(run)


def back_off(attempt: int, retry_after: float | None = None) -> timedelta:
    """Wait 1, 2, 4 … 300 s, half of it by chance, and no less than asked."""
    most = min(BACK_OFF_BASE_SECONDS * 2 ** (attempt - 1), BACK_OFF_LIMIT_SECONDS)
    # Jitter needs no unpredictable numbers.
    wait = most / 2 + random.random() * most / 2  # noqa: S311
    return timedelta(seconds=max(wait, retry_after or 0.0))


def queue_waiting(waiting: Q, *, reason: str = "") -> list[Run]:
    """Queue the waiting runs that match, now, and ring for them after the commit."""
    now, queued = clock.now(), []
    for run in Run.objects.filter(waiting, state__in=WAITING).order_by("id"):
        changed = Run.objects.filter(
            waiting, id=run.id, state=run.state, fence=run.fence
        ).update(
            state=State.QUEUED,
            due_at=now,
            wake_at=None,
            waiting_on="",
            reason=reason or run.reason,
        )
        if changed:
            queued.append(run)
            ring_later(run)
    return queued


def lock_parent(run: Run) -> None:
    """Hold the parent first, so that two last children see one another."""
    if run.parent_id is not None:
        list(Run.objects.select_for_update().filter(id=run.parent_id).values("id"))


def release_parent(run: Run) -> None:
    """Queue the parent when this was the last child it waited for."""
    if run.parent_id is not None:
        _queue_parent_without_children(run.parent_id)


def _queue_parent_without_children(parent_id: Any) -> None:
    # By the parent's index, which finds few: not by the index of what is not over.
    children = Run.objects.filter(parent_id=OuterRef("id"))
    open_children = children.exclude(state__in=SETTLED)
    parent = Run.objects.filter(id=parent_id, state=State.WAITING_CHILD)
    changed = parent.filter(~Exists(open_children)).update(
        state=State.QUEUED,
        due_at=clock.now(),
        wake_at=None,
        waiting_on="",
        reason="children_settled",
    )
    if changed:
        ring_later(Run.objects.only("id", "queue").get(id=parent_id))


def ring_later(run: Run) -> None:
    """Ring the doorbell once the transaction at hand is committed."""
    run_id, queue = run.id, run.queue

    def ring() -> None:
        doorbell.ring(run_id, queue)
        failpoints.reach("run.hinted")

    transaction.on_commit(ring)
