"""The way back: what a turn came to, and what it asks, said in its chat."""

from uuid import UUID

from apps.agents.models import Turn, TurnState
from apps.channels.engine import drafts, outbox
from apps.channels.models import (
    Account,
    AccountState,
    InboxMessage,
    OutboxMessage,
    OutboxState,
)
from apps.channels.ports import Button, ConversationKey, Outgoing, transports
from apps.gateway import queries as gateway_queries
from apps.gateway.models import ApprovalRequest, ApprovalState

DELIVER_KIND = "channels.deliver"
#: What is shown of a call's arguments. Units: characters.
MOST_SHOWN = 2_400
#: What is shown of one that is too long to be shown whole.
LITTLE = 800
LONGEST_REACH = 400
MOST_ASKED = 20


def deliver(turn_id: UUID) -> int:
    """Put the answer of a turn into its chat's line, in the caller's transaction.

    Again: nothing; each piece has the turn's own key.
    """
    heard = _heard(turn_id)
    turn = (
        Turn.objects.select_related("profile", "run__parent").filter(id=turn_id).first()
    )
    if turn is None:
        return 0
    if heard is None:
        return _tell_target(turn)
    InboxMessage.objects.filter(id=heard.id).update(is_answered=True)
    draft = drafts.first_of(heard)
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
            replaces_row=draft.id if draft and number == 0 else None,
        )
    return queued


def _tell_target(turn: Turn) -> int:
    """Bring a planned turn's answer to the chat that its schedule names.

    Nobody asked for it, so quiet hours and a cap bind it, and it is one message.
    """
    payload = turn.run.parent.payload if turn.run.parent else {}
    slug, _, chat = str(payload.get("deliverTo", "")).partition(":")
    account = (
        Account.objects.active()
        .select_related("workspace")
        .filter(workspace=turn.run.workspace_id, slug=slug, secret__isnull=False)
        .first()
    )
    if account is None or not chat:
        return 0
    pieces = transports.get(account.kind).pieces(text_of(turn))
    more = f"\n\n(More on the desk: trace {turn.trace_id}.)" if pieces[1:] else ""
    return outbox.queue(
        account,
        Outgoing(ConversationKey(chat), pieces[0] + more),
        key=f"turn:{turn.id}:0",
        turn_id=turn.id,
        schedule_id=payload.get("schedule_id"),
    )


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
    return ask(heard.account, heard.key, asked)


def ask(account: Account, where: ConversationKey, asked: ApprovalRequest) -> bool:
    """Put one open question into a chat, with its buttons.   Again: nothing.

    What a chat cannot show whole is not approved there: nobody approves unseen.
    """
    text, is_whole = shown(account, asked)
    approve = Button("Approve", f"approve:{asked.id}")
    reject = Button("Reject", f"reject:{asked.id}")
    return outbox.queue(
        account,
        Outgoing(where, text, (approve, reject) if is_whole else (reject,)),
        key=f"ask:{asked.id}:{account.id}:{where.chat}"[:120],
        approval_id=asked.id,
    )


def shown(account: Account, asked: ApprovalRequest) -> tuple[str, bool]:
    """Say what is asked, and whether that is all of it."""
    call = asked.call
    arguments = inert(call.arguments).replace("```", "'''")
    reach = inert(", ".join(str(each) for each in call.facts.get("targets", [])))
    whole = _question(asked, arguments, reach)
    fits = len(arguments) <= MOST_SHOWN and len(reach) <= LONGEST_REACH
    if fits and len(transports.get(account.kind).pieces(whole)) == 1:
        return whole, True
    cut = _question(asked, arguments[:LITTLE] + " …", reach[:LONGEST_REACH])
    more = f"This is not all: {len(arguments)} characters. Approve it on the desk."
    return f"{cut}\n{more}", False


def _question(asked: ApprovalRequest, arguments: str, reach: str) -> str:
    call = asked.call
    lines = [
        f"**Approval needed** for `{call.capability}`",
        f"```\n{arguments}\n```",
        *([f"Reaches: {reach}"] if reach else []),
        f"Labels: {', '.join(call.facts.get('labels', [])) or 'none'}",
        f"Until {asked.expires_at:%Y-%m-%d %H:%M} UTC.",
    ]
    return "\n".join(lines)


def inert(text: str) -> str:
    """A text whose unseen marks are written out: none hides or turns its letters."""
    return "".join(
        each if each.isprintable() else f"\\u{ord(each):04x}" for each in text
    )


def route_approvals() -> int:
    """Ask what is open in the chats that are told of approvals.   Again: nothing."""
    asking = Account.objects.active().exclude(approvals_to="")
    queued = 0
    for account in asking.select_related("workspace").order_by("id"):
        where = ConversationKey(account.approvals_to)
        shown = OutboxMessage.objects.filter(
            account=account, chat=where.chat, approval_id__isnull=False
        )
        asked = gateway_queries.open_approvals().filter(workspace=account.workspace)
        new = asked.exclude(id__in=shown.values("approval_id"))
        for each in new.select_related("call").order_by("id")[:MOST_ASKED]:
            queued += ask(account, where, each)
    return queued


def ask_where_it_began() -> int:
    """Ask what is open in the chats whose messages led to it, should nobody have
    done so yet: whoever follows a message may be late.   Again: nothing."""
    asked = gateway_queries.open_approvals().exclude(
        id__in=OutboxMessage.objects.filter(approval_id__isnull=False).values(
            "approval_id"
        )
    )
    queued = 0
    for each in asked.select_related("call").order_by("id")[:MOST_ASKED]:
        root = each.call.root_id
        turn = Turn.objects.filter(run_id=root).first() if root is not None else None
        heard = _heard(turn.id) if turn is not None else None
        if heard is not None and heard.account.state == AccountState.ACTIVE:
            queued += _ask(heard, each)
    return queued


def close_questions() -> int:
    """Take the buttons off questions that were decided elsewhere, or are over.

    Again: each message is edited once.
    """
    shown = OutboxMessage.objects.filter(
        approval_id__isnull=False, state=OutboxState.SENT
    ).exclude(buttons=[])
    over = ApprovalRequest.objects.exclude(state=ApprovalState.PENDING).filter(
        id__in=shown.values("approval_id")
    )
    closed = 0
    for asked in over.select_related("decided_by").order_by("id")[:MOST_ASKED]:
        for row in shown.filter(approval_id=asked.id).select_related("account"):
            closed += close(row, said_of(asked))
    return closed


def close(row: OutboxMessage, said: str) -> bool:
    """Say what became of a question in its place, without its buttons, in the
    caller's transaction.   Again: nothing."""
    OutboxMessage.objects.filter(id=row.id).update(buttons=[])
    # What does not fit is cut off at the end.
    pieces = transports.get(row.account.kind).pieces(f"**{said}**\n\n{row.text}")
    return outbox.queue(
        row.account,
        Outgoing(ConversationKey(row.chat, row.topic), pieces[0]),
        key=f"asked:{row.id}",
        replaces_id=row.sent_id,
    )


def said_of(asked: ApprovalRequest) -> str:
    """Say what a question came to, and by whom."""
    word = "Approved" if asked.state == ApprovalState.USED else asked.state.capitalize()
    return f"{word} by {asked.decided_by.label}." if asked.decided_by else f"{word}."


def _heard(turn_id: UUID) -> InboxMessage | None:
    found: InboxMessage | None = (
        InboxMessage.objects.select_related("account__workspace")
        # The web shows answers and questions by itself.
        .filter(turn_id=turn_id, account__secret__isnull=False)
        .first()
    )
    return found
