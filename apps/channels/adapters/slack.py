"""Slack as a transport: listens by Socket Mode, speaks by the Web API.

Hides: which of Slack's calls does what, and their pacing. Invariants: an envelope
is acknowledged when it is kept, never before; a message whose answer was lost is
looked for by its key before it is called unknown.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from apps.channels.adapters import files, slack_blocks, slack_events, slack_text
from apps.channels.adapters.slack_door import check_age, check_signature
from apps.channels.adapters.slack_socket import Socket
from apps.channels.adapters.slack_web import (
    API_URL,
    FILES_URL,
    GuardedWebClient,
    ask,
    load_file,
)
from apps.channels.errors import ChannelRefused, DeliveryUnknown
from apps.channels.ports import (
    Attachment,
    ConversationKey,
    Envelope,
    Heard,
    Json,
    Line,
    Outgoing,
    Proof,
    SentRef,
    Sink,
    Stopping,
    Update,
    check_hold,
)
from apps.common import clock, redaction
from apps.common.errors import UpstreamError
from apps.gateway.ports import Permit

logger = logging.getLogger(__name__)

#: Slack takes about one message a second in a channel. Units: seconds.
PACE_SECONDS: Final = 1.0
#: How long an idle socket is waited on before `stopping` is asked. Seconds.
LOOK_UP_SECONDS: Final = 1.0
#: How often an app without Socket Mode is asked whether it still exists.
STAND_BY_SECONDS: Final = 30
#: The names of our progress marks.
MARKS: Final = {
    "👀": "eyes",
    "✍": "writing_hand",
    "⏳": "hourglass_flowing_sand",
    "✅": "white_check_mark",
    "❌": "x",
}
_KEY_EVENT: Final = "polar_message"
_HARMLESS: Final = frozenset({"already_reacted", "no_reaction", "message_not_found"})


@dataclass(frozen=True, slots=True)
class Tokens:
    """The parts of an account's secret, told apart by how they begin."""

    bot: str = field(repr=False)
    app: str = field(repr=False)
    signing: str = field(repr=False)

    @classmethod
    def of(cls, value: str) -> "Tokens":
        parts = value.split()
        bot = next((part for part in parts if part.startswith("xoxb-")), "")
        app = next((part for part in parts if part.startswith("xapp-")), "")
        signing = next((part for part in parts if not part.startswith("x")), "")
        return cls(bot, app, signing)


class Pace:
    """Lets one message a second into each chat."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[tuple[str, str], float] = {}

    def take(self, slug: str, chat: str) -> float:
        """Take the chat's next place, if it is free. Returns how long it is not."""
        with self._lock:
            now = clock.monotonic()
            if len(self._next) > 1000:
                self._next = {key: at for key, at in self._next.items() if at > now}
            wait = self._next.get((slug, chat), 0.0) - now
            if wait > 0:
                return wait
            self._next[slug, chat] = now + PACE_SECONDS
            return 0.0


