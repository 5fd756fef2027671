"""Slash commands: one registry for every channel, each with its tier.

A command answers with text, or raises what the service below refuses. It runs in
the transaction that keeps the message, so it happens once.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Turn, TurnState
from apps.channels import policies
from apps.channels.engine import words
from apps.channels.engine.words import Asked
from apps.channels.models import ChannelIdentity, Tier
from apps.channels.ports import PluggedCommand, plugged_commands
from apps.common.errors import Invalid
from apps.gateway import queries as gateway_queries
from apps.gateway import services as gateway
from apps.gateway.models import ApprovalRequest, Halt
from apps.runs import services as runs
from apps.runs.models import CANCELLABLE

MOST_LISTED = 20
#: What is meant as a command; a path such as /etc/hosts is prose.
_WORD = re.compile(r"/([A-Za-z][A-Za-z0-9_]{0,31})(?=\s|\Z)")


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `outcome` is what its message is kept as."""

    name: str
    tier: str
    help: str
    do: Callable[[Asked], str]
    outcome: str = "command"


def find(text: str) -> tuple[Command, str] | None:
    """Return the command that a text names, and its argument; None for prose.

    A word for another bot (/help@other) is prose to us. Raises: Invalid for a
    command that there is not, so that no model is asked to guess what was meant.
    """
    found = _WORD.match(text)
    if found is None:
        return None
    command = everything().get(found[1].lower())
    if command is None:
        raise Invalid(f"There is no command /{found[1]}. /help lists them.")
    return command, text[found.end() :].strip()


def menu() -> list[tuple[str, str]]:
    """Return every command with what it does, for a vendor's own menu."""
    return [(each.name, each.help) for each in everything().values()]


def everything() -> dict[str, Command]:
    """Return our commands and those that other apps plugged in, by name."""
    return COMMANDS | {each.name: _plugged(each) for each in plugged_commands.all()}


def _plugged(plugged: PluggedCommand) -> Command:
    def do(asked: Asked) -> str:
        return plugged.do(asked.principal, asked.workspace, asked.argument)

    return Command(plugged.name, plugged.tier, plugged.help, do)


def help_for(identity: ChannelIdentity) -> str:
    """Name the commands that a sender may use."""
    lines = [
        f"/{each.name} – {each.help}"
        for each in everything().values()
        if policies.can_tier(identity, each.tier)
    ]
    return "\n".join(["You can write to the agent, or use:", *lines])


def _help(asked: Asked) -> str:
    return help_for(asked.identity)


def _start(asked: Asked) -> str:
    tier = asked.identity.tier
    return f"You are let in as {tier}. Write a message, or /help."


def _status(asked: Asked) -> str:
    halts = list(Halt.objects.active().order_by("created_at", "id")[:3])
    open_turns = Turn.objects.open().filter(conversation=asked.conversation).count()
    lines = [f"Stopped: {each.scope} ({each.reason})" for each in halts]
    waiting = gateway_queries.open_approvals().filter(
        workspace=asked.conversation.workspace
    )
    return "\n".join(
        [
            *(lines or ["Running."]),
            f"Open in this chat: {open_turns}. Approvals waiting: {waiting.count()}.",
        ]
    )


def _new(asked: Asked) -> str:
    return "A new conversation begins with your next message."


def _agents(asked: Asked) -> str:
    profiles = AgentProfile.objects.filter(workspace=asked.workspace).active()
    names = ", ".join(f"@{each.slug}" for each in profiles.order_by("slug")[:20])
    return f"Agents: {names}. Choose one with /agent @name."


def _agent(asked: Asked) -> str:
    slug = asked.argument.lstrip("@")
    if not slug:
        return _agents(asked)
    profile = agents_queries.get_profile(
        workspace=asked.conversation.workspace, slug=slug
    )
    agents.pin(
        by=asked.identity.principal,
        scope="session",
        key=str(asked.conversation.id),
        profile=profile,
    )
    return f"@{profile.slug} answers in this chat from now on."


def _stop(asked: Asked) -> str:
    mine = Turn.objects.filter(
        conversation=asked.conversation,
        state=TurnState.OPEN,
        run__state__in=CANCELLABLE,
    )
    stopped = 0
    for turn in mine.order_by("id")[:MOST_LISTED]:
        runs.cancel(
            by=asked.identity.principal, run_id=turn.run_id, reason="stopped in chat"
        )
        stopped += 1
    return f"Stopped {stopped}." if stopped else "Nothing is running here."


def _approve(asked: Asked) -> str:
    return _decided(asked, approve=True)


def _reject(asked: Asked) -> str:
    return _decided(asked, approve=False)


def _decided(asked: Asked, *, approve: bool) -> str:
    try:
        approval_id = UUID(asked.argument.split(" ")[0])
    except ValueError:
        raise Invalid("Name the approval by its id.") from None
    return decide(asked.identity, approval_id, approve=approve)


def decide(identity: ChannelIdentity, approval_id: UUID, *, approve: bool) -> str:
    """Answer a question as the person behind a sender.

    Raises: SenderDenied below approver; what the gateway refuses.
    """
    policies.check_tier(identity, Tier.APPROVER)
    asked: ApprovalRequest = gateway.decide_approval(
        by=identity.principal,
        approval_id=approval_id,
        approve=approve,
        reason=f"in {identity.account.kind}",
    )
    return f"{asked.state.capitalize()} by {identity.principal.label}."


COMMANDS = {
    each.name: each
    for each in (
        Command("start", Tier.PUBLIC, "say hello", _start),
        Command("help", Tier.PUBLIC, "what you can do here", _help),
        Command("status", Tier.PUBLIC, "what is running and what waits", _status),
        Command("new", Tier.PUBLIC, "begin a new conversation", _new, "renewed"),
        Command("agents", Tier.OPERATOR, "list the agents", _agents),
        Command("agent", Tier.OPERATOR, "choose who answers in this chat", _agent),
        Command("lane", Tier.OPERATOR, "show or switch the agent's lane", words.lane),
        Command("tasks", Tier.OPERATOR, "list open tasks", words.tasks),
        Command("task", Tier.OPERATOR, "show a task, or add one", words.task),
        Command("stop", Tier.OPERATOR, "stop what is running in this chat", _stop),
        Command("approve", Tier.APPROVER, "approve a question by its id", _approve),
        Command("reject", Tier.APPROVER, "reject a question by its id", _reject),
        Command("halt", Tier.OPERATOR, "stop everything now", words.halt),
        Command("usage", Tier.OPERATOR, "what the last day cost", words.usage),
        Command("memory", Tier.OPERATOR, "what is remembered", words.memory),
        Command("automations", Tier.OPERATOR, "what is planned", words.automations),
        Command("pair", Tier.ADMIN, "let a stranger in by their code", words.pair),
    )
}
