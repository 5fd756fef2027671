"""The call's row: made, started, settled. Each move is a conditional UPDATE."""

import threading
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Case, When

from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.audit.errors import NoWitness, WitnessBusy
from apps.audit.models import Event
from apps.common import canonical, clock, failpoints, ids, redaction, statements
from apps.common.errors import Conflict, Fenced, PolarError, UpstreamError
from apps.gateway.errors import (
    EffectLeftUndone,
    KeyReused,
    OutcomeUnknown,
    PermitRefused,
)
from apps.gateway.models import (
    CALL_TRANSITIONS,
    HOLDING,
    Call,
    CallState,
)
from apps.gateway.ports import CallRequest, EffectClass, Outcome, Usage

from . import locks, meter
from .sight import count_halts
from .stages import halt, trust

#: Effects that nobody may repeat without looking.
CAREFUL = frozenset({EffectClass.RECONCILABLE, EffectClass.NON_REPEATABLE})
#: Effects whose start is itself recorded, so that a lost future can be seen.
RECORDED_START = CAREFUL | {EffectClass.KEYED}
#: An operator said that it did not happen and is not to be repeated.
LEFT_UNDONE = "did_not_happen"
_LEFT = {"error_code": "abandoned"}
#: What PostgreSQL and SQLite call the constraint that lets one call of a key through.
ONE_PER_KEY = ("call_one_effect_per_key", "gateway_call.idempotency_key")
#: How long a start may wait for its seal.
SEAL_SECONDS = 10.0
#: A call without a run that started longer ago has been lost.
LONGEST_CALL = timedelta(minutes=10)


def key_of(request: CallRequest, args_digest: str) -> str:
    """Derive the idempotency key: the same effect of the same run, whatever
    the attempt or the fence. Outside a run every call is a new effect."""
    if request.idempotency_key:
        return request.idempotency_key[:64]
    lineage = request.lineage
    if lineage.run_id is None:
        return canonical.digest(str(ids.new_id()))
    parts = [str(lineage.run_id), lineage.seq, request.capability, args_digest]
    return canonical.digest("|".join(parts))


def new_row(request: CallRequest) -> Call:
    """Make the row of a call, not yet saved."""
    scrubbed = canonical.arguments(redaction.scrub_tree(request.arguments))
    digest = canonical.digest(canonical.arguments(request.arguments))
    lineage = request.lineage
    return Call(
        workspace_id=request.workspace_id,
        principal_id=request.principal.id,
        kind=request.kind,
        capability=request.capability,
        state=CallState.REQUESTED,
        effect_class=request.effect_class,
        args_digest=digest,
        arguments=canonical.storable(scrubbed),
        run_id=lineage.run_id,
        turn_id=lineage.turn_id,
        step_id=lineage.step_id,
        root_id=lineage.root_id,
        parent_call_id=lineage.parent_call_id,
        depth=lineage.depth,
        agent=lineage.agent,
        lane=request.lane,
        trace_id=lineage.trace_id,
        fence=lineage.fence,
    )


def find_earlier(call: Call) -> Call | None:
    """Return the call that holds this key, or else its newest.

    Raises: KeyReused.
    """
    holds_it = Case(When(state__in=HOLDING, then=0), default=1)
    found = (
        Call.objects.filter(idempotency_key=call.idempotency_key)
        .order_by(holds_it, "-id")
        .first()
    )
    if found is None:
        return None
    if found.args_digest != call.args_digest or found.capability != call.capability:
        raise KeyReused(
            f"This idempotency key was used for another call of {found.capability}."
        )
    return found


