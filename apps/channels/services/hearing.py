"""Hearing: one listener per bot under a lease, and what vendors bring by HTTP."""

import logging
from dataclasses import replace
from typing import Any
from uuid import UUID

from apps.access import services as access
from apps.channels.engine import intake, outbox, webhook
from apps.channels.errors import AccountPaused, ChannelRefused
from apps.channels.models import (
    Account,
    AccountState,
    ChannelIdentity,
    IdentityState,
)
from apps.channels.ports import Line, Proof, Stopping, Update, hooks, transports
from apps.channels.services.accounts import discover
from apps.common import clock, redaction
from apps.common.errors import NotFound, PolarError, UpstreamError
from apps.gateway import services as gateway
from apps.gateway.ports import (
    READ,
    CallKind,
    CallRequest,
    EffectClass,
    Lineage,
    Permit,
    Result,
)
from apps.runs import services as runs
from apps.runs.models import Run
from apps.runs.ports import Again, Finish, Outcome, RunContext

logger = logging.getLogger(__name__)

LISTEN_KIND = "channels.listen"
LISTEN_QUEUE = "listen"
#: One hold of an account; then the run goes back to the queue. Units: seconds.
LISTEN_SECONDS = 300.0
#: After trouble a listener tries again so much later. Units: seconds.
RETRY_SECONDS = 10.0
#: The longest pause of a listener: a mended channel is heard soon.
LONGEST_PAUSE = 60.0


def warm_up() -> None:
    """Load the libraries of the vendors that this install speaks to.

    At the start of a process: the first event would otherwise wait for it.
    """
    known = set(transports.kinds())
    kinds = Account.objects.active().filter(secret__isnull=False).order_by("kind")
    for kind in known.intersection(kinds.values_list("kind", flat=True).distinct()):
        transports.get(kind)
        hooks.find(kind)


def keep_listening() -> int:
    """Queue a listener for each active bot that has none: the clock's job.

    Again: an account that has one is left alone.
    """
    discover()
    started = 0
    bots = Account.objects.active().filter(secret__isnull=False)
    for account in bots.select_related("workspace").order_by("id"):
        key = f"listen:{account.id}"
        if Run.objects.unsettled().filter(serial_key=key).exists():
            continue
        runs.enqueue(
            kind=LISTEN_KIND,
            payload={"account_id": str(account.id)},
            principal=access.system_principal(),
            workspace=account.workspace,
            trigger="event",
            serial_key=key,
            priority=1,
        )
        started += 1
    return started


def listen(ctx: RunContext) -> Outcome:
    """Hear one account under the run's lease: the handler of `channels.listen`."""
    account = _bot(UUID(ctx.payload["account_id"]))
    if account.state != AccountState.ACTIVE:
        return Finish({"paused": True})
    stopping = _until(ctx)

    def perform(permit: Permit) -> Result:
        permit.spend({"account": account.slug})
        with outbox.line_of(account, "listen") as line:
            transports.get(account.kind).listen(
                line,
                lambda update: hear(account, _with_files(account, line, update)),
                stopping,
                lambda proof: _heard(ctx, account, proof),
            )
        return Result({})

    try:
        gateway.call(
            CallRequest(
                kind=CallKind.RECEIVE,
                capability=f"{account.kind}.listen",
                principal=access.system_principal(),
                workspace_id=account.workspace_id,
                arguments={"account": account.slug},
                perform=perform,
                effect_class=EffectClass.PURE,
                risk=READ,
                needs_secret=True,
                lineage=Lineage(
                    run_id=ctx.run_id,
                    fence=ctx.fence,
                    seq=str(ctx.fence),
                    trace_id=ctx.trace_id,
                ),
            )
        )
    except AccountPaused:
        return Finish({"paused": True})
    except UpstreamError as error:
        _note_trouble(account, error)
        return Again(min(error.retry_after or RETRY_SECONDS, LONGEST_PAUSE))
    return Again()


