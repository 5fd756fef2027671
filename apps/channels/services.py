"""The verbs of channels: take a message in, bring an answer out, let people in."""

import logging
from dataclasses import replace
from uuid import UUID

from django.db import transaction

from apps.access import policies
from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Principal, Role, Workspace
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation, Turn
from apps.audit import services as audit
from apps.channels import queries
from apps.channels.engine import intake, outbox, pairing, progress, replies, webhook
from apps.channels.errors import AccountPaused
from apps.channels.models import (
    ACCOUNT,
    Account,
    AccountKind,
    AccountSource,
    AccountState,
    ChannelIdentity,
    IdentityState,
    OutboxMessage,
    PairingRequest,
    Tier,
)
from apps.channels.ports import Line, Stopping, Update, transports
from apps.common import clock, redaction
from apps.common.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    NotFound,
    PolarError,
    UpstreamError,
)
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
from apps.vault import services as vault
from apps.vault.errors import VaultSealed

logger = logging.getLogger(__name__)

LISTEN_KIND = "channels.listen"
LISTEN_QUEUE = "listen"
SEND_KIND = outbox.SEND_KIND
FOLLOW_KIND = progress.FOLLOW_KIND
DELIVER_KIND = replies.DELIVER_KIND
HEAR_KIND = webhook.HEAR_KIND
take_webhook = webhook.take_for
#: One hold of an account; then the run goes back to the queue. Units: seconds.
LISTEN_SECONDS = 300.0
#: After trouble a listener tries again so much later. Units: seconds.
RETRY_SECONDS = 10.0
carry_follow = progress.carry
carry_send = outbox.carry
ring_forgotten = intake.ring_forgotten

#: The longest message a person may send. Units: characters.
LONGEST_MESSAGE = 20_000
#: A conversation is called by the beginning of its first message.
TITLE_LENGTH = 80


@transaction.atomic
def open_web_account(*, by: Principal, workspace: Workspace) -> Account:
    """Open the web chat of a workspace.   Again: returns the account there is."""
    account, is_new = Account.objects.get_or_create(
        workspace=workspace, slug=queries.WEB_SLUG, defaults={"kind": AccountKind.WEB}
    )
    if is_new:
        _record("channel.opened", account, by)
    return account


@transaction.atomic
def set_account_state(*, by: Principal, account: Account, state: str) -> None:
    """Pause or resume an account.   Raises: InvalidTransition, Conflict."""
    policies.check_role(by, Role.OPERATOR, account.workspace)
    ACCOUNT.check(account.state, state)
    moved = Account.objects.filter(id=account.id, state=account.state)
    if moved.update(state=state) != 1:
        raise Conflict("Somebody else changed this account first.")
    account.state = state
    paused = state == AccountState.PAUSED
    _record("channel.paused" if paused else "channel.resumed", account, by)


@transaction.atomic
def send_message(*, by: Principal, conversation: Conversation, text: str) -> Turn:
    """Hand a person's message to the agent of a conversation.

    Raises: Invalid for an empty or overlong text; AccountPaused; RoleRequired."""
    workspace = conversation.workspace
    policies.check_role(by, Role.OPERATOR, workspace)
    account = open_web_account(by=by, workspace=workspace)
    if account.state == AccountState.PAUSED:
        raise AccountPaused()
    return agents.start_turn(
        conversation=conversation,
        principal=by,
        text=_checked(text),
        trigger="message",
    )


@transaction.atomic
def start_conversation(
    *, by: Principal, profile: AgentProfile, text: str
) -> Conversation:
    """Begin a conversation with an agent, with its first message.

    Raises: as `send_message`; then no conversation is left behind."""
    workspace = profile.workspace
    conversation = agents.ensure_conversation(
        workspace=workspace,
        principal=by,
        channel=queries.WEB_SLUG,
        title=" ".join(_checked(text).split())[:TITLE_LENGTH],
    )
    usual = agents.resolve_profile(
        workspace=workspace, principal=by, conversation=conversation
    )
    if usual.profile.id != profile.id:
        agents.pin(by=by, scope="session", key=str(conversation.id), profile=profile)
    send_message(by=by, conversation=conversation, text=text)
    return conversation


def _checked(text: str) -> str:
    text = text.strip()
    if not text:
        raise Invalid("The message is empty.", fields=(FieldProblem("text", "empty"),))
    if len(text) > LONGEST_MESSAGE:
        problem = FieldProblem("text", "too long", f"at most {LONGEST_MESSAGE}")
        raise Invalid("The message is too long.", fields=(problem,))
    return text


