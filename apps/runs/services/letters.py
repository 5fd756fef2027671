"""What people do with dead letters and with effects in doubt.

Invariants: each decision carries who and why and is an event of its own; bulk
work is many small decisions, never one long transaction; effects keep their keys.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction

from apps.access.models import Principal
from apps.common import clock
from apps.common.errors import Invalid, NotFound, PolarError
from apps.gateway import services as gateway
from apps.gateway.models import Call, CallState
from apps.runs import policies, queries
from apps.runs.engine import settle
from apps.runs.errors import NotDeadLetter
from apps.runs.models import Reason, Run, State

ACTIONS = ("retry_now", "requeue", "dismiss")
#: A requeued dead letter waits so long before its first new attempt.
REQUEUE_SECONDS = 30
#: Dead letters acted on in one go.
BULK = 100
#: How long an effect may stay in doubt before its run is set aside.
IN_DOUBT = timedelta(hours=72)
VERDICTS = ("happened", "did_not_happen", "retry")


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


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant. Empty fields match everything."""

    reason: str = ""
    kind: str = ""
    before: datetime | None = None


@dataclass(slots=True)
class Progress:
    """How far one go came; ask again while `left` is not zero."""

    done: int = 0
    left: int = 0
    refused: list[str] = field(default_factory=list)


def act_on_matching(
    *, by: Principal, which: Filter, action: str, reason: str, limit: int = BULK
) -> Progress:
    """Act on the oldest dead letters that match, at most `limit` of them.

    Raises: Invalid.   Again: takes the next ones.
    """
    matching = queries.dead_letters_like(
        principal=by, reason=which.reason, kind=which.kind, before=which.before
    )
    found = matching.order_by("id").values_list("id", flat=True)
    progress = Progress()
    for run_id in list(found[: min(max(limit, 1), BULK)]):
        try:
            act_on_dead_letter(by=by, run_id=run_id, action=action, reason=reason)
            progress.done += 1
        except (NotFound, NotDeadLetter):
            # Somebody else decided on it meanwhile; theirs stands.
            continue
        except Invalid:
            raise
        except PolarError as error:
            progress.refused.append(f"{run_id}: {error.detail}")
    progress.left = matching.count()
    return progress


@transaction.atomic
def settle_effect(
    *, by: Principal, run_id: uuid.UUID, call_id: uuid.UUID, verdict: str, reason: str
) -> Call:
    """Say of a run's effect in doubt: it happened, it did not, or do it again.

    Writes: Call, and wakes the run in the same transaction.
    Raises: Invalid, NotFound, Denied, Conflict when it is not in doubt.
    Again: the second answer is refused; the first stands.
    """
    if verdict not in VERDICTS:
        raise Invalid(f"A verdict is one of {', '.join(VERDICTS)}.")
    if not reason.strip():
        raise Invalid("Say how you know: the reason stays with the effect.")
    run = policies.check_may_steer(by, run_id)
    if not Call.objects.filter(id=call_id, run_id=run.id).exists():
        raise NotFound(f"Run {run_id} has no effect {call_id}.")
    return gateway.settle_outcome(
        by=by,
        call_id=call_id,
        happened=verdict == "happened",
        again=verdict == "retry",
        reason=reason,
    )


def set_aside_in_doubt() -> int:
    """Make dead letters of runs whose effect stayed in doubt for 72 h."""
    since = clock.now() - IN_DOUBT
    doubtful = Call.objects.unfinished(CallState.UNKNOWN).filter(started_at__lte=since)
    stuck = Run.objects.filter(
        state=State.WAITING_OPERATOR, id__in=doubtful.values("run_id")
    )
    ids = list(stuck.order_by("id").values_list("id", flat=True)[:BULK])
    return sum(_set_aside(run_id) for run_id in ids)


@transaction.atomic
def _set_aside(run_id: uuid.UUID) -> bool:
    run = Run.objects.get(id=run_id)
    settle.lock_parent(run)
    moved = Run.objects.filter(
        id=run_id, state=State.WAITING_OPERATOR, fence=run.fence
    ).update(
        state=State.DEAD_LETTER,
        reason=Reason.IN_DOUBT_EFFECT,
        finished_at=clock.now(),
        wake_at=None,
        **settle.NOT_LEASED,
    )
    if moved:
        settle.dead_lettered(run, Reason.IN_DOUBT_EFFECT)
    return bool(moved)
