"""The way back: what a turn came to, and what it asks, said in its chat."""

from uuid import UUID

from apps.agents.models import Turn, TurnState
from apps.channels.engine import outbox
from apps.channels.models import InboxMessage
from apps.channels.ports import Button, ConversationKey, Outgoing, transports
from apps.gateway import queries as gateway_queries
from apps.gateway.models import ApprovalRequest

DELIVER_KIND = "channels.deliver"
#: What is shown of a call's arguments. Units: characters.
MOST_SHOWN = 1_500


def deliver(turn_id: UUID) -> int:
    """Put the answer of a turn into its chat's line, in the caller's transaction.

    Again: nothing; each piece has the turn's own key.
    """
    heard = _heard(turn_id)
    turn = Turn.objects.select_related("profile").filter(id=turn_id).first()
    if heard is None or turn is None:
        return 0
    queued = 0
    pieces = transports.get(heard.account.kind).pieces(text_of(turn))
    for number, piece in enumerate(pieces):
        # Only the first piece points at the question.
        key = heard.key if number == 0 else ConversationKey(heard.chat, heard.topic)
        queued += outbox.queue(
            heard.account,
            Outgoing(key, piece),
            key=f"turn:{turn_id}:{number}",
            turn_id=turn_id,
        )
    return queued


def text_of(turn: Turn) -> str:
    """Say what a turn came to, as every channel says it."""
    text = turn.answer_text.strip()
    if turn.state == TurnState.ANSWERED:
        notes = "\n\n(Answered by a fallback model.)" if turn.degraded else ""
        if turn.header.get("isolation"):
            notes += "\n\n(A tool ran without isolation.)"
        return (text or "(no text)") + notes
    why = (turn.reason or turn.state).replace("_", " ")
    said = f"{text}\n\n" if text else ""
    return f"{said}This was not finished: {why}. Trace {turn.trace_id}."


def ask_approvals(heard: InboxMessage, turn: Turn) -> int:
    """Show the open questions of a turn and its children, with buttons.

    Shape: canonical call and arguments, never a model's words.
    """
    root = turn.run.root_id
    asked = gateway_queries.open_approvals().filter(call__root_id=root)
    return sum(_ask(heard, each) for each in asked.select_related("call")[:20])


def _ask(heard: InboxMessage, asked: ApprovalRequest) -> bool:
    call = asked.call
    shown = call.arguments.replace("```", "'''")[:MOST_SHOWN]
    reach = ", ".join(str(each) for each in call.facts.get("targets", [])[:10])
    lines = [
        f"**Approval needed** for `{call.capability}`",
        f"```\n{shown}\n```",
        *([f"Reaches: {reach}"] if reach else []),
        f"Labels: {', '.join(call.facts.get('labels', [])) or 'none'}",
        f"Until {asked.expires_at:%Y-%m-%d %H:%M} UTC.",
    ]
    buttons = (
        Button("Approve", f"approve:{asked.id}"),
        Button("Reject", f"reject:{asked.id}"),
    )
    return outbox.queue(
        heard.account,
        Outgoing(heard.key, "\n".join(lines), buttons),
        key=f"ask:{asked.id}:{heard.account_id}:{heard.chat}"[:120],
        approval_id=asked.id,
    )


def _heard(turn_id: UUID) -> InboxMessage | None:
    found: InboxMessage | None = (
        InboxMessage.objects.select_related("account__workspace")
        .filter(turn_id=turn_id)
        .first()
    )
    return found
