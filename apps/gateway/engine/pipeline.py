"""THE pipeline: decide, start, do, settle. Nothing reaches outside without it.

An effect that is rows of this store does all of it in one transaction. Any other:

1. One transaction: an earlier try of the same effect is looked up, the stages
   decide, the row is written AUTHORIZED (or DENIED, or AWAITING_APPROVAL).
2. The adapter spends the permit: AUTHORIZED → EXECUTING, halts read again.
3. Outside any transaction: the adapter does it.
4. One transaction: the result, what it took, and the audit event.
"""

from typing import Any

from django.db import IntegrityError, transaction

from apps.audit import services as audit
from apps.audit.errors import StoreInDoubt
from apps.common import canonical, clock, failpoints, ids, redaction, statements
from apps.common.errors import ApprovalRequired, Conflict, Fenced, Invalid, PolarError
from apps.common.shapes import problems_of
from apps.gateway.errors import OutputBroken
from apps.gateway.models import (
    Call,
    CallState,
    Reservation,
)
from apps.gateway.ports import CallRequest, Outcome, Permit, Usage

from . import asking, ledger, locks
from .decision import Decision
from .sight import Sight, see
from .stages import DECIDE, halt, trust

#: Of an answer; what a model or a tool wraps its own JSON in counts as well.
MOST_LEVELS = 2 * canonical.MOST_LEVELS
#: What deciding a call again may change on its row.
DECIDED_FIELDS = (
    "stage",
    "reason_code",
    "facts",
    "error_code",
    "error_detail",
    "fence",
    "reserved_micros",
)


def run(request: CallRequest) -> Outcome:
    """Take one call through the pipeline.

    Raises: the refusing stage's error; ApprovalRequired; what the adapter raised.
    Again: the same idempotency key returns the recorded output.
    """
    call = ledger.new_row(request)
    call.trace_id = call.trace_id or ids.current_trace_id()
    call.idempotency_key = ledger.key_of(request, call.args_digest)
    if request.is_inside and (outcome := _happen_inside(call, request)) is not None:
        return outcome
    call, earlier = _authorize(call, request)
    if earlier is not None:
        return _replay(earlier)
    failpoints.reach("call.authorized")
    return _execute(call, request)


def _happen_inside(call: Call, request: CallRequest) -> Outcome | None:
    """Decide, do and settle in one transaction: exactly once, or not at all.

    1. The halts' locks are taken first: what is read next stands until the commit.
    2. The stages decide. A refusal leaves its row, as ever.
    3. It is done, and its row and event are written as settled. What fails undoes all
       of it, and is written down afterwards.
    None: there was an earlier try, and the long way knows what to do with it.
    """
    refusal: PolarError | None = None
    outcome: Outcome | None = None
    try:
        with transaction.atomic():
            locks.share_ahead(halt.scopes_of(request))
            sight = see(request, call)
            if sight.earlier:
                return None
            refusal = _decide(call, request, sight, is_last=False)
            if refusal is None:
                outcome = _do_inside(call, request)
    except IntegrityError as error:
        raise ledger.same_effect(error) from error
    except (Fenced, StoreInDoubt):
        raise  # nothing happened, and who lost the run writes nothing
    except PolarError as error:
        ledger.fail_undone(call, request, error)
        raise
    if refusal is not None:
        asking.rehearse(request, refusal)
        raise refusal
    failpoints.reach("call.settled")
    return outcome


def _do_inside(call: Call, request: CallRequest) -> Outcome:
    permit = Permit(
        call_id=call.id,
        args_digest=call.args_digest,
        idempotency_key=call.idempotency_key,
        start=lambda: ledger.start_inside(call, request),
        is_inside=True,
    )
    outcome = _perform(call, request, permit)
    ledger.settle_inside(call, request, outcome)
    failpoints.reach("call.settle.before_commit")
    return outcome


def _authorize(call: Call, request: CallRequest) -> tuple[Call, Call | None]:
    """Decide, and commit the decision whatever it is; then raise a refusal.

    The refusal is raised after the commit, so that a denial leaves its row.
    """
    refusal: PolarError | None = None
    doubtful: Call | None = None
    try:
        with transaction.atomic():
            sight = see(request, call)
            earlier = ledger.find_earlier(call) if sight.earlier else None
            if earlier is not None:
                ledger.check_not_carried_since(earlier, call)
                if earlier.state == CallState.SUCCEEDED:
                    return call, earlier
                ledger.check_not_left_undone(earlier)
                ledger.take_over(earlier)
                doubtful = earlier
                call = _resume(call, earlier)
            if doubtful is None or not _is_doubtful(doubtful):
                refusal = _decide(call, request, sight)
    except IntegrityError as error:
        raise ledger.same_effect(error) from error
    if doubtful is not None:
        ledger.check_not_in_doubt(doubtful)
    if refusal is not None:
        asking.rehearse(request, refusal)
        raise refusal
    return call, None


def _is_doubtful(earlier: Call) -> bool:
    in_doubt = earlier.state == CallState.UNKNOWN
    lost = earlier.state == CallState.EXECUTING
    return in_doubt or (lost and earlier.effect_class in ledger.CAREFUL)


def _resume(call: Call, earlier: Call) -> Call:
    """A call that waited for a person goes on in its own row."""
    if earlier.state != CallState.AWAITING_APPROVAL:
        return call
    earlier.fence, earlier.facts = call.fence, {}
    return earlier


