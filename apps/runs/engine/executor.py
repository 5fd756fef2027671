"""The boundary around every handler: whatever it raises, the run ends up somewhere.

Hides: how an error becomes a wait, a back-off, an end or a dead letter.
Invariants: one broad except, here; a lost lease or a store in doubt leaves no write;
no database connection outlives the run in its thread.
"""

import logging
import traceback
import uuid

from django.db import connection

from apps.audit.errors import StoreInDoubt
from apps.common import failpoints, ids, redaction
from apps.common.errors import Fenced, PolarError, UpstreamError
from apps.runs.engine import settle
from apps.runs.engine.claim import Claimed, check_fence, claim
from apps.runs.engine.leases import Held, LeaseKeeper
from apps.runs.models import Run, State
from apps.runs.ports import Again, Finish, Outcome, Park, RunContext, handlers

logger = logging.getLogger(__name__)

#: A fault of ours, with its stack in `error_detail`.
BUG = "POLAR_INTERNAL_ERROR"


def execute(run_id: uuid.UUID, keeper: LeaseKeeper) -> bool:
    """Claim one run and carry it; False when it is not ours to take."""
    try:
        with keeper.claiming() as may:
            taken = may and claim(
                owner=keeper.owner, queues=keeper.queues, run_id=run_id
            )
            for each in taken or ():
                keeper.hold(each)
        if not taken:
            logger.info("hint came too late", extra={"event": "run.duplicate_hint"})
            return False
        carry(taken[0], keeper)
        return True
    finally:
        close_connection()


def carry(claimed: Claimed, keeper: LeaseKeeper) -> None:
    """Run the handler of a claimed run and settle what comes of it.

    Again: under a lost lease nothing is written.
    """
    with ids.use_trace(claimed.run.trace_id):
        try:
            _settle(claimed, _handle(claimed, keeper))
        except (Fenced, StoreInDoubt):
            logger.warning("run lost", extra=_facts(claimed, "run.fenced"))
        finally:
            keeper.drop(claimed)
            close_connection()


def _handle(claimed: Claimed, keeper: LeaseKeeper) -> Outcome | PolarError | str:
    """Call the handler. Shape: its outcome, its refusal, or a stack to keep."""
    try:
        kind = handlers.get(claimed.run.kind)
        held = keeper.hold(claimed, kind.step_seconds)
        failpoints.reach("run.handler.start")
        outcome = kind.handler(context_of(claimed, held, keeper))
        failpoints.reach("run.handler.done")
        return outcome
    except (Fenced, StoreInDoubt):
        raise
    except PolarError as error:
        return error
    except Exception:
        logger.exception("handler failed", extra=_facts(claimed, "run.bug"))
        return redaction.scrub(traceback.format_exc())


def _settle(claimed: Claimed, came_of_it: Outcome | PolarError | str) -> None:
    if connection.errors_occurred:
        close_connection()
    match came_of_it:
        case Finish():
            settle.finish(claimed, came_of_it)
        case Park():
            settle.park(claimed, came_of_it)
        case Again():
            settle.put_back(claimed, came_of_it)
        case PolarError():
            _settle_error(claimed, came_of_it)
        case str():
            settle.try_again(claimed, code=BUG, detail=came_of_it)


def _settle_error(claimed: Claimed, error: PolarError) -> None:
    detail = redaction.scrub(error.detail)
    if error.waits_as:
        settle.park(claimed, _waiting(error))
    elif isinstance(error, UpstreamError) and not error.permanent:
        settle.try_again(
            claimed, code=error.code, detail=detail, retry_after=error.retry_after
        )
    else:
        failed = Finish(
            state=State.FAILED,
            reason=error.reason_code,
            error_code=error.code,
            error_detail=detail,
        )
        settle.finish(claimed, failed)


def _waiting(error: PolarError) -> Park:
    """A refusal that passes names what the run waits for."""
    facts = error.facts
    waiting_on = str(facts.get("approval_id") or facts.get("waiting_on") or "")
    return Park(
        error.waits_as,
        waiting_on=waiting_on,
        reason=error.reason_code or error.code,
        until=facts.get("until"),
    )


def context_of(claimed: Claimed, held: Held, keeper: LeaseKeeper) -> RunContext:
    """Tell the handler what it may know of its run."""
    run: Run = claimed.run

    def begin_step(seconds: float) -> None:
        keeper.begin_step(held, seconds)

    return RunContext(
        run_id=run.id,
        fence=claimed.fence,
        attempt=claimed.attempt,
        trace_id=run.trace_id,
        payload=run.payload,
        stopping=lambda: held.lost or keeper.leaving.is_set(),
        check_fence=lambda: check_fence(run.id, claimed.fence),
        begin_step=begin_step,
        kind=run.kind,
        reason=run.reason,
        trigger=run.trigger,
        origin=run.origin,
        epoch=run.epoch,
        workspace_id=run.workspace_id,
        principal_id=run.principal_id,
        parent_id=run.parent_id,
        root_id=run.root_id,
        deadline_at=run.deadline_at,
    )


def close_connection() -> None:
    """Leave no connection behind in a pool thread."""
    if not connection.in_atomic_block:
        connection.close()


def _facts(claimed: Claimed, event: str) -> dict[str, object]:
    return {"event": event, "run_id": str(claimed.id), "fence": claimed.fence}