class SlackTransport:
    """Speaks to Slack."""

    def __init__(self) -> None:
        self._pace = Pace()

    #: Slack takes 50 edits a minute from an app in a workspace; answers come first.
    draft_seconds: float | None = 3.0
    drafts_a_minute = 30

    def listen(self, line: Line, sink: Sink, stopping: Stopping, heard: Heard) -> None:
        """Bring updates until `stopping()`. Slack asks for a new socket every few
        hours, and gets one."""
        with _tokens(line) as tokens:
            client = _client(line, tokens)
            if not tokens.app:
                _stand_by(client, tokens, stopping)
                return
            name = str(ask(client, "auth.test").get("user", ""))
            while not stopping():
                opened = ask(client, "apps.connections.open", token=tokens.app)
                socket = Socket(str(opened.get("url", "")), local=_local(line))
                try:
                    self._hear(
                        socket, line, sink, stopping, lambda: heard(Proof(0, name))
                    )
                finally:
                    socket.close()

    def _hear(
        self,
        socket: Socket,
        line: Line,
        sink: Sink,
        stopping: Stopping,
        heard: Callable[[], None],
    ) -> None:
        """Keep envelopes until Slack asks for another socket."""
        proved = None
        while not stopping():
            frame = socket.next(LOOK_UP_SECONDS)
            if socket.heard_at != proved:
                proved = socket.heard_at
                heard()
            if frame is None:
                continue
            if frame.get("type") == "disconnect":
                if frame.get("reason") == "link_disabled":
                    raise ChannelRefused(
                        "Socket Mode was switched off for this app.", revoked=True
                    )
                return
            envelope_id = frame.get("envelope_id")
            if isinstance(envelope_id, str):
                update = self._read_or_drop(frame.get("payload"), line)
                if update is not None:
                    sink(update)
                socket.acknowledge(envelope_id)

    def _read_or_drop(self, raw: Any, line: Line) -> Update | None:
        """An unreadable envelope would come again and again: say so, let it go."""
        try:
            return self.read(raw if isinstance(raw, dict) else {}, line)
        except ValueError as error:
            logger.warning("unreadable: %s", error, extra={"event": "slack.unreadable"})
            return None

    def fetch(self, line: Line, attachment: Attachment) -> Attachment:
        """Read a small text file; of anything else say why it was not read."""
        home = str(line.settings.get("api_url") or FILES_URL)

        def load() -> bytes:
            with _tokens(line) as tokens:
                return load_file(
                    attachment.reference, tokens.bot, home=home, local=_local(line)
                )

        return files.read(attachment, load)

    def pieces(self, text: str) -> list[str]:
        return slack_text.cut(text)

    def pause(self, slug: str, chat: str) -> float:
        return self._pace.take(slug, chat)

    def send(self, line: Line, permit: Permit, message: Outgoing) -> SentRef:
        """Post a message, in the thread it belongs to."""
        chat = message.key.chat
        with _tokens(line) as tokens:
            check_hold(line)
            permit.spend(message.arguments())
            client = _client(line, tokens)
            said = _said(message) | {
                "thread_ts": _thread(message.key),
                "unfurl_links": False,
                "unfurl_media": False,
                "metadata": {
                    "event_type": _KEY_EVENT,
                    "event_payload": {"key": permit.idempotency_key},
                },
            }
            try:
                sent = ask(client, "chat.postMessage", **said)
            except DeliveryUnknown:
                return _find(client, message.key, permit.idempotency_key)
        return SentRef(str(sent.get("channel", chat)), str(sent.get("ts", "")))

    def edit(self, line: Line, permit: Permit, ref: SentRef, message: Outgoing) -> None:
        """Put a text in the place of another; buttons that are not named go."""
        with _tokens(line) as tokens:
            check_hold(line)
            permit.spend(message.arguments())
            said = _said(message) | {"channel": ref.chat, "ts": ref.message_id}
            try:
                ask(_client(line, tokens), "chat.update", **said)
            except DeliveryUnknown as error:
                # The same text in the same place: it may be put there again.
                raise UpstreamError(error.detail) from error

    def react(self, line: Line, permit: Permit, ref: SentRef, mark: str) -> None:
        """Put one mark on a message and take our others away."""
        name = MARKS.get(mark, mark)
        with _tokens(line) as tokens:
            client = _client(line, tokens)
            permit.spend({"chat": ref.chat, "message_id": ref.message_id, "mark": mark})
            where = {"channel": ref.chat, "timestamp": ref.message_id}
            for old in _marks_on(client, where) - {name}:
                _try(client, "reactions.remove", name=old, **where)
            if name:
                _try(client, "reactions.add", name=name, **where)

    def answer(self, line: Line, permit: Permit, answer_to: str, text: str) -> None:
        """Tell who pressed a button, and nobody else, what became of it."""
        chat, _, rest = answer_to.partition(" ")
        user, _, thread = rest.partition(" ")
        with _tokens(line) as tokens:
            permit.spend({"answer_to": answer_to, "text": text})
            ask(
                _client(line, tokens),
                "chat.postEphemeral",
                channel=chat,
                user=user,
                thread_ts=thread or None,
                text=slack_text.render(text)[: slack_text.LONGEST_TEXT],
            )

    def home(self, line: Line, permit: Permit, title: str, said: Json) -> None:
        """Publish a person's home tab."""
        with _tokens(line) as tokens:
            permit.spend(said)
            view = slack_blocks.home(
                title, [(name, text) for name, text in said["lines"]]
            )
            user = str(said["user"]).rpartition(":")[2]
            ask(_client(line, tokens), "views.publish", user_id=user, view=view)

    def check_age(self, headers: Mapping[str, str]) -> None:
        check_age(headers)

    def verify(self, line: Line, headers: Mapping[str, str], body: bytes) -> None:
        with _tokens(line) as tokens:
            check_signature(headers, body, tokens.signing)

    def read(self, raw: Json, line: Line) -> Update | None:
        """Read an event, a pressed button or a slash command.

        Raises: ValueError when it has no shape that Slack sends.
        """
        kind = raw.get("type")
        if kind == "event_callback":
            return _update(slack_events.read_event(raw, bot_user=_bot_user(raw)))
        if kind is None and "command" in raw:
            return _update(slack_events.read_command(raw))
        if isinstance(kind, str):
            return _update(slack_events.read_interaction(raw))
        raise ValueError("nothing that Slack sends")


@contextmanager
def _tokens(line: Line) -> Iterator[Tokens]:
    """The account's tokens; each is scrubbed by itself while it is held."""
    tokens = Tokens.of(line.token.reveal())
    for token in (tokens.bot, tokens.app, tokens.signing):
        redaction.register(token)
    try:
        if not tokens.bot:
            raise ChannelRefused("This account has no bot token (xoxb-…).")
        yield tokens
    finally:
        for token in (tokens.bot, tokens.app, tokens.signing):
            redaction.forget(token)