def _note_trouble(account: Account, error: UpstreamError) -> None:
    """Say what keeps us from hearing; a refusal for good is down at once."""
    values: dict[str, Any] = {"trouble": redaction.scrub(error.detail)[:300]}
    if isinstance(error, ChannelRefused):
        values["refused_at"] = clock.now()
    Account.objects.filter(id=account.id).update(**values)


def _with_files(account: Account, line: Line, update: Update) -> Update:
    """Read the files of known senders; a stranger makes us fetch nothing."""
    files = update.envelope.attachments
    known = ChannelIdentity.objects.filter(
        account=account,
        external_user=update.envelope.user_id,
        state=IdentityState.ACTIVE,
    )
    is_for_us = update.is_direct or update.is_addressed
    if not files or not is_for_us or not known.exists():
        return update
    transport = transports.get(account.kind)
    read = tuple(transport.fetch(line, each) for each in files)
    return replace(update, envelope=replace(update.envelope, attachments=read))


def hear(account: Account, update: Update) -> None:
    """Take one event in, and answer a pressed button at once."""
    got = intake.keep(account, update)
    if got is None or not (got.is_new and update.answer_to):
        return

    def perform(permit: Permit) -> Result:
        with outbox.line_of(account, "answer a button") as line:
            transports.get(account.kind).answer(
                line, permit, update.answer_to, got.say or "Noted."
            )
        return Result({})

    try:
        gateway.call(
            CallRequest(
                kind=CallKind.MESSAGE,
                capability=f"reply:{account.kind}.button",
                principal=access.system_principal(),
                workspace_id=account.workspace_id,
                arguments={"answer_to": update.answer_to, "text": got.say or "Noted."},
                perform=perform,
                effect_class=EffectClass.KEYED,
                risk=outbox.SAYS,
                needs_secret=True,
                idempotency_key=f"button:{got.row.id.hex}",
            )
        )
    except PolarError as error:
        # The decision stands; only the little note beside the button is lost.
        logger.info(
            "a button was not answered",
            extra={"event": "channel.button", "code": error.code},
        )


def carry_heard(ctx: RunContext) -> Outcome:
    """Take in what came with a file or a button: the handler of `channels.hear`."""
    account = _bot(UUID(ctx.payload["account_id"]))
    with outbox.line_of(account, "read an event") as line:
        update = webhook.read_again(account, ctx.payload["raw"], line)
        if update is not None:
            update = _with_files(account, line, update)
    if update is not None:
        hear(account, update)
    return Finish({"kept": update is not None})


def receive(*, account: Account, update: Update) -> intake.Received:
    """Keep one event and do what it asks, in one transaction, once.

    Raises: what passes, such as QueueFull; then it was not kept.
    """
    return intake.receive(account, update)


def _bot(account_id: UUID) -> Account:
    found: Account | None = (
        Account.objects.select_related("workspace").filter(id=account_id).first()
    )
    if found is None:
        raise NotFound("There is no such account.")
    return found


def _until(ctx: RunContext) -> Stopping:
    """One hold of an account ends after `LISTEN_SECONDS`, or with the process."""
    until = clock.monotonic() + LISTEN_SECONDS
    return lambda: ctx.stopping() or clock.monotonic() > until


def _heard(ctx: RunContext, account: Account, proof: Proof) -> None:
    """A vendor answered: we hear. Lost leases and pauses end the hearing."""
    ctx.check_fence()
    values: dict[str, Any] = {"heard_at": clock.now(), "trouble": ""}
    if proof.pending is not None:
        values["pending"] = proof.pending
    if proof.name:
        values["bot_name"] = proof.name[:80]
    # Another token or way of hearing moves `awaited_since`: then this ends.
    same = Account.objects.active().filter(
        id=account.id, awaited_since=account.awaited_since
    )
    if not same.update(refused_at=None, **values):
        raise AccountPaused()
