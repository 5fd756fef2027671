"""One event of a vendor is taken in: once, in one transaction.

Inbox row, offset, identity, turn or command, its answer and the audit event commit
together or not at all. An unknown sender is denied and may ask to be let in; in
groups nothing is said to who did not address us.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from django.db import DataError, transaction

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import Conversation
from apps.audit import services as audit
from apps.channels import policies
from apps.channels.engine import (
    canary,
    commands,
    home,
    notes,
    outbox,
    pairing,
    progress,
    reading,
    replies,
    words,
)
from apps.channels.errors import SenderDenied
from apps.channels.models import (
    Account,
    ChannelIdentity,
    IdentityState,
    InboxMessage,
    OutboxMessage,
    Tier,
)
from apps.channels.ports import Outgoing, Update
from apps.common import clock, failpoints, redaction
from apps.common.errors import PolarError
from apps.gateway.ports import UNTRUSTED
from apps.runs.models import Run

#: What an event of a strange shape raises, in our own code or in the store.
UNREADABLE = (ValueError, TypeError, LookupError, DataError)


@dataclass(frozen=True, slots=True)
class Received:
    """What became of an event. `say` answers a pressed button."""

    row: InboxMessage
    is_new: bool
    say: str = ""


@transaction.atomic
def receive(account: Account, update: Update) -> Received:
    """Keep an event and do what it asks.

    Raises: what passes, such as QueueFull; then nothing is kept and it comes again.
    Again: the first time counts.
    """
    update = reading.storable(update)
    row, is_new = InboxMessage.objects.get_or_create(
        account=account,
        external_id=update.external_id,
        defaults={
            "external_user": update.envelope.user_id,
            "chat": update.key.chat,
            "topic": update.key.topic,
            "message_id": update.envelope.message_id,
            "envelope": update.envelope.as_dict(),
            "said_at": update.envelope.timestamp,
        },
    )
    if update.cursor is not None:
        behind = Account.objects.filter(id=account.id, cursor__lt=update.cursor)
        behind.update(cursor=update.cursor)
    if not is_new:
        return Received(row, is_new=False)
    outcome, say = _take(account, row, update)
    row.outcome = outcome
    row.save(update_fields=["outcome", "turn_id", "envelope"])
    failpoints.reach("channel.received")
    return Received(row, is_new=True, say=say)


def is_kept(account: Account, update: Update) -> bool:
    """Tell whether an event was kept before, without waiting for who writes."""
    if update.cursor is not None and update.cursor > account.cursor:
        return False
    kept = InboxMessage.objects.filter(
        account_id=account.id, external_id=update.external_id
    )
    return kept.exists()


def keep(account: Account, update: Update) -> Received | None:
    """Keep an event, or set it aside when nobody can read it: one that comes again
    and again must not hold up the others. Our own word proves that we hear, and is
    not kept.   Raises: what passes, as `receive`."""
    if update.kind == "canary":
        canary.hear(account, update)
        return None
    try:
        return receive(account, update)
    except UNREADABLE as error:
        set_aside(account, update, f"{type(error).__name__}: {error}")
        return None


@transaction.atomic
def set_aside(account: Account, update: Update, reason: str) -> None:
    """Keep only that an event came which nobody could read, and go on behind it.

    Again: the first time counts.
    """
    row, is_new = InboxMessage.objects.get_or_create(
        account=account,
        external_id=update.external_id[:120],
        defaults={"outcome": "unreadable"},
    )
    if update.cursor is not None:
        behind = Account.objects.filter(id=account.id, cursor__lt=update.cursor)
        behind.update(cursor=update.cursor)
    if is_new:
        _note_unreadable(account, row.external_id, reason)


def _note_unreadable(account: Account, external_id: str, reason: str) -> None:
    system = access.system_principal()
    notes.record(
        "channel.unreadable",
        account,
        system,
        update=external_id,
        problem=redaction.scrub(reading.plain(reason))[:300],
    )


def _take(account: Account, row: InboxMessage, update: Update) -> tuple[str, str]:
    if update.kind == "unreadable":
        problem = str(update.envelope.metadata.get("problem", ""))
        _note_unreadable(account, row.external_id, problem)
        return "unreadable", ""
    if update.kind == "nothing" or not update.envelope.user_id:
        return "nothing", ""
    if not (update.is_direct or update.is_addressed or update.action):
        return "nothing", ""
    identity = (
        ChannelIdentity.objects.select_related("principal", "account__workspace")
        .filter(account=account, external_user=update.envelope.user_id)
        .first()
    )
    if _is_flooding(account, row):
        return "limited", _limit(account, row, update, identity)
    if not _is_allowed(account, update):
        _deny(account, update, reason="not on the allow-list", offers=False)
        return "denied", "You are not let in here."
    if identity is None or identity.state != IdentityState.ACTIVE:
        is_known = identity is not None
        reason = "blocked" if is_known else "unknown sender"
        _deny(account, update, reason=reason, offers=not is_known)
        return "denied", "You are not let in here."
    try:
        with transaction.atomic():
            return _act(identity, row, update)
    except PolarError as error:
        if not error.permanent:
            raise
        _refuse(identity, row, update, error)
        return "refused", error.detail


def _is_flooding(account: Account, row: InboxMessage) -> bool:
    """Did this sender write more than may be in the minute before it was said?
    What nobody addressed to us does not count."""
    recent = InboxMessage.objects.filter(
        account=account,
        external_user=row.external_user,
        said_at__gt=row.said_at - timedelta(minutes=1),
        said_at__lte=row.said_at,
    )
    return recent.exclude(outcome="nothing").count() > account.per_minute


def _limit(
    account: Account,
    row: InboxMessage,
    update: Update,
    identity: ChannelIdentity | None,
) -> str:
    """Tell a known sender, once a minute, that what they wrote is not taken."""
    said = f"More than {account.per_minute} messages in a minute: not taken. Wait."
    is_known = identity is not None and identity.state == IdentityState.ACTIVE
    if is_known and not update.action:
        minute = int(row.said_at.timestamp() // 60)
        key = f"limited:{account.id}:{row.external_user}:{minute}"[:120]
        outbox.queue(account, Outgoing(update.key, said), key=key)
    return said


def _is_allowed(account: Account, update: Update) -> bool:
    """Is this sender, and this group, on the account's lists? Empty is any. The
    chats that are told of alerts and approvals are always on them."""
    senders, chats = account.allowed_senders, account.allowed_chats
    if senders and update.envelope.user_id not in senders:
        return False
    told = (account.alerts_to, account.approvals_to)
    return update.is_direct or not chats or update.key.chat in (*chats, *told)


def _deny(account: Account, update: Update, *, reason: str, offers: bool) -> None:
    """Leave an event; a stranger who writes directly is offered a code."""
    audit.record(
        type="channel.denied",
        actor=access.system_principal().actor,
        subject=("channel", str(account.id)),
        workspace_id=account.workspace_id,
        reason=reason,
        data={
            "account": account.slug,
            "sender": update.envelope.user_id,
            "event": update.external_id,
        },
    )
    if not offers or not update.is_direct or update.kind not in ("message", "edit"):
        return
    code = pairing.ask(account, update.envelope.user_id, update.display)
    if code:
        text = (
            f"I do not know you. Your pairing code is {code}. Tell it to an operator "
            "of this Polar within an hour; nobody else can let you in."
        )
        outbox.queue(account, Outgoing(update.key, text), key=f"pair:{code}")


def _act(
    identity: ChannelIdentity, row: InboxMessage, update: Update
) -> tuple[str, str]:
    if update.action:
        return "decided", _press(identity, update)
    if update.kind == "home":
        home.ask(identity)
        return "nothing", ""
    if update.kind == "edit" and _says_the_same(row, update):
        return "same", ""
    conversation = _conversation(identity, update)
    envelope = replace(update.envelope, session_id=str(conversation.id))
    row.envelope = envelope.as_dict()
    is_own_word = update.kind == "message" and not envelope.metadata.get("forwarded")
    found = commands.find(update.envelope.message_text) if is_own_word else None
    if found is not None:
        command, argument = found
        policies.check_tier(identity, command.tier)
        asked = words.Asked(identity, conversation, argument, update.is_direct)
        text = command.do(asked)
        _say(identity.account, row, update, text)
        return command.outcome, ""
    turn = agents.start_turn(
        conversation=conversation,
        principal=identity.principal,
        text=reading.text_of(update),
        reply_run_kind=replies.DELIVER_KIND,
        labels=_labels(identity, update),
    )
    row.turn_id = turn.id
    progress.begin(identity.account, row, turn)
    return "started", ""


def _says_the_same(row: InboxMessage, update: Update) -> bool:
    """Was nothing of the words corrected? Vendors tell of a new preview too."""
    before = InboxMessage.objects.filter(
        account_id=row.account_id,
        external_user=row.external_user,
        chat=row.chat,
        message_id=row.message_id,
        id__lt=row.id,
    ).order_by("-id")
    said: str | None = before.values_list("envelope__messageText", flat=True).first()
    return said == update.envelope.message_text


def _conversation(identity: ChannelIdentity, update: Update) -> Conversation:
    """A chat is one conversation, until somebody begins anew."""
    account, chat = identity.account, update.key.chat
    begun = InboxMessage.objects.filter(account=account, chat=chat, outcome="renewed")
    return agents.ensure_conversation(
        workspace=account.workspace,
        principal=identity.principal,
        channel=account.kind,
        external_key=f"{account.id}:{chat}:{begun.count()}",
        title=" ".join(update.envelope.message_text.split())[:80],
    )


def _labels(identity: ChannelIdentity, update: Update) -> frozenset[str]:
    """A stranger's words, quoted or forwarded ones, and a file's content are nobody's
    orders."""
    metadata = update.envelope.metadata
    is_foreign = (
        identity.tier == Tier.PUBLIC
        or bool(update.envelope.attachments)
        or bool(metadata.get("forwarded"))
        or bool(metadata.get("replyText") and metadata.get("replyFrom") == "other")
    )
    return frozenset({UNTRUSTED}) if is_foreign else frozenset()


def _press(identity: ChannelIdentity, update: Update) -> str:
    """Answer a question by its button, where that question was put.

    Raises: SenderDenied for a button that was never shown here; what the
    gateway refuses, such as the first answer for one that is already decided.
    """
    verb, _, named = update.action.partition(":")
    shown = (
        OutboxMessage.objects.select_related("account")
        .filter(
            account=identity.account,
            chat=update.key.chat,
            sent_id=update.envelope.message_id,
            approval_id__isnull=False,
        )
        .first()
    )
    if shown is None or named != str(shown.approval_id):
        raise SenderDenied("This button does not belong to this chat.")
    if verb not in ("approve", "reject"):
        raise SenderDenied("There is no such button.")
    said = commands.decide(identity, UUID(named), approve=verb == "approve")
    replies.close(shown, said)
    return said


def _refuse(
    identity: ChannelIdentity, row: InboxMessage, update: Update, error: PolarError
) -> None:
    audit.record(
        type="channel.refused",
        actor=identity.principal.actor,
        subject=("channel", str(identity.account_id)),
        workspace_id=identity.account.workspace_id,
        reason=error.detail[:300],
        data={"code": error.code, "event": update.external_id, "tier": identity.tier},
    )
    if not update.action:
        _say(identity.account, row, update, error.detail)


def _say(account: Account, row: InboxMessage, update: Update, text: str) -> None:
    outbox.queue(account, Outgoing(update.key, text), key=f"said:{row.id}")


def ring_forgotten() -> int:
    """Queue senders for chats whose line waits and whose run is gone.

    Again: a chat that has a run is left alone.
    """
    waiting = (
        OutboxMessage.objects.waiting()
        .filter(due_at__lte=clock.now(), account__state="active")
        .order_by("account_id", "chat")
        .values_list("account_id", "chat")
        .distinct()[:200]
    )
    rung = 0
    for account_id, chat in waiting:
        account = Account.objects.select_related("workspace").get(id=account_id)
        key = f"outbox:{account_id}:{chat}"[:120]
        if not Run.objects.unsettled().filter(serial_key=key).exists():
            outbox.ring(account, chat)
            rung += 1
    return rung
