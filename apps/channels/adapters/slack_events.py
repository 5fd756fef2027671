"""Reads what Slack sends: events, button presses, slash commands.

Hides: Slack's shapes. Invariants: people are ids, never names; whatever is not
addressed to the bot comes out as nothing and is kept nowhere; what has an unknown
shape is refused as a whole.
Source: https://docs.slack.dev/reference/events
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from apps.channels.adapters.slack_text import unescape

#: What a person may attach to one message.
MOST_FILES: Final = 10
LONGEST_TEXT: Final = 40_000
_MENTION: Final = re.compile(r"<@([UW][A-Z0-9]{2,20})(?:\|[^<>]*)?>")
_CHANNEL: Final = re.compile(r"<#([CDG][A-Z0-9]{2,20})(?:\|([^<>]*))?>")
_SPECIAL: Final = re.compile(r"<!([a-z]+)(?:\^[^<>|]*)?(?:\|([^<>]*))?>")
_URL: Final = re.compile(r"<((?:https?|mailto):[^<>|]*)(?:\|([^<>]*))?>")
_ID: Final = re.compile(r"[A-Z][A-Z0-9]{2,30}")
#: Messages of these subtypes are somebody speaking; others are news of the room.
_SPOKEN: Final = frozenset({"", "file_share", "thread_broadcast", "me_message"})
#: What a canary says; see `canary_text`.
_CANARY: Final = re.compile(r"Canary ([0-9a-f]{32})")
_MOMENT: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")
_GONE: Final = frozenset({"tokens_revoked", "app_uninstalled"})


@dataclass(frozen=True, slots=True)
class File:
    """A file that somebody attached, not fetched yet. Units: bytes."""

    id: str
    name: str
    mimetype: str
    size: int
    url: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One thing that Slack told us.

    `kind` is message, edit, action, command, home, canary, gone or nothing; `key` is
    what stays the same when Slack delivers it again.
    """

    kind: str
    key: str = ""
    team: str = ""
    user: str = ""
    chat: str = ""
    #: The message whose thread this belongs to; "" at the root.
    thread: str = ""
    message: str = ""
    text: str = ""
    is_direct: bool = False
    files: tuple[File, ...] = ()
    #: A button's action and value, or a command's name.
    action: str = ""
    value: str = ""
    response_url: str = ""
    at: float = 0.0
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def sender(self) -> str:
        """Who said it: an id inside a team. Names change, ids do not."""
        return f"{self.team}:{self.user}" if self.user else ""


NOTHING: Final = Heard("nothing")


def read_event(body: dict[str, Any], *, bot_user: str) -> Heard:
    """Read an `event_callback`.   Raises: ValueError for an unknown shape."""
    event = _dict(body, "event")
    key = f"event:{_text(body, 'event_id', 64)}"
    kind = str(event.get("type", ""))
    if kind in _GONE:
        return Heard("gone", key, team=_team(event, body))
    if kind == "app_home_opened":
        if event.get("tab") != "home":
            return NOTHING
        user = _ident(event, "user")
        return Heard("home", key, team=_team(event, body), user=user)
    if kind == "app_mention":
        return _spoken(event, body, key, bot_user)
    if kind != "message":
        return NOTHING
    if _is_our_own(event, bot_user):
        return _canary(event, key)
    if event.get("channel_type") == "im":
        return _direct(event, body, key, bot_user)
    # A message of a room that mentions the bot comes as `app_mention` too; its
    # correction does not.
    return _corrected(event, body, key, bot_user)


def read_interaction(body: dict[str, Any]) -> Heard:
    """Read a press of a button.   Raises: ValueError."""
    if body.get("type") != "block_actions":
        return NOTHING
    actions = body.get("actions")
    if not isinstance(actions, list) or not actions or not isinstance(actions[0], dict):
        raise ValueError("an interaction without actions")
    action, user, container = actions[0], _dict(body, "user"), _dict(body, "container")
    chat = container.get("channel_id", "")
    message = str(container.get("message_ts", ""))[:32]
    who = _ident(user, "id")
    pressed = _text(action, "action_ts", 32)
    return Heard(
        "action",
        f"action:{message}:{pressed}:{who}",
        team=_team_of_presser(user, body),
        user=who,
        chat=str(chat)[:32],
        thread=str(container.get("thread_ts", ""))[:32],
        message=message,
        is_direct=str(chat).startswith("D"),
        action=_text(action, "action_id", 255),
        value=str(action.get("value", ""))[:2000],
        response_url=str(body.get("response_url", ""))[:500],
        at=_seconds(pressed),
    )


def read_command(form: dict[str, Any]) -> Heard:
    """Read a slash command.   Raises: ValueError."""
    chat = _ident(form, "channel_id")
    return Heard(
        "command",
        f"command:{_text(form, 'trigger_id', 128)}",
        team=_ident(form, "team_id"),
        user=_ident(form, "user_id"),
        chat=chat,
        text=unescape(str(form.get("text", ""))).strip()[:LONGEST_TEXT],
        is_direct=chat.startswith("D"),
        action=_text(form, "command", 64).lstrip("/"),
        response_url=str(form.get("response_url", ""))[:500],
    )


