"""What goes out: in the order of its chat, once, or honestly unknown.

A chat has one sender at a time (the run's serial key). A message that a killed
worker left in `sending` is tried again under its own key: the call ledger knows
whether it had started, and then it is unknown, never a blind repeat.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q

from apps.access import services as access
from apps.access.models import Principal
from apps.agents.models import Turn
from apps.audit import services as audit
from apps.channels.engine import commands, notes
from apps.channels.models import (
    OUTBOX,
    Account,
    AccountState,
    HearsBy,
    OutboxMessage,
    OutboxState,
)
from apps.channels.ports import (
    Button,
    ConversationKey,
    Line,
    Outgoing,
    SentRef,
    check_hold,
    transports,
)
from apps.common import clock, redaction
from apps.common.errors import Conflict, Fenced, PolarError, UpstreamError
from apps.gateway import services as gateway
from apps.gateway.errors import OutcomeUnknown
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
    Risk,
)
from apps.runs import services as runs
from apps.runs.models import Schedule
from apps.runs.ports import Again, Finish, Outcome, RunContext
from apps.vault import services as vault

SEND_KIND = "channels.send"
#: Tries before a person has to look.
MOST_ATTEMPTS = 8
#: Units: seconds.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
#: A message that waits for its channel is given up after so long.
LIVES = timedelta(hours=24)
SAYS = Risk("write", side_effects="external")


def queue(
    account: Account, message: Outgoing, *, key: str, **facts: UUID | str | None
) -> bool:
    """Put a message into a chat's line, in the caller's transaction.

    Returns whether it is new.   Again: the same key is the same message.
    """
    row, is_new = OutboxMessage.objects.get_or_create(
        dedupe_key=key,
        defaults={
            "account": account,
            "chat": message.key.chat,
            "topic": message.key.topic,
            "reply_to": message.key.reply_to,
            "text": redaction.scrub(message.text),
            "buttons": [[each.label, each.value] for each in message.buttons],
            **facts,
        },
    )
    if is_new:
        ring(account, row.chat)
    return is_new


def ring(account: Account, chat: str) -> None:
    """Queue a run that empties a chat's line."""
    runs.enqueue(
        kind=SEND_KIND,
        payload={"account_id": str(account.id), "chat": chat},
        principal=access.system_principal(),
        workspace=account.workspace,
        serial_key=f"outbox:{account.id}:{chat}"[:120],
    )


@contextmanager
def line_of(account: Account, purpose: str) -> Iterator[Line]:
    """Open an account's line: its token is plain inside the block alone."""
    assert account.secret_id is not None
    actor = access.system_principal().actor
    with vault.lease(account.secret_id, purpose=purpose, by=actor) as token:
        yield Line(
            account.kind,
            account.slug,
            token,
            dict(account.settings),
            account.cursor,
            tuple(commands.menu()),
            name=account.bot_name,
            hook_url=hook_url(account),
            held=hold_of(account.id),
        )


def hook_url(account: Account) -> str:
    """Where the vendor calls us, or "" when we ask it."""
    base = str(account.settings.get("public_url") or "")
    if account.hears_by != HearsBy.HOOK or not base:
        return ""
    return f"{base}/hooks/{account.kind}/{account.id}/"


def hold_of(account_id: UUID) -> Callable[[], float]:
    """Return what tells how long nothing may be sent, read anew at each call."""

    def held() -> float:
        found = Account.objects.filter(id=account_id)
        until = found.values_list("hold_until", flat=True).first()
        return max(0.0, (until - clock.now()).total_seconds()) if until else 0.0

    return held


def hold(account: Account, seconds: float) -> None:
    """Send nothing for so long: the vendor asked for it. A hold is never cut."""
    until = clock.now() + timedelta(seconds=seconds)
    shorter = Q(hold_until__isnull=True) | Q(hold_until__lt=until)
    Account.objects.filter(shorter, id=account.id).update(hold_until=until)


def carry(ctx: RunContext) -> Outcome:
    """Send what waits in one chat, oldest first: the handler of `channels.send`."""
    account = Account.objects.select_related("workspace").get(
        id=ctx.payload["account_id"]
    )
    sent = 0
    while not ctx.stopping():
        ctx.check_fence()
        if account.state != AccountState.ACTIVE:
            return Finish({"sent": sent, "paused": True})
        row = _next(account, ctx.payload["chat"])
        if row is None:
            return Finish({"sent": sent})
        pause = _pause(account, row)
        if pause > 0:
            return Again(pause)
        if _is_held_back(row):
            continue
        pause = transports.get(account.kind).pause(account.slug, row.chat)
        if pause > 0:
            return Again(pause)
        sent += _send(ctx, account, row)
        account.refresh_from_db()
    return Again()


