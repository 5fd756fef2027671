"""The words of a channel, and the socket that vendors plug into.

A transport speaks to one vendor. It knows no table: it is handed a `Line` with
the token of one account, brings `Update`s, and sends what an `Outgoing` says.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from django.utils.module_loading import import_string

from apps.access.models import Principal, Workspace
from apps.channels.errors import ChannelRefused
from apps.common.errors import UpstreamError
from apps.common.redaction import SecretStr
from apps.gateway.ports import Permit

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with a message. `text` is what could be read of it."""

    kind: str  # photo | document | voice | …
    name: str = ""
    mimetype: str = ""
    size: int = 0
    reference: str = ""
    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """Where a message stands, and which message an answer points at."""

    chat: str
    topic: str = ""
    reply_to: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as every channel brings it. Shape: see `as_dict`."""

    user_id: str
    channel: str
    message_id: str
    message_text: str
    timestamp: datetime
    session_id: str = ""
    locale: str = ""
    thread_id: str = ""
    attachments: tuple[Attachment, ...] = ()
    metadata: Json = field(default_factory=dict)

    @property
    def lane(self) -> str:
        """A chat is one conversation; a topic, else what a message replies to, else
        the root is a lane inside it, and never splits its history."""
        if self.thread_id:
            return f"topic:{self.thread_id}"
        replied = self.metadata.get("replyTo")
        return f"reply:{replied}" if replied else "root"

    def as_dict(self) -> Json:
        """Shape: the public names, in camelCase."""
        return {
            "sessionId": self.session_id,
            "userId": self.user_id,
            "channel": self.channel,
            "messageId": self.message_id,
            "messageText": self.message_text,
            "timestamp": self.timestamp.isoformat(),
            "locale": self.locale,
            "threadId": self.thread_id,
            "attachments": [asdict(each) for each in self.attachments],
            "metadata": {**self.metadata, "lane": self.lane},
        }


@dataclass(frozen=True, slots=True)
class Update:
    """One event of a vendor, read. `external_id` stays the same when it comes
    again; `cursor` is where receiving goes on once this is kept."""

    external_id: str
    kind: str  # message | edit | action | home | canary | nothing | unreadable
    envelope: Envelope
    key: ConversationKey
    display: str = ""
    is_direct: bool = False
    is_addressed: bool = False
    #: What a pressed button says, such as "approve:<id>", and what to answer it by.
    action: str = ""
    answer_to: str = ""
    cursor: int | None = None


@dataclass(frozen=True, slots=True)
class Button:
    """A choice under a message. `value` is a verb and an id, nothing more."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be said where. The text is Markdown; the transport renders it."""

    key: ConversationKey
    text: str
    buttons: tuple[Button, ...] = ()

    def arguments(self) -> Json:
        """Shape: what the permit is bound to."""
        return {
            "chat": self.key.chat,
            "topic": self.key.topic,
            "reply_to": self.key.reply_to,
            "text": self.text,
            "buttons": [[each.label, each.value] for each in self.buttons],
        }


@dataclass(frozen=True, slots=True)
class SentRef:
    """What a vendor calls a message that was sent."""

    chat: str
    message_id: str