def take_over(earlier: Call) -> None:
    """Settle what a lost worker left behind, by its effect class.

    Writes: Call EXECUTING → FAILED (may be repeated; its money is booked as
    unknown ≤ reserved) or → UNKNOWN (may not); AUTHORIZED → FAILED.
    Raises: Conflict while another request without a run is at work on it.
    """
    if earlier.state in (CallState.AUTHORIZED, CallState.EXECUTING):
        _check_abandoned(earlier)
    if earlier.state == CallState.AUTHORIZED:
        if move(earlier.id, CallState.AUTHORIZED, CallState.FAILED, **_LEFT):
            meter.release(earlier.id, spent=None)
    elif earlier.state == CallState.EXECUTING and earlier.effect_class not in CAREFUL:
        if move(earlier.id, CallState.EXECUTING, CallState.FAILED, error_code="lost"):
            meter.release(earlier.id, spent=earlier.reserved_micros)
    elif earlier.state == CallState.EXECUTING:
        move(earlier.id, CallState.EXECUTING, CallState.UNKNOWN, error_code="lost")


def _check_abandoned(earlier: Call) -> None:
    """A run's own lease says that its earlier try is over; a call without a run
    has only its age."""
    since = clock.now() - (earlier.started_at or earlier.created_at)
    if earlier.run_id is None and since < LONGEST_CALL:
        raise Conflict("The same effect is being done right now.")


def check_not_carried_since(earlier: Call, call: Call) -> None:
    """Refuse to judge an effect of somebody who carries the run after us.

    Raises: Fenced.
    """
    if earlier.run_id == call.run_id and earlier.fence > call.fence:
        raise Fenced("This run is carried by somebody else.")


def check_not_in_doubt(earlier: Call) -> None:
    """Refuse to go on while nobody knows whether the effect happened."""
    doubtful = {CallState.UNKNOWN}
    if earlier.effect_class in CAREFUL:
        doubtful.add(CallState.EXECUTING)
    if earlier.state in doubtful:
        raise OutcomeUnknown(
            f"{earlier.capability} may have happened; an operator has to say.",
            permanent=True,
            call_id=str(earlier.id),
        )


def check_not_left_undone(earlier: Call) -> None:
    """Refuse to repeat what an operator settled as not having happened."""
    if earlier.error_code == LEFT_UNDONE:
        raise EffectLeftUndone(
            f"{earlier.capability} did not happen, and an operator decided that it"
            " is not repeated.",
            permanent=True,
            call_id=str(earlier.id),
        )


def move(call_id: UUID, source: str, target: str, **fields: Any) -> bool:
    """Move a call, if it still stands where it was. Returns whether it did."""
    CALL_TRANSITIONS.check(source, target)
    where = {"id": call_id, "state": source}
    return statements.update(Call, where, {"state": target, **fields}) == 1


def start(call: Call, request: CallRequest) -> None:
    """AUTHORIZED → EXECUTING, halts and trust read in the same transaction.

    Raises: Halted; NotTrusted; PermitRefused when the call is no longer authorized;
    Conflict when the same effect is being done, as by whoever carried the run before;
    StoreInDoubt while nobody knows what was done already.
    """
    audit.check_here()
    failpoints.reach("call.start.before_commit")
    try:
        started = None if _start_at_once(call, request) else _start_once(call, request)
    except IntegrityError as error:
        raise same_effect(error) from error
    if started is not None and request.effect_class == EffectClass.NON_REPEATABLE:
        _wait_until_sealed(started.id)
    failpoints.reach("call.executing")


_START = """
    UPDATE gateway_call SET state = %s, started_at = %s
     WHERE id = %s AND state = %s
       AND NOT EXISTS (SELECT 1 FROM gateway_halt WHERE lifted_at IS NULL)
"""


def _start_at_once(call: Call, request: CallRequest) -> bool:
    """Start in one trip to the database, while nothing at all is halted.

    Sent together they are one transaction; each statement looks after the one before
    has ended, so that a halt which held the locks is seen. False means that nothing
    was done: the long way then says why, or finds a halt that is not for this call.
    """
    recorded = request.effect_class in RECORDED_START or request.standing is not None
    if recorded or connection.in_atomic_block:
        return False
    CALL_TRANSITIONS.check(CallState.AUTHORIZED, CallState.EXECUTING)
    now, call_id = clock.now(), Call._meta.pk.get_db_prep_value(call.id, connection)
    moment = connection.ops.adapt_datetimefield_value(now)
    which = [CallState.EXECUTING.value, moment, call_id, CallState.AUTHORIZED.value]
    locks.share_ahead(halt.scopes_of(request))
    with connection.cursor() as cursor:
        cursor.execute(_START, which)
        if cursor.rowcount != 1:
            return False
    call.state, call.started_at = CallState.EXECUTING, now
    return True


