"""Reads what Telegram sends: messages, edits, pressed buttons.

Hides: the vendor's shapes. Invariants: a person is a numeric id, never a name;
bots and anonymous senders say nothing; a group is heard only where it addresses us.
Source: https://core.telegram.org/bots/api#update
"""

import re
from collections.abc import Iterator

from telegram import CallbackQuery, Message, User
from telegram import Update as VendorUpdate

from apps.channels.ports import Attachment, ConversationKey, Envelope, Update
from apps.common import clock

CHANNEL = "telegram"
PRIVATE = "private"


def read(raw: VendorUpdate, me: User) -> Update:
    """Turn a vendor's update into ours; what says nothing keeps its place."""
    message = raw.message or raw.edited_message
    if raw.callback_query is not None:
        return _button(raw, raw.callback_query)
    if message is None or message.from_user is None or message.from_user.is_bot:
        return _nothing(raw)
    if message.sender_chat is not None:
        return _nothing(raw)
    kind = "message" if raw.message is not None else "edit"
    text = message.text or message.caption or ""
    envelope = Envelope(
        user_id=str(message.from_user.id),
        channel=CHANNEL,
        message_id=str(message.message_id),
        message_text=_without_name(text, me),
        timestamp=message.edit_date or message.date,
        locale=message.from_user.language_code or "",
        thread_id=_topic(message),
        attachments=tuple(_attachments(message)),
        metadata={
            "chatType": message.chat.type,
            "replyTo": _reply_to(message),
            "forwarded": message.forward_origin is not None
            or message.via_bot is not None,
        },
    )
    if not (text or envelope.attachments):
        return _nothing(raw)
    return Update(
        external_id=str(raw.update_id),
        kind=kind,
        envelope=envelope,
        key=ConversationKey(
            str(message.chat.id), _topic(message), str(message.message_id)
        ),
        display=message.from_user.full_name[:120],
        is_direct=message.chat.type == PRIVATE,
        is_addressed=_is_addressed(message, text, me),
        cursor=raw.update_id + 1,
    )


def unreadable(number: int, problem: str) -> Update:
    """Keep the place of an update of a shape that we do not know."""
    envelope = Envelope("", CHANNEL, "", "", clock.now(), metadata={"problem": problem})
    key = ConversationKey("")
    return Update(str(number), "unreadable", envelope, key, cursor=number + 1)


def _button(raw: VendorUpdate, query: CallbackQuery) -> Update:
    """A press in a message that we can still name; inline messages are nobody's."""
    if query.message is None or not query.data or query.from_user.is_bot:
        return _nothing(raw)
    topic = _topic(query.message) if isinstance(query.message, Message) else ""
    return Update(
        external_id=str(raw.update_id),
        kind="action",
        envelope=Envelope(
            user_id=str(query.from_user.id),
            channel=CHANNEL,
            message_id=str(query.message.message_id),
            message_text="",
            timestamp=clock.now(),
            locale=query.from_user.language_code or "",
            thread_id=topic,
        ),
        key=ConversationKey(str(query.message.chat.id), topic),
        display=query.from_user.full_name[:120],
        is_direct=query.message.chat.type == PRIVATE,
        action=query.data[:200],
        answer_to=query.id,
        cursor=raw.update_id + 1,
    )


def _nothing(raw: VendorUpdate) -> Update:
    return Update(
        external_id=str(raw.update_id),
        kind="nothing",
        envelope=Envelope("", CHANNEL, "", "", clock.now()),
        key=ConversationKey(""),
        cursor=raw.update_id + 1,
    )


def _topic(message: Message) -> str:
    if message.is_topic_message and message.message_thread_id is not None:
        return str(message.message_thread_id)
    return ""


def _reply_to(message: Message) -> str:
    replied = message.reply_to_message
    return str(replied.message_id) if replied is not None else ""


def _is_addressed(message: Message, text: str, me: User) -> bool:
    replied = message.reply_to_message
    # In a topic the service message that opened it counts as replied to.
    if (
        replied is not None
        and replied.from_user is not None
        and replied.from_user.id == me.id
        and not replied.forum_topic_created
    ):
        return True
    return bool(me.username and _name(me).search(text))


def _name(me: User) -> re.Pattern[str]:
    return re.compile(rf"@{re.escape(me.username or '')}\b", re.IGNORECASE)


def _without_name(text: str, me: User) -> str:
    return _name(me).sub("", text).strip() if me.username else text


def _attachments(message: Message) -> Iterator[Attachment]:
    if message.photo:
        best = message.photo[-1]
        yield Attachment(
            "photo", "", "image/jpeg", best.file_size or 0, reference=best.file_id
        )
    for kind in ("document", "voice", "audio", "video"):
        found = getattr(message, kind)
        if found is not None:
            yield Attachment(
                kind,
                (getattr(found, "file_name", "") or "")[:120],
                found.mime_type or "",
                found.file_size or 0,
                reference=found.file_id,
            )
