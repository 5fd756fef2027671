"""The pages of channels, by what they show."""

from apps.channels.views import chat
from apps.channels.views.accounts import (
    account_list,
    account_page,
    act,
    outbox,
    people,
)
from apps.channels.views.chat import (
    answer,
    conversation,
    conversation_list,
    hook,
    send,
    start,
    stream,
)

__all__ = [
    "account_list",
    "account_page",
    "act",
    "answer",
    "chat",
    "conversation",
    "conversation_list",
    "hook",
    "outbox",
    "people",
    "send",
    "start",
    "stream",
]