@transaction.atomic
def _start_once(call: Call, request: CallRequest) -> Event | None:
    """The move itself; a database constraint lets one call of a key through."""
    locks.share(halt.scopes_of(request))
    if count_halts():
        halt.check_request(request)
    if request.standing is not None:
        trust.check_facts(request.standing())
    now = clock.now()
    if not move(call.id, CallState.AUTHORIZED, CallState.EXECUTING, started_at=now):
        raise PermitRefused("This call was already started or withdrawn.")
    call.state, call.started_at = CallState.EXECUTING, now
    if request.effect_class in RECORDED_START:
        return record(call, request, "call.started", data=_nature(call))
    return None


def same_effect(error: IntegrityError) -> PolarError | IntegrityError:
    """Tell the constraint that lets one call of a key through from any other."""
    if any(name in str(error) for name in ONE_PER_KEY):
        return Conflict("The same effect is being done right now.")
    return error


def start_inside(call: Call, request: CallRequest) -> None:
    """AUTHORIZED → EXECUTING in the deciding transaction, whose locks hold the halts.

    Raises: NotTrusted; StoreInDoubt.   Again: a permit is spent once.
    """
    audit.check_here()
    if request.standing is not None:
        trust.check_facts(request.standing())
    CALL_TRANSITIONS.check(call.state, CallState.EXECUTING)
    call.state, call.started_at = CallState.EXECUTING, clock.now()


def _nature(call: Call) -> dict[str, Any]:
    return {"effect_class": str(call.effect_class)}


def _wait_until_sealed(event_id: UUID) -> None:
    """A start that nobody may repeat is witnessed before anything is sent.

    Where this host has no witness, the clock's host seals it.
    Raises: UpstreamError when that does not happen in time; nothing was sent.
    """
    deadline = clock.monotonic() + SEAL_SECONDS
    asked = _rounds.begun
    while True:
        if not _rounds.seal(asked, deadline):
            clock.sleep(0.1)
        if audit_queries.is_sealed(event_id):
            return
        if clock.monotonic() > deadline:
            raise UpstreamError("The log was not sealed in time; nothing was sent.")
        asked = _rounds.begun