def _decide(
    call: Call, request: CallRequest, sight: Sight, *, is_last: bool = True
) -> PolarError | None:
    """Ask the stages in order and write the verdict. Returns the refusal.

    A new row that is settled in this very transaction is inserted then, not here.
    """
    decision = Decision(request, call, clock.now(), sight)
    call.facts = decision.facts
    try:
        for name, check in DECIDE:
            call.stage = name
            decision.note(name, check(decision))
    except PolarError as refusal:
        decision.undo()
        return _refuse(call, request, refusal, decision)
    decision.keep()
    if call.state == CallState.AWAITING_APPROVAL:
        asking.close_open(call, why="no longer asked")
    call.stage = ""
    decision.facts["reserved"] = len(decision.reserved)
    call.reserved_micros = request.estimate.micros
    _save(call, CallState.AUTHORIZED, sight, is_last=is_last)
    if decision.reserved:
        Reservation.objects.bulk_create(
            Reservation(call=call, budget_id=budget_id, amount=amount)
            for budget_id, amount in decision.reserved
        )
    return None


def _refuse(
    call: Call, request: CallRequest, refusal: PolarError, decision: Decision
) -> PolarError:
    decision_facts = call.facts
    decision_facts.setdefault("stages", {})[call.stage] = refusal.detail[:300]
    call.reason_code = (refusal.reason_code or refusal.code)[:64]
    call.error_code, call.error_detail = refusal.code, refusal.detail[:4000]
    refusal.facts.setdefault("trace_id", call.trace_id)
    if isinstance(refusal, ApprovalRequired):
        return _ask(call, request, refusal, decision)
    if call.state == CallState.AWAITING_APPROVAL:
        asking.close_open(call, why="refused")
    _save(call, CallState.DENIED, decision.sight)
    ledger.record(call, request, "call.denied", data={"stage": call.stage})
    refusal.facts.setdefault("call_id", str(call.id))
    return refusal


def _ask(
    call: Call, request: CallRequest, refusal: ApprovalRequired, decision: Decision
) -> PolarError:
    """Open one question for this effect, or point at the one that is open."""
    _save(call, CallState.AWAITING_APPROVAL, decision.sight)
    asked, is_new = asking.open_question(call, request, refusal, decision)
    if asked is None:
        raise Conflict("The question was answered just now; try again.")
    if is_new:
        data = {
            "approval_id": str(asked.id),
            "asks": call.facts.get("asks", []),
            "binding": asked.binding,
            "mode": str(asked.mode),
        }
        ledger.record(call, request, "approval.requested", data=data)
    refusal.facts |= {"approval_id": str(asked.id), "call_id": str(call.id)}
    return refusal


def _save(call: Call, target: CallState, sight: Sight, *, is_last: bool = True) -> None:
    if call._state.adding:
        call.state = target
        call.epoch = sight.epoch or audit.epoch()
        if is_last:
            statements.insert(call)
        return
    kept = {name: getattr(call, name) for name in DECIDED_FIELDS}
    if call.state == target:
        Call.objects.filter(id=call.id, state=target).update(**kept)
    elif not ledger.move(call.id, call.state, target, **kept):
        raise Conflict("This call was decided by somebody else.")
    call.state = target


def _replay(earlier: Call) -> Outcome:
    usage = Usage(
        earlier.micros, earlier.tokens_in, earlier.tokens_out, earlier.tokens_cached
    )
    output = canonical.loads(earlier.result) if earlier.result else None
    return Outcome(
        earlier.id,
        CallState.SUCCEEDED,
        output,
        usage,
        replayed=True,
        is_degraded=_ran_open(earlier),
    )


def _execute(call: Call, request: CallRequest) -> Outcome:
    permit = Permit(
        call_id=call.id,
        args_digest=call.args_digest,
        idempotency_key=call.idempotency_key,
        start=lambda: ledger.start(call, request),
    )
    try:
        outcome = _perform(call, request, permit)
    except PolarError as error:
        error.facts.setdefault("call_id", str(call.id))
        ledger.fail(call, request, error)
        raise
    ledger.succeed(call, request, outcome)
    return outcome


def _perform(call: Call, request: CallRequest, permit: Permit) -> Outcome:
    """Let the adapter do it, and hold what it brings to what was promised."""
    result = request.perform(permit)
    if not permit.is_spent:
        raise OutputBroken("The adapter answered without spending its permit.")
    _check_depth(result.output)
    output = _check_output(request, redaction.scrub_tree(result.output))
    return Outcome(
        call.id,
        CallState.SUCCEEDED,
        output,
        result.usage,
        is_degraded=_ran_open(call),
    )


def _ran_open(call: Call) -> bool:
    return bool(call.facts.get("isolation") == trust.DEGRADED)


def _check_depth(output: Any) -> None:
    """Before anything walks down an answer, see that it has a bottom."""
    if canonical.depth_of(output, MOST_LEVELS) > MOST_LEVELS:
        raise OutputBroken(
            f"The answer is nested deeper than {MOST_LEVELS} levels.", permanent=True
        )


def _check_output(request: CallRequest, output: Any) -> Any:
    """Output contract: JSON, within its size, as the capability promised."""
    try:
        size = len(canonical.arguments(output).encode())
    except Invalid as error:
        raise OutputBroken(error.detail, permanent=True) from error
    except UnicodeEncodeError as error:
        raise OutputBroken("The answer holds half a character.", permanent=True) from (
            error
        )
    if size > request.max_output_bytes:
        raise OutputBroken(
            f"The answer has {size} bytes; the limit is {request.max_output_bytes}.",
            permanent=True,
        )
    problems = problems_of(output, request.output_schema or {})
    if problems:
        raise OutputBroken(
            f"{request.capability} broke its output contract at {problems[0].path}: "
            f"{problems[0].problem}",
            permanent=True,
        )
    return output
