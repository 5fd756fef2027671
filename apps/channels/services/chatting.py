"""The web chat: its account, a message, a command, the beginning of a conversation.

The web is a channel like the others: a message is kept once, in the same envelope,
and the same words are commands.
"""

from dataclasses import dataclass

from django.db import transaction

from apps.access import policies
from apps.access.models import Principal, Role, Workspace
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation, Turn
from apps.channels import queries
from apps.channels.engine import commands, notes
from apps.channels.engine.reading import plain
from apps.channels.engine.words import Asked
from apps.channels.errors import AccountPaused
from apps.channels.models import (
    Account,
    AccountKind,
    AccountState,
    ChannelIdentity,
    InboxMessage,
    Tier,
)
from apps.channels.policies import check_tier
from apps.channels.ports import Envelope
from apps.common import canonical, clock, ids
from apps.common.errors import FieldProblem, Invalid

#: The longest message a person may send. Units: characters.
LONGEST_MESSAGE = 20_000
#: A conversation is called by the beginning of its first message.
TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of what somebody wrote: a turn, or what a command said.

    `renews` asks for a new conversation."""

    conversation: Conversation
    turn: Turn | None = None
    said: str = ""
    renews: bool = False


@transaction.atomic
def open_web_account(*, by: Principal, workspace: Workspace) -> Account:
    """Open the web chat of a workspace.   Again: returns the account there is."""
    account, is_new = Account.objects.get_or_create(
        workspace=workspace, slug=queries.WEB_SLUG, defaults={"kind": AccountKind.WEB}
    )
    if is_new:
        notes.record("channel.opened", account, by)
    return account


@transaction.atomic
def take_message(
    *, by: Principal, conversation: Conversation, text: str, once: str = ""
) -> Taken:
    """Hand a person's words to the agent of a conversation, or do as they command.

    Raises: Invalid for an empty or overlong text and for a command that there is not;
    AccountPaused; RoleRequired; what the command's service refuses.
    Again: the same `once` gives what became of it the first time.
    """
    account = _open(by, conversation.workspace)
    envelope = _envelope(by, conversation, _checked(text), once)
    row, is_new = _keep(account, envelope)
    if not is_new:
        return _again(row, conversation)
    found = commands.find(envelope.message_text)
    if found is not None:
        command, argument = found
        identity = _identity(by, account)
        check_tier(identity, command.tier)
        said = command.do(Asked(identity, conversation, argument))
        _note(row, command.outcome)
        return Taken(conversation, said=said, renews=command.outcome == "renewed")
    turn = agents.start_turn(
        conversation=conversation,
        principal=by,
        text=envelope.message_text,
        trigger="message",
    )
    row.turn_id = turn.id
    _note(row, "started")
    return Taken(conversation, turn)


def send_message(*, by: Principal, conversation: Conversation, text: str) -> Turn:
    """Hand a person's message to the agent of a conversation.

    Raises: as `take_message`; Invalid for a command."""
    taken = take_message(by=by, conversation=conversation, text=text)
    if taken.turn is None:
        raise Invalid("This is a command, no message.")
    return taken.turn


@transaction.atomic
def start_conversation(
    *, by: Principal, profile: AgentProfile, text: str, once: str = ""
) -> Conversation:
    """Begin a conversation with an agent, with its first message.

    Raises: as `take_message`; then no conversation is left behind."""
    return begin(by=by, profile=profile, text=text, once=once).conversation


@transaction.atomic
def begin(*, by: Principal, profile: AgentProfile, text: str, once: str = "") -> Taken:
    """Begin a conversation with an agent, with a message or a command.

    Raises: as `take_message`; then no conversation is left behind.
    Again: the same `once` gives the conversation that was begun.
    """
    workspace = profile.workspace
    is_command = commands.find(_checked(text)) is not None
    conversation = agents.ensure_conversation(
        workspace=workspace,
        principal=by,
        channel=queries.WEB_SLUG,
        external_key=f"{by.id}:{_once(once, text)}" if once else "",
        title="" if is_command else " ".join(_checked(text).split())[:TITLE_LENGTH],
    )
    usual = agents.resolve_profile(
        workspace=workspace, principal=by, conversation=conversation
    )
    if usual.profile.id != profile.id:
        agents.pin(by=by, scope="session", key=str(conversation.id), profile=profile)
    return take_message(by=by, conversation=conversation, text=text, once=once)


def _open(by: Principal, workspace: Workspace) -> Account:
    """Raises: RoleRequired, AccountPaused."""
    policies.check_role(by, Role.OPERATOR, workspace)
    account = open_web_account(by=by, workspace=workspace)
    if account.state == AccountState.PAUSED:
        raise AccountPaused()
    return account


def _envelope(
    by: Principal, conversation: Conversation, text: str, once: str
) -> Envelope:
    return Envelope(
        user_id=str(by.id),
        channel=queries.WEB_SLUG,
        message_id=_once(once, text) if once else str(ids.new_id()),
        message_text=text,
        timestamp=clock.now(),
        session_id=str(conversation.id),
    )


def _once(once: str, text: str) -> str:
    """A form that is sent again with other words, after going back, is another."""
    return f"{once[:40]}-{canonical.digest(text.strip())[:12]}"


def _keep(account: Account, envelope: Envelope) -> tuple[InboxMessage, bool]:
    return InboxMessage.objects.get_or_create(
        account=account,
        external_id=f"{envelope.session_id}:{envelope.message_id}",
        defaults={
            "external_user": envelope.user_id,
            "chat": envelope.session_id,
            "message_id": envelope.message_id,
            "envelope": envelope.as_dict(),
            "said_at": envelope.timestamp,
        },
    )


def _again(row: InboxMessage, conversation: Conversation) -> Taken:
    turn = Turn.objects.filter(id=row.turn_id).first() if row.turn_id else None
    renews = row.outcome == "renewed"
    said = "" if turn is not None or renews else "That was done already."
    return Taken(conversation, turn, said=said, renews=renews)


def _note(row: InboxMessage, outcome: str) -> None:
    row.outcome = outcome
    row.save(update_fields=["outcome", "turn_id"])


def _identity(by: Principal, account: Account) -> ChannelIdentity:
    """Who somebody is in the web chat: themselves, with the tier of their role."""
    role = policies.role_of(by, account.workspace)
    tier = Tier(role) if role in Tier.values else Tier.PUBLIC
    return ChannelIdentity(
        account=account,
        external_user=str(by.id),
        display=by.label,
        principal=by,
        tier=tier,
    )


def _checked(text: str) -> str:
    text = plain(text).strip()
    if not text:
        raise Invalid("The message is empty.", fields=(FieldProblem("text", "empty"),))
    if len(text) > LONGEST_MESSAGE:
        problem = FieldProblem("text", "too long", f"at most {LONGEST_MESSAGE}")
        raise Invalid("The message is too long.", fields=(problem,))
    return text
