"""The web chat: its account, a message, the beginning of a conversation."""

from django.db import transaction

from apps.access import policies
from apps.access.models import Principal, Role, Workspace
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation, Turn
from apps.channels import queries
from apps.channels.engine import notes
from apps.channels.errors import AccountPaused
from apps.channels.models import Account, AccountKind, AccountState
from apps.common.errors import FieldProblem, Invalid

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
        notes.record("channel.opened", account, by)
    return account


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
