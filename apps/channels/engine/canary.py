"""A canary: our own word in a chat of the vendor, which must come back as an event.

A pong proves a socket, and a signature that somebody called; neither proves that
events come. An account that names a chat for it posts a word there and waits to hear
it. A word that is not heard is posted again, and counts as one silence.
"""

import secrets
from datetime import timedelta

from django.db.models import Q

from apps.access import services as access
from apps.channels.engine import outbox
from apps.channels.models import Account
from apps.channels.ports import (
    ConversationKey,
    Outgoing,
    Update,
    check_hold,
    transports,
)
from apps.common import canonical, clock, redaction
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
from apps.runs.models import Run
from apps.runs.ports import Finish, Outcome, RunContext

CANARY_KIND = "channels.canary"
#: With `queries.CANARY_BACK_WITHIN` a deaf channel is seen within two minutes.
EVERY = timedelta(seconds=40)
WORD = "Canary "


def sing() -> int:
    """Queue a word for each account whose canary is due: the clock's job.

    Again: only one of two clocks queues it.
    """
    now = clock.now()
    is_due = Q(canary_tried_at__isnull=True) | Q(canary_tried_at__lte=now - EVERY)
    singing = Account.objects.active().exclude(canary_chat="").filter(is_due)
    queued = 0
    for account in singing.select_related("workspace").order_by("id"):
        mine = Account.objects.filter(
            id=account.id, canary_tried_at=account.canary_tried_at
        )
        key = f"canary:{account.id}"
        if Run.objects.unsettled().filter(serial_key=key).exists():
            continue
        if not mine.update(canary_tried_at=now):
            continue
        runs.enqueue(
            kind=CANARY_KIND,
            payload={"account_id": str(account.id)},
            principal=access.system_principal(),
            workspace=account.workspace,
            trigger="event",
            serial_key=key,
            priority=1,
        )
        queued += 1
    return queued


def carry(ctx: RunContext) -> Outcome:
    """Post one word: the handler of `channels.canary`.

    It may come back before the vendor has answered us: whoever comes second finds
    the other's mark.
    """
    account = Account.objects.select_related("workspace").get(
        id=ctx.payload["account_id"]
    )
    silent = Account.objects.filter(id=account.id, canary_token="")
    silent.update(canary_token=secrets.token_hex(16))
    account.refresh_from_db()
    word, where = account.canary_token, account.canary_chat
    if not where:
        return Finish({"posted": False})
    waits = Account.objects.filter(id=account.id, canary_token=word)
    try:
        _post(ctx, account, Outgoing(ConversationKey(where), WORD + word))
    except PolarError as error:
        if isinstance(error, UpstreamError) and error.retry_after is not None:
            outbox.hold(account, error.retry_after)
        waits.update(canary_trouble=redaction.scrub(error.detail)[:300])
        return Finish({"posted": False})
    waits.update(canary_trouble="")
    waits.filter(canary_waits_since=None).update(canary_waits_since=clock.now())
    return Finish({"posted": True})


def hear(account: Account, update: Update) -> bool:
    """A word came back: the account hears.   Again: nothing."""
    word = update.envelope.message_text
    posted = Account.objects.filter(
        id=account.id, canary_chat=update.key.chat, canary_token=word
    ).exclude(canary_token="")
    return bool(
        posted.update(
            canary_token="", canary_waits_since=None, heard_at=clock.now(), trouble=""
        )
    )


def _post(ctx: RunContext, account: Account, message: Outgoing) -> None:
    def perform(permit: Permit) -> Result:
        with outbox.line_of(account, "post a canary") as line:
            check_hold(line)
            sent = transports.get(account.kind).send(line, permit, message)
        return Result({"id": sent.message_id})

    gateway.call(
        CallRequest(
            kind=CallKind.MESSAGE,
            capability=f"reply:{account.kind}.canary",
            principal=access.system_principal(),
            workspace_id=account.workspace_id,
            arguments=message.arguments(),
            perform=perform,
            effect_class=EffectClass.KEYED,
            risk=outbox.SAYS,
            needs_secret=True,
            lineage=Lineage(run_id=ctx.run_id, fence=ctx.fence, trace_id=ctx.trace_id),
            idempotency_key=canonical.digest([str(ctx.run_id), str(ctx.fence)]),
        )
    )