def _record(event: str, account: Account, by: Principal) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("channel", str(account.id)),
        workspace_id=account.workspace_id,
        data={"slug": account.slug, "kind": account.kind},
    )


@transaction.atomic
def save_bot(
    *,
    by: Principal,
    workspace: Workspace,
    kind: str,
    slug: str,
    token: str,
    source: str = AccountSource.DESK,
) -> Account:
    """Open a bot's account, or give it another token, which goes to the vault.

    Raises: RoleRequired below admin; Invalid; VaultSealed.
    Again: the same token changes nothing.
    """
    policies.check_role(by, Role.ADMIN, workspace)
    transports.get(kind)
    if not token.strip():
        raise Invalid("The token is empty.", fields=(FieldProblem("token", "empty"),))
    secret = vault.put(
        by=by.actor,
        name=f"channel/{workspace.slug}/{slug}/token",
        purpose=f"the token of the {kind} account {slug}",
        value=token.strip(),
        workspace_id=workspace.id,
    )
    account, is_new = Account.objects.get_or_create(
        workspace=workspace,
        slug=slug,
        defaults={"kind": kind, "secret": secret, "source": source},
    )
    if account.kind != kind:
        raise Conflict(f"{slug} is an account of {account.kind}.")
    if account.secret_id != secret.id:
        Account.objects.filter(id=account.id).update(secret=secret)
        account.secret = secret
    if is_new:
        _record("channel.opened", account, by)
    return account


def discover() -> list[str]:
    """Open the accounts whose tokens stand in the environment.

    Again: the same token changes nothing; a paused account stays paused.
    """
    found = []
    for kind, token in queries.tokens_of_the_environment():
        if not token.strip() or kind not in transports.kinds():
            continue
        try:
            save_bot(
                by=access.system_principal(),
                workspace=access_queries.default_workspace(),
                kind=kind,
                slug=kind,
                token=token,
                source=AccountSource.ENV,
            )
        except (VaultSealed, NotFound) as error:
            logger.warning(
                "a bot's token waits in the environment",
                extra={"event": "channel.found", "code": error.code},
            )
            continue
        found.append(str(kind))
    return found


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
                lambda: _heard(ctx, account),
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
        trouble = redaction.scrub(error.detail)[:300]
        Account.objects.filter(id=account.id).update(trouble=trouble)
        return Again(error.retry_after or RETRY_SECONDS)
    return Again()


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
    got = intake.receive(account, update)
    if not (got.is_new and update.answer_to):
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


def deliver(ctx: RunContext) -> Outcome:
    """Bring a finished turn back to its chat: the handler of `channels.deliver`."""
    with transaction.atomic():
        queued = replies.deliver(UUID(ctx.payload["turn_id"]))
    return Finish({"queued": queued})


def decide_pairing(
    *, by: Principal, code: str, approve: bool, tier: str = "", username: str = ""
) -> PairingRequest:
    """Let a stranger in as a person of this install, or turn them down.

    Raises: NotFound, Conflict, Denied, RoleRequired, Invalid.
    """
    who = queries.find_person(username) if username else None
    if username and who is None:
        problem = FieldProblem("username", "unknown", "a person of this workspace")
        raise Invalid("There is no such person.", fields=(problem,))
    return pairing.decide(
        by=by, code=code, approve=approve, tier=tier or Tier.PUBLIC, who=who
    )


def block_sender(*, by: Principal, identity_id: UUID, blocked: bool) -> ChannelIdentity:
    """Shut a sender out, or let them in again.   Raises: NotFound, RoleRequired."""
    return pairing.block(by=by, identity_id=identity_id, blocked=blocked)


@transaction.atomic
def resend(*, by: Principal, message_id: UUID) -> OutboxMessage:
    """Let a message go out that failed, or of which nobody knows.

    Raises: NotFound; RoleRequired below operator; InvalidTransition.
    """
    row = (
        OutboxMessage.objects.select_related("account__workspace")
        .filter(
            id=message_id,
            account__in=Account.objects.visible_to(by),
        )
        .first()
    )
    if row is None:
        raise NotFound("There is no such message.")
    policies.check_role(by, Role.OPERATOR, row.account.workspace)
    outbox.put_back(by, row, row.account)
    return row


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


def _heard(ctx: RunContext, account: Account) -> None:
    """A vendor answered: we hear. Lost leases and pauses end the hearing."""
    ctx.check_fence()
    active = Account.objects.active().filter(id=account.id)
    if not active.update(heard_at=clock.now(), trouble=""):
        raise AccountPaused()