def _next(account: Account, chat: str) -> OutboxMessage | None:
    """What is next in a chat. What is unasked and held back lets others pass."""
    waiting = OutboxMessage.objects.waiting().filter(account=account, chat=chat)
    waiting = waiting.exclude(schedule_id__isnull=False, due_at__gt=clock.now())
    found: OutboxMessage | None = waiting.order_by("id").first()
    return found


def _pause(account: Account, row: OutboxMessage) -> float:
    until = max(row.due_at, account.hold_until or row.due_at)
    return (until - clock.now()).total_seconds()


def _is_held_back(row: OutboxMessage) -> bool:
    """Ask whether something unasked may be said now; else put it off.

    The day's count and the mark that it was counted are one transaction, so a
    message is counted once, however often it is tried.
    """
    if row.schedule_id is None or row.admitted:
        return False
    schedule = Schedule.objects.filter(id=row.schedule_id).first()
    if schedule is None:
        _move(row, OutboxState.SENDING)
        _end(row, row.account, OutboxState.FAILED, "Its schedule is gone.")
        return True
    with transaction.atomic():
        verdict = runs.admit_delivery(
            schedule=schedule, recipient=f"{row.account.slug}:{row.chat}"[:120]
        )
        if verdict.allowed:
            OutboxMessage.objects.filter(id=row.id).update(admitted=True)
            row.admitted = True
            return False
        OutboxMessage.objects.filter(id=row.id).update(
            due_at=verdict.until or clock.now() + timedelta(hours=1),
            error=f"held back: {verdict.reason}"[:300],
        )
    return True


def _send(ctx: RunContext, account: Account, row: OutboxMessage) -> int:
    if row.state == OutboxState.PENDING:
        _move(row, OutboxState.SENDING, attempts=F("attempts") + 1)
    try:
        ref = _call(ctx, account, row)
    except Fenced:
        raise
    except OutcomeUnknown as error:
        _end(row, account, OutboxState.UNKNOWN, error.detail)
        return 0
    except UpstreamError as error:
        _after_failure(account, row, error)
        return 0
    except PolarError as error:
        if error.waits_as or not error.permanent or isinstance(error, Conflict):
            _move(row, OutboxState.PENDING, error=error.detail[:300])
            raise
        _end(row, account, OutboxState.FAILED, error.detail)
        return 0
    now = clock.now()
    with transaction.atomic():
        _move(row, OutboxState.SENT, sent_at=now, sent_id=ref.message_id, error="")
        Account.objects.filter(id=account.id).update(sent_at=now)
    return 1


def outgoing(row: OutboxMessage) -> Outgoing:
    """What a row says where."""
    buttons = tuple(Button(label, value) for label, value in row.buttons)
    key = ConversationKey(row.chat, row.topic, row.reply_to)
    return Outgoing(key, row.text, buttons)


def _call(ctx: RunContext, account: Account, row: OutboxMessage) -> SentRef:
    message = outgoing(row)
    transport = transports.get(account.kind)
    standing = _standing(row)
    replaced = SentRef(row.chat, standing)

    def perform(permit: Permit) -> Result:
        with line_of(account, "send a message") as line:
            check_hold(line)
            if standing:
                transport.edit(line, permit, replaced, message)
                return Result({"id": standing})
            return Result({"id": transport.send(line, permit, message).message_id})

    done = gateway.call(
        CallRequest(
            kind=CallKind.MESSAGE,
            capability=f"reply:{account.kind}",
            principal=_speaker(row),
            workspace_id=account.workspace_id,
            arguments=message.arguments(),
            perform=perform,
            effect_class=EffectClass.KEYED if standing else EffectClass.NON_REPEATABLE,
            risk=SAYS,
            needs_secret=True,
            lineage=Lineage(
                run_id=ctx.run_id,
                turn_id=row.turn_id,
                fence=ctx.fence,
                trace_id=ctx.trace_id,
            ),
            idempotency_key=f"out:{row.id.hex}:{row.resent}",
        )
    )
    return SentRef(row.chat, str(done.output["id"]))


def _standing(row: OutboxMessage) -> str:
    """The message in whose place this one goes, or "". A draft that never came
    through leaves no place: then the answer is a message of its own."""
    if row.replaces_row is None:
        return row.replaces_id
    draft = OutboxMessage.objects.filter(id=row.replaces_row, state=OutboxState.SENT)
    return draft.values_list("sent_id", flat=True).first() or ""