def plain(text: str, *, bot_user: str) -> str:
    """What a person typed, without Slack's markup; the bot's own name is dropped."""

    def mention(found: re.Match[str]) -> str:
        return "" if found[1] == bot_user else f"@{found[1]}"

    text = _MENTION.sub(mention, text[:LONGEST_TEXT])
    text = _CHANNEL.sub(lambda found: f"#{found[2] or found[1]}", text)
    text = _SPECIAL.sub(lambda found: found[2] or f"@{found[1]}", text)
    text = _URL.sub(lambda found: found[1], text)
    return unescape(text).strip()


def _is_our_own(event: dict[str, Any], bot: str) -> bool:
    return bool(bot and event.get("bot_id") and event.get("user") == bot)


def _canary(event: dict[str, Any], key: str) -> Heard:
    """Our own word, come back: whether it is a canary's, the account knows."""
    found = _CANARY.fullmatch(str(event.get("text") or "")[:100])
    if found is None:
        return NOTHING
    chat, message = _ident(event, "channel"), _text(event, "ts", 32)
    return Heard("canary", key, chat=chat, message=message, text=found[1])


def _direct(event: dict[str, Any], body: dict[str, Any], key: str, bot: str) -> Heard:
    if str(event.get("subtype") or "") in _SPOKEN:
        return _spoken(event, body, key, bot)
    return _corrected(event, body, key, bot)


def _corrected(
    event: dict[str, Any], body: dict[str, Any], key: str, bot: str
) -> Heard:
    if event.get("subtype") != "message_changed":
        return NOTHING
    now, before = _dict(event, "message"), _dict(event, "previous_message")
    if now.get("text") == before.get("text") or str(now.get("subtype") or ""):
        # A preview was added, or it was deleted: nobody wrote anything.
        return NOTHING
    is_direct = event.get("channel_type") == "im"
    if not is_direct and f"<@{bot}>" not in str(now.get("text") or ""):
        return NOTHING
    told = {**now, "channel": event.get("channel")}
    told["channel_type"] = event.get("channel_type")
    heard = _spoken(told, body, key, bot)
    return _as_edit(heard) if heard.kind == "message" else NOTHING


def _as_edit(heard: Heard) -> Heard:
    values = {name: getattr(heard, name) for name in Heard.__slots__}
    return Heard(**{**values, "kind": "edit"})


def _spoken(event: dict[str, Any], body: dict[str, Any], key: str, bot: str) -> Heard:
    subtype = str(event.get("subtype") or "")
    if event.get("bot_id") or event.get("user") == bot or subtype not in _SPOKEN:
        return NOTHING
    chat, message = _ident(event, "channel"), _text(event, "ts", 32)
    return Heard(
        "message",
        key,
        team=_team(event, body),
        user=_ident(event, "user"),
        chat=chat,
        thread=str(event.get("thread_ts") or "")[:32],
        message=message,
        text=plain(str(event.get("text") or ""), bot_user=bot),
        is_direct=event.get("channel_type") == "im" or chat.startswith("D"),
        files=_files(event),
        at=_seconds(message),
    )


def _files(event: dict[str, Any]) -> tuple[File, ...]:
    listed = event.get("files")
    if not isinstance(listed, list):
        return ()
    return tuple(
        File(
            id=str(each.get("id", ""))[:32],
            name=str(each.get("name") or "file")[:200],
            mimetype=str(each.get("mimetype") or "")[:100],
            size=each["size"] if isinstance(each.get("size"), int) else 0,
            url=str(each.get("url_private_download") or each.get("url_private") or "")[
                :1000
            ],
        )
        for each in listed[:MOST_FILES]
        if isinstance(each, dict)
    )


def _team_of_presser(user: dict[str, Any], body: dict[str, Any]) -> str:
    """The team of who pressed. An app of a whole organization is told none beside."""
    beside = body.get("team")
    named = beside.get("id", "") if isinstance(beside, dict) else ""
    return str(user.get("team_id") or named)[:32]


def _team(event: dict[str, Any], body: dict[str, Any]) -> str:
    """The team of who speaks: in a shared channel it is not always ours."""
    found = event.get("user_team") or event.get("team") or body.get("team_id") or ""
    return str(found)[:32]


def _dict(body: dict[str, Any], name: str) -> dict[str, Any]:
    found = body.get(name)
    if not isinstance(found, dict):
        raise ValueError(f"{name} is missing")
    return found


def _text(body: dict[str, Any], name: str, most: int) -> str:
    found = body.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= most:
        raise ValueError(f"{name} is missing or too long")
    return found


def _ident(body: dict[str, Any], name: str) -> str:
    found = _text(body, name, 31)
    if not _ID.fullmatch(found):
        raise ValueError(f"{name} is no id of Slack")
    return found


def _seconds(ts: str) -> float:
    """A moment as Slack writes it; 0 for what is none."""
    return float(ts) if _MOMENT.fullmatch(ts) else 0.0
