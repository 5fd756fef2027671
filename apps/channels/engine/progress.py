"""One message on its way to an answer: its mark, its questions, its draft.

A `channels.follow` run looks once a second while the turn is open and goes back to
the queue in between. Marks and drafts are shown when they can be; what fails there
never touches the answer itself.
"""

import logging
from datetime import timedelta

from django.db import transaction

from apps.access import services as access
from apps.agents.models import Turn, TurnState
from apps.channels.engine import drafts, outbox, replies
from apps.channels.models import Account, AccountState, InboxMessage
from apps.channels.ports import SentRef, check_hold, transports
from apps.common import canonical, clock
from apps.common.errors import PolarError, UpstreamError
from apps.gateway import services as gateway
from apps.gateway.ports import (
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
)
from apps.runs import services as runs
from apps.runs.models import WAITING, State
from apps.runs.ports import Again, Finish, Outcome, RunContext

FOLLOW_KIND = "channels.follow"
#: Units: seconds.
LOOK_SECONDS = 1.0
#: While a person or a timer is waited for, looking less often is enough; and after
#: some minutes, less often still. Units: seconds.
WAIT_SECONDS, LATER_SECONDS = 5.0, 20.0
SOON = timedelta(minutes=2)
LONGEST_WAIT = 60.0
#: Marks and drafts yield to answers when there is more to do than hands.
PRIORITY = -1
RECEIVED, THINKING, WAITS, DONE, FAILED = "👀", "✍", "⏳", "✅", "❌"

logger = logging.getLogger(__name__)


def begin(account: Account, row: InboxMessage, turn: Turn) -> None:
    """Follow a turn from its message, in the caller's transaction."""
    runs.enqueue(
        kind=FOLLOW_KIND,
        payload={"inbox_id": str(row.id)},
        principal=turn.principal,
        workspace=account.workspace,
        trace_id=turn.trace_id,
        serial_key=f"follow:{row.id}",
        priority=PRIORITY,
    )


def carry(ctx: RunContext) -> Outcome:
    """Look once: the handler of `channels.follow`."""
    row = InboxMessage.objects.select_related("account__workspace").get(
        id=ctx.payload["inbox_id"]
    )
    turn = Turn.objects.select_related("run", "principal").filter(id=row.turn_id)
    found = turn.first()
    if found is None or row.account.state != AccountState.ACTIVE:
        return Finish({"mark": row.mark})
    mark = mark_of(found)
    wait = _mark(ctx, row, mark) if mark != row.mark else 0.0
    if wait > 0:
        return Again(min(wait, LONGEST_WAIT))
    if found.state != TurnState.OPEN:
        return Finish({"mark": mark})
    if mark == WAITS:
        with transaction.atomic():
            replies.ask_approvals(row, found)
        is_soon = clock.now() - row.created_at < SOON
        return Again(WAIT_SECONDS if is_soon else LATER_SECONDS)
    drafts.show(row, found)
    return Again(LOOK_SECONDS)


def mark_of(turn: Turn) -> str:
    """Return the mark that says where a turn stands."""
    if turn.state == TurnState.ANSWERED:
        return DONE
    if turn.state != TurnState.OPEN:
        return FAILED
    if turn.run.state in WAITING or turn.run.state == State.DEAD_LETTER:
        return WAITS
    return THINKING if turn.started_at is not None else RECEIVED


def _mark(ctx: RunContext, row: InboxMessage, mark: str) -> float:
    """Put a mark on the message that asked; a refused one is left at that.

    Returns how long to wait before it can be put: the vendor asked for it.
    """
    account = row.account
    ref = SentRef(row.chat, row.message_id)
    arguments = {"chat": row.chat, "message_id": row.message_id, "mark": mark}

    def perform(permit: Permit) -> Result:
        with outbox.line_of(account, "mark a message") as line:
            check_hold(line)
            transports.get(account.kind).react(line, permit, ref, mark)
        return Result({"mark": mark})

    request = CallRequest(
        kind=CallKind.MESSAGE,
        capability=f"reply:{account.kind}.mark",
        principal=access.system_principal(),
        workspace_id=account.workspace_id,
        arguments=arguments,
        perform=perform,
        effect_class=EffectClass.KEYED,
        risk=outbox.SAYS,
        needs_secret=True,
        lineage=Lineage(run_id=ctx.run_id, fence=ctx.fence, trace_id=ctx.trace_id),
        idempotency_key=canonical.digest([str(row.id), row.mark, mark]),
    )
    try:
        gateway.call(request)
    except UpstreamError as error:
        if error.retry_after is not None:
            outbox.hold(account, error.retry_after)
            return error.retry_after
        logger.info("a mark failed", extra={"event": "channel.mark"})
    except PolarError as error:
        logger.info(
            "a mark was not shown",
            extra={"event": "channel.mark", "code": error.code},
        )
    InboxMessage.objects.filter(id=row.id).update(mark=mark)
    return 0.0