def _stand_by(client: GuardedWebClient, tokens: Tokens, stopping: Stopping) -> None:
    """Without an app token Slack calls us: see only that it still knows us.

    That it knows us proves no hearing; an event that arrives does.
    """
    if not tokens.signing:
        raise ChannelRefused(
            "Slack is not heard: it needs an app token (xapp-…) for Socket Mode, or "
            "the signing secret for events by HTTP."
        )
    while True:
        ask(client, "auth.test")
        for _ in range(STAND_BY_SECONDS):
            if stopping():
                return
            clock.sleep(1.0)


def _client(line: Line, tokens: Tokens) -> GuardedWebClient:
    url = str(line.settings.get("api_url") or API_URL)
    return GuardedWebClient(tokens.bot, base_url=url, local=_local(line))


def _local(line: Line) -> frozenset[str]:
    return frozenset(str(each) for each in line.settings.get("local") or ())


def _thread(key: ConversationKey) -> str | None:
    """Topic, else what it replies to, else the root. A direct chat has no need of
    a thread under every answer."""
    if key.topic:
        return key.topic
    return key.reply_to if key.reply_to and not key.chat.startswith("D") else None


def _said(message: Outgoing) -> Json:
    """Shape: the arguments that say a text and its buttons."""
    text = slack_text.render(message.text)
    said: Json = {"channel": message.key.chat, "text": text, "parse": "none"}
    if not message.buttons:
        return said | {"blocks": []}
    parts = slack_text.chunks(text, slack_blocks.SECTION)
    choices = [
        (f"{each.value.split(':')[0]}:{index}", each.label, each.value)
        for index, each in enumerate(message.buttons)
    ]
    drawn = [slack_blocks.section(part) for part in parts]
    return said | {"blocks": [*drawn, slack_blocks.buttons(choices)]}


def _find(client: GuardedWebClient, key: ConversationKey, wanted: str) -> SentRef:
    """Look for a message by its key.   Raises: DeliveryUnknown when not there."""
    thread = _thread(key)
    method = "conversations.replies" if thread else "conversations.history"
    try:
        found = ask(
            client,
            method,
            channel=key.chat,
            ts=thread,
            limit=50,
            include_all_metadata=True,
        )
    except UpstreamError as error:
        raise DeliveryUnknown("Slack gave no answer, nor did it show.") from error
    for row in found.get("messages") or ():
        payload = (row.get("metadata") or {}).get("event_payload") or {}
        if wanted and payload.get("key") == wanted:
            return SentRef(key.chat, str(row.get("ts", "")))
    raise DeliveryUnknown("Slack gave no answer, and the message is not to be seen.")


def _marks_on(client: GuardedWebClient, where: Json) -> set[str]:
    """Which of the marks that we use stand there. Only our own can be removed."""
    try:
        found = ask(client, "reactions.get", full=True, **where)
    except ChannelRefused:
        return set()
    rows = (found.get("message") or {}).get("reactions") or ()
    return {str(row.get("name")) for row in rows} & set(MARKS.values())


def _try(client: GuardedWebClient, method: str, **said: Any) -> None:
    """A mark is decoration: what is already so is no failure."""
    try:
        ask(client, method, **said)
    except ChannelRefused as error:
        if error.facts.get("reason") not in _HARMLESS:
            raise


def _bot_user(raw: Json) -> str:
    """Who we are, as the event itself says it."""
    listed = raw.get("authorizations")
    first = listed[0] if isinstance(listed, list) and listed else {}
    return str(first.get("user_id", "")) if isinstance(first, dict) else ""


def _update(heard: slack_events.Heard) -> Update | None:
    if heard.kind == "nothing":
        return None
    text = heard.text
    if heard.kind == "command":
        text = f"/{text}" if text else "/help"
    verb = heard.value if heard.action.startswith(slack_blocks.PREFIX) else ""
    answer_to = f"{heard.chat} {heard.user} {heard.thread}".strip()
    kinds = {"command": "message", "gone": "nothing"}
    return Update(
        external_id=heard.key,
        kind=kinds.get(heard.kind, heard.kind),
        envelope=_envelope(heard, text),
        key=ConversationKey(heard.chat, heard.thread, heard.message),
        is_direct=heard.is_direct or heard.kind == "home",
        is_addressed=True,
        action=verb,
        answer_to=answer_to if heard.kind == "action" else "",
    )


def _envelope(heard: slack_events.Heard, text: str) -> Envelope:
    at = datetime.fromtimestamp(heard.at, UTC) if heard.at else clock.now()
    attached = tuple(
        Attachment("document", each.name, each.mimetype, each.size, each.url)
        for each in heard.files
    )
    return Envelope(
        user_id=heard.sender,
        channel="slack",
        message_id=heard.message,
        message_text=re.sub(r"\s+\Z", "", text),
        timestamp=at,
        thread_id=heard.thread,
        attachments=attached,
        metadata={"team": heard.team},
    )