def _speaker(row: OutboxMessage) -> Principal:
    turn = Turn.objects.select_related("principal").filter(id=row.turn_id).first()
    return turn.principal if turn is not None else access.system_principal()


def _after_failure(account: Account, row: OutboxMessage, error: UpstreamError) -> None:
    """Wait as long as the vendor said, for all of the account; or back off.

    Waiting that the vendor asked for, or for a token that a person has to mend,
    is no failed try: such a message lives for a day.
    """
    pause = min(FIRST_PAUSE * 2**row.attempts, LONGEST_PAUSE)
    is_revoked = bool(error.facts.get("revoked"))
    if moved_to := str(error.facts.get("moved_to") or ""):
        _follow(account, row, moved_to)
        return
    if row.replaces_row and error.permanent and not is_revoked:
        # The draft is gone from the chat: the answer is a message of its own.
        _move(row, OutboxState.PENDING, replaces_row=None, resent=F("resent") + 1)
        return
    if error.retry_after is not None:
        pause = error.retry_after
        hold(account, pause)
    elif is_revoked:
        pause = LONGEST_PAUSE
        Account.objects.filter(id=account.id).update(
            trouble=redaction.scrub(error.detail)[:300], refused_at=clock.now()
        )
    waits = error.retry_after is not None or is_revoked
    is_old = clock.now() - row.created_at > LIVES
    is_over = error.permanent or row.attempts + 1 >= MOST_ATTEMPTS
    if is_old if waits else is_over:
        _end(row, account, OutboxState.FAILED, error.detail)
        return
    due = clock.now() + timedelta(seconds=pause)
    _move(
        row,
        OutboxState.PENDING,
        due_at=due,
        error=redaction.scrub(error.detail)[:300],
        attempts=row.attempts if waits else F("attempts"),
    )


@transaction.atomic
def _follow(account: Account, row: OutboxMessage, moved_to: str) -> None:
    """A group got another id: what waits for it, and what is routed there, goes on
    under that. The vendor refused this message, so it is sent as a new one."""
    was = row.chat
    _move(row, OutboxState.PENDING, resent=F("resent") + 1, error="")
    waiting = OutboxMessage.objects.filter(
        account=account, chat=was, state=OutboxState.PENDING
    )
    waiting.update(chat=moved_to, topic="", reply_to="", replaces_row=None)
    known = Account.objects.select_for_update().get(id=account.id)
    values: dict[str, Any] = {
        name: moved_to
        for name in ("alerts_to", "approvals_to")
        if getattr(known, name) == was
    }
    if was in known.allowed_chats:
        kept = [each for each in known.allowed_chats if each != was]
        values["allowed_chats"] = sorted({*kept, moved_to})
    if values:
        Account.objects.filter(id=account.id).update(**values)
    system = access.system_principal()
    notes.record(
        "channel.changed", account, system, changed=["chat"], was=was, to=moved_to
    )
    ring(account, moved_to)


def _move(row: OutboxMessage, target: OutboxState, **values: object) -> None:
    """Move a message, if it still stands where it was read.   Raises: Conflict."""
    OUTBOX.check(row.state, target)
    held = OutboxMessage.objects.filter(id=row.id, state=row.state)
    if held.update(state=target, **values) != 1:
        raise Conflict("Somebody else moved this message.")
    row.state = target


@transaction.atomic
def _end(
    row: OutboxMessage, account: Account, target: OutboxState, detail: str
) -> None:
    _move(row, target, error=redaction.scrub(detail)[:300])
    audit.record(
        type="channel.undelivered",
        actor=access.system_principal().actor,
        subject=("outbox", str(row.id)),
        workspace_id=account.workspace_id,
        decision=str(target),
        reason=redaction.scrub(detail)[:300],
        data={"account": account.slug, "attempts": row.attempts},
    )


def put_back(by: Principal, row: OutboxMessage, account: Account) -> None:
    """Let a message that failed, or is unknown, go out again: a person's decision,
    in the caller's transaction. It is a new effect with a key of its own."""
    _move(
        row,
        OutboxState.PENDING,
        resent=F("resent") + 1,
        attempts=0,
        due_at=clock.now(),
    )
    ring(account, row.chat)
    audit.record(
        type="channel.resent",
        actor=by.actor,
        subject=("outbox", str(row.id)),
        workspace_id=account.workspace_id,
        data={"account": account.slug},
    )
