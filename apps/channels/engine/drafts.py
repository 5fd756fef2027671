"""An answer as it is written: one message that is edited, within the vendor's rate.

A draft goes through the outbox, so it keeps its place in the chat's line: the answer
comes after the last draft and takes its place. Once the answer is queued no draft
follows; both turn the same row, so one of them waits.
"""

from datetime import timedelta

from django.db import transaction
from django.db.models import F

from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import DeltaKind, Turn
from apps.channels.engine import outbox
from apps.channels.models import Account, InboxMessage, OutboxMessage, OutboxState
from apps.channels.ports import ConversationKey, Outgoing, transports
from apps.common import clock, ids

#: So little is not worth a message. Units: characters.
SHORTEST = 40
#: An answer that takes longer is left at its last draft.
MOST_DRAFTS = 30
#: How long a look keeps the pieces coming. Units: seconds.
WATCH_SECONDS = 15.0
GOES_ON = " …"


def key_of(row: InboxMessage, number: int) -> str:
    return f"draft:{row.id}:{number}"


def first_of(row: InboxMessage) -> OutboxMessage | None:
    """Return the message that the answer takes the place of, if there is one."""
    found: OutboxMessage | None = OutboxMessage.objects.filter(
        dedupe_key=key_of(row, 0)
    ).first()
    return found


def show(row: InboxMessage, turn: Turn) -> bool:
    """Show how far the answer is, when the vendor's rate allows.

    Returns whether a draft was queued.
    """
    transport = transports.get(row.account.kind)
    if transport.draft_seconds is None or row.drafts >= MOST_DRAFTS:
        return False
    agents.watch_turn(turn_id=turn.id, seconds=WATCH_SECONDS)
    if not _may_follow(row, transport.draft_seconds):
        return False
    if _shown_lately(row.account) >= transport.drafts_a_minute:
        return False
    text = written(turn)
    if len(text) < SHORTEST:
        return False
    return _queue(row, turn, transport.pieces(text)[0] + GOES_ON)


def written(turn: Turn) -> str:
    """What is written of the answer; a new attempt begins anew."""
    text = ""
    for piece in agents_queries.deltas_after(turn_id=turn.id, seq=0):
        text = "" if piece.kind == DeltaKind.RESET else text + piece.text
    return text.strip()


def _may_follow(row: InboxMessage, seconds: float) -> bool:
    """The last draft arrived, and long enough ago."""
    if row.drafts == 0:
        return True
    last = OutboxMessage.objects.filter(dedupe_key=key_of(row, row.drafts - 1)).first()
    if last is None or last.state != OutboxState.SENT or last.sent_at is None:
        return False
    return (clock.now() - last.sent_at).total_seconds() >= seconds


def _shown_lately(account: Account) -> int:
    """How many drafts an account queued in the last minute. Reads: the newest rows."""
    since = clock.now() - timedelta(minutes=1)
    newest = OutboxMessage.objects.filter(
        id__gte=ids.first_at(since), created_at__gt=since, account=account
    )
    return newest.filter(dedupe_key__startswith="draft:").count()


@transaction.atomic
def _queue(row: InboxMessage, turn: Turn, text: str) -> bool:
    mine = InboxMessage.objects.filter(
        id=row.id, drafts=row.drafts, is_answered=False
    ).update(drafts=F("drafts") + 1)
    if not mine:
        return False
    first = first_of(row)
    if first is not None and first.text == text:
        return False
    key = row.key if first is None else ConversationKey(row.chat, row.topic)
    return outbox.queue(
        row.account,
        Outgoing(key, text),
        key=key_of(row, row.drafts),
        turn_id=turn.id,
        replaces_row=first.id if first else None,
    )