def _not_held() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One account as a transport sees it."""

    kind: str
    slug: str
    token: SecretStr
    settings: Json = field(default_factory=dict)
    cursor: int = 0
    #: Every command with what it does.
    menu: tuple[tuple[str, str], ...] = ()
    #: What the vendor calls our bot, once it told us.
    name: str = ""
    #: Where the vendor calls us; "" when we ask it.
    hook_url: str = ""
    #: How long nothing may be sent, because the vendor asked to wait. Seconds.
    held: Callable[[], float] = _not_held


@dataclass(frozen=True, slots=True)
class Proof:
    """That we hear: the vendor answered, or a pong came.

    `pending` is what it still keeps for us, None when it did not say.
    """

    pending: int | None = None
    name: str = ""


def check_hold(line: Line) -> None:
    """Send nothing before the vendor agrees.   Raises: UpstreamError, with when."""
    wait = line.held()
    if wait > 0:
        raise UpstreamError("The vendor asked to wait.", retry_after=wait)


#: Keeps one update in one transaction; raises when it could not.
Sink = Callable[[Update], object]
Stopping = Callable[[], bool]
Heard = Callable[[Proof], None]


class Transport(Protocol):
    """One vendor. Every method that sends spends its permit first.

    Raises: UpstreamError, with `retry_after` when the vendor said when;
    ChannelRefused for good; DeliveryUnknown when it may have arrived.
    """

    #: A draft is edited so often at most; None is never. Units: seconds.
    draft_seconds: float | None
    #: So many drafts a minute are shown in all the chats of an account together.
    drafts_a_minute: int

    def listen(self, line: Line, sink: Sink, stopping: Stopping, heard: Heard) -> None:
        """Bring updates until `stopping()`; call `heard` at each proof of hearing."""

    def fetch(self, line: Line, attachment: Attachment) -> Attachment:
        """Read what can be read of a file that a known sender attached."""

    def pieces(self, text: str) -> list[str]:
        """Cut a long Markdown text on sense, into what one message holds."""

    def pause(self, slug: str, chat: str) -> float:
        """Take the next place in an account's chat, or say how long there is none:
        nobody waits for it in the meantime. Units: seconds."""

    def send(self, line: Line, permit: Permit, message: Outgoing) -> SentRef: ...

    def edit(
        self, line: Line, permit: Permit, ref: SentRef, message: Outgoing
    ) -> None: ...

    def react(self, line: Line, permit: Permit, ref: SentRef, mark: str) -> None:
        """Put one mark on a message; "" takes ours away. Again: the same."""

    def answer(self, line: Line, permit: Permit, answer_to: str, text: str) -> None:
        """Tell who pressed a button what became of it, at once."""


@runtime_checkable
class HomeTab(Protocol):
    """A vendor that has a page of ours for each person."""

    def home(self, line: Line, permit: Permit, title: str, said: Json) -> None:
        """Draw it. Shape: `said` is user, and lines as pairs of a name and a text."""


class Registry:
    """The vendors that this install can speak to, loaded at first use."""

    def __init__(self) -> None:
        self._kinds: dict[str, str | Transport] = {}

    def register(self, kind: str, transport: "str | Transport") -> None:
        """Plug in a vendor, or the dotted name of its class.

        Again: the last one counts.
        """
        self._kinds[kind] = transport

    def get(self, kind: str) -> Transport:
        """Raises: ChannelRefused."""
        found = self._kinds.get(kind)
        if found is None:
            raise ChannelRefused(f"Nothing here speaks to {kind}.")
        if isinstance(found, str):
            made: Transport = import_string(found)()
            self._kinds[kind] = found = made
        return found

    def kinds(self) -> list[str]:
        return sorted(self._kinds)


transports = Registry()


class Hook(Protocol):
    """What a vendor that calls us by HTTP adds to its transport."""

    def check_age(self, headers: Mapping[str, str]) -> None:
        """Refuse what is old or has no shape, before a secret is opened.

        Raises: Forged.
        """

    def verify(self, line: Line, headers: Mapping[str, str], body: bytes) -> None:
        """Refuse what the vendor did not sign, before it is parsed. Raises: Forged."""

    def read(self, raw: Json, line: Line) -> Update | None:
        """Read one event; None says nothing to anybody.   Raises: ValueError."""


class Hooks:
    """The vendors that may call us."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def register(self, kind: str, dotted: str) -> None:
        """Plug in the dotted name of a class. Again: the last one counts."""
        self._kinds[kind] = dotted

    def find(self, kind: str) -> Hook | None:
        dotted = self._kinds.get(kind)
        if dotted is None:
            return None
        made: Hook = import_string(dotted)()
        return made


hooks = Hooks()


@dataclass(frozen=True, slots=True)
class PluggedCommand:
    """A slash command of a higher app. `do` gets who asks, where, and the rest of
    the line; it returns what to say, or raises what its service refuses."""

    name: str
    tier: str
    help: str
    do: Callable[[Principal, Workspace, str], str]


class Commands:
    """The slash commands that other apps add."""

    def __init__(self) -> None:
        self._plugged: dict[str, PluggedCommand] = {}

    def register(self, command: PluggedCommand) -> None:
        """Again: the last one counts."""
        self._plugged[command.name] = command

    def all(self) -> list[PluggedCommand]:
        return list(self._plugged.values())


plugged_commands = Commands()
