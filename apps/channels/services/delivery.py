"""Delivery: answers, resends, and what a chat is told unasked."""

from uuid import UUID

from django.db import transaction

from apps.access import policies
from apps.access.models import Principal, Role
from apps.channels import queries
from apps.channels.engine import outbox, replies
from apps.channels.models import Account, OutboxMessage
from apps.channels.ports import ConversationKey, Outgoing
from apps.common.errors import NotFound, Unavailable
from apps.runs.ports import Finish, Outcome, RunContext


def deliver(ctx: RunContext) -> Outcome:
    """Bring a finished turn back to its chat: the handler of `channels.deliver`."""
    with transaction.atomic():
        queued = replies.deliver(UUID(ctx.payload["turn_id"]))
    return Finish({"queued": queued})


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


def tells_operators() -> bool:
    """Is there an active account that names a chat to be told of alerts?"""
    return queries.alert_accounts().exists()


@transaction.atomic
def tell_operators(text: str, key: str) -> None:
    """Tell the chats that are told of alerts.   Again: the same key is told once.

    Raises: Unavailable when no active account names such a chat.
    """
    told = list(queries.alert_accounts())
    if not told:
        raise Unavailable("No channel is told of alerts; name a chat on Channels.")
    for account in told:
        where = ConversationKey(account.alerts_to)
        outbox.queue(account, Outgoing(where, text), key=f"told:{key}:{account.id}")


@transaction.atomic
def route_approvals() -> int:
    """Ask open questions where they began and in the chats that are told of them,
    and close those that were decided elsewhere: the clock's job.   Again: nothing."""
    asked = replies.ask_where_it_began() + replies.route_approvals()
    return asked + replies.close_questions()
