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
#: What is kept of a message that is replied to. Units: characters.
LONGEST_QUOTE = 1000


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
    files = tuple(_attachments(message))
    # A place that moves is corrected every few seconds; nobody wrote anything.
    if kind == "message":
        files += tuple(_told(message))
    envelope = Envelope(
        user_id=str(message.from_user.id),
        channel=CHANNEL,
        message_id=str(message.message_id),
        message_text=_without_name(text, me),
        timestamp=message.edit_date or message.date,
        locale=message.from_user.language_code or "",
        thread_id=_topic(message),
        attachments=files,
        metadata={
            "chatType": message.chat.type,
            **_replied(message, me),
            "forwarded": message.forward_origin is not None
            or message.via_bot is not None,
        },
    )
    if not (text or files):
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


def _replied(message: Message, me: User) -> dict[str, str]:
    """The message that it replies to: its anchor, and whose words those are."""
    replied = message.reply_to_message
    if replied is None or replied.forum_topic_created:
        return {"replyTo": ""}
    whole = replied.text or replied.caption or ""
    quoted = message.quote.text if message.quote is not None else whole
    author = replied.from_user.id if replied.from_user is not None else None
    sender = message.from_user.id if message.from_user is not None else None
    whose = {me.id: "us", sender: "sender"}.get(author, "other")
    return {
        "replyTo": str(replied.message_id),
        "replyText": quoted[:LONGEST_QUOTE],
        "replyFrom": whose,
    }


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
    # An animation comes as a document too.
    kinds = ["animation"] if message.animation else ["document"]
    for kind in (*kinds, "voice", "audio", "video", "video_note", "sticker"):
        found = getattr(message, kind)
        if found is not None:
            name = getattr(found, "file_name", "") or getattr(found, "emoji", "")
            yield Attachment(
                kind,
                (name or "")[:120],
                getattr(found, "mime_type", "") or "",
                found.file_size or 0,
                reference=found.file_id,
            )


def _told(message: Message) -> Iterator[Attachment]:
    """What is said by a form of the vendor's instead of words."""
    if message.venue is not None:
        yield Attachment(
            "venue", text=f"{message.venue.title}, {message.venue.address}"
        )
    elif message.location is not None:
        place = message.location
        yield Attachment("location", text=f"{place.latitude}, {place.longitude}")
    if message.contact is not None:
        who = message.contact
        name = " ".join(part for part in (who.first_name, who.last_name) if part)
        yield Attachment("contact", text=f"{name}, {who.phone_number}")
    if message.poll is not None:
        choices = "; ".join(each.text for each in message.poll.options)
        yield Attachment("poll", text=f"{message.poll.question} ({choices})")
    if message.dice is not None:
        yield Attachment("dice", message.dice.emoji, text=str(message.dice.value))