class Rounds:
    """Sealing for all threads of a process that wait meanwhile.

    A round that began after an event was committed numbers it and tells the witness,
    so whoever waited for the lock meanwhile need not begin another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begun = self._ended = 0

    def seal(self, asked: int, deadline: float) -> bool:
        """Let a round begin that is later than `asked`, or find that one was.

        Returns False where this host has no witness, or somebody else keeps it.
        """
        if not self._lock.acquire(timeout=max(0.0, deadline - clock.monotonic())):
            return False
        try:
            if self._ended > asked:
                return True
            self.begun += 1
            audit.seal_all()
            self._ended = self.begun
        except (NoWitness, WitnessBusy):
            return False
        finally:
            self._lock.release()
        return True


_rounds = Rounds()


def succeed(call: Call, request: CallRequest, outcome: Outcome) -> None:
    """Write down what came back, settle the budgets, record it."""
    text, usage = canonical.arguments(outcome.output), outcome.usage
    fields = {
        "result": text,
        "result_digest": canonical.digest(text),
        **_usage_fields(usage),
    }
    failpoints.reach("call.settle.before_commit")
    with transaction.atomic():
        _settle(call, request, CallState.SUCCEEDED, fields)
        if call.facts.get("reserved"):
            meter.release(call.id, spent=usage.micros, usage=usage)
        if request.settled is not None:
            request.settled(outcome)
    failpoints.reach("call.settled")


def settle_inside(call: Call, request: CallRequest, outcome: Outcome) -> None:
    """Insert the row as it ends, in the transaction that did it."""
    text = canonical.arguments(outcome.output)
    fields = {
        "result": text,
        "result_digest": canonical.digest(text),
        **_usage_fields(outcome.usage),
    }
    _end_in_memory(call, CallState.SUCCEEDED, fields)
    statements.insert(call)
    if call.facts.get("reserved"):
        meter.release(call.id, spent=outcome.usage.micros, usage=outcome.usage)
    if request.settled is not None:
        request.settled(outcome)
    record(call, request, "call.settled", data=_settled_facts(call, fields))


def fail_undone(call: Call, request: CallRequest, error: PolarError) -> None:
    """Write down what failed inside and was undone: nothing of it happened."""
    error.facts.setdefault("call_id", str(call.id))
    fields = _error_fields(error)
    _end_in_memory(call, CallState.FAILED, fields)
    call._state.adding = True  # an insert was undone with the rest
    with transaction.atomic():
        statements.insert(call)
        record(call, request, "call.settled", data=_settled_facts(call, fields))


def _end_in_memory(call: Call, target: CallState, fields: dict[str, Any]) -> None:
    CALL_TRANSITIONS.check(call.state, target)
    call.state, call.finished_at = target, clock.now()
    for name, value in fields.items():
        setattr(call, name, value)


def fail(call: Call, request: CallRequest, error: PolarError) -> None:
    """Write down that it failed, or that nobody knows."""
    unknown = isinstance(error, OutcomeUnknown)
    never_started = call.state == CallState.AUTHORIZED
    target = CallState.UNKNOWN if unknown and not never_started else CallState.FAILED
    fields = _error_fields(error)
    with transaction.atomic():
        _settle(call, request, target, fields)
        if target == CallState.FAILED and call.facts.get("reserved"):
            usage = error.facts.get("usage") or Usage()
            meter.release(call.id, spent=usage.micros, usage=usage)


def _error_fields(error: PolarError) -> dict[str, str]:
    return {
        "error_code": (error.reason_code or error.code)[:64],
        "error_detail": redaction.scrub(error.detail)[:4000],
    }


def _settle(
    call: Call, request: CallRequest, target: CallState, fields: dict[str, Any]
) -> None:
    now = clock.now()
    CALL_TRANSITIONS.check(call.state, target)
    statements.update_one(
        Call,
        {"id": call.id, "state": call.state},
        {"state": target, "finished_at": now, **fields},
        otherwise=PermitRefused("This call was settled by somebody else."),
    )
    call.state, call.finished_at = target, now
    record(call, request, "call.settled", data=_settled_facts(call, fields))


def _settled_facts(call: Call, fields: dict[str, Any]) -> dict[str, Any]:
    facts = {key: value for key, value in fields.items() if key != "result"}
    facts |= {"state": str(call.state), "duration_ms": _duration_ms(call)}
    return facts


def _duration_ms(call: Call) -> int:
    begun: datetime = call.started_at or call.created_at
    ended: datetime = call.finished_at or begun
    return int((ended - begun).total_seconds() * 1000)


def _usage_fields(usage: Usage) -> dict[str, int]:
    return {
        "micros": usage.micros,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "tokens_cached": usage.tokens_cached,
    }


def record(
    call: Call, request: CallRequest, type: str, *, data: dict[str, Any]
) -> Event:
    return audit.record(
        type=type,
        actor=request.principal.actor,
        subject=("call", str(call.id)),
        workspace_id=call.workspace_id,
        run_id=call.run_id,
        trace_id=call.trace_id,
        decision=str(call.state),
        reason=call.reason_code,
        fence=call.fence,
        data={
            "kind": str(call.kind),
            "capability": call.capability,
            "args_digest": call.args_digest,
            "key": call.idempotency_key,
            "fence": call.fence,
            "stages": call.facts.get("stages", {}),
            **data,
        },
    )
