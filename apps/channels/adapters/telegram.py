"""Telegram, by python-telegram-bot's bare `Bot` behind the wall.

Every request goes through `common.egress`. A request that was never sent is an
`UpstreamError`; one that may have arrived is `DeliveryUnknown`. No message of an
error names the URL, which holds the token.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import httpx
from telegram import (
    Bot,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    ReplyParameters,
    User,
)
from telegram import Update as VendorUpdate
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)
from telegram.error import Conflict as TwoPollers
from telegram.request import BaseRequest, RequestData

from apps.channels.adapters import (
    files,
    telegram_door,
    telegram_events,
    telegram_text,
)
from apps.channels.errors import ChannelRefused, DeliveryUnknown
from apps.channels.ports import (
    Attachment,
    Heard,
    Json,
    Line,
    Outgoing,
    Proof,
    SentRef,
    Sink,
    Stopping,
    Update,
)
from apps.common import clock, egress
from apps.common.errors import PolarError, UpstreamError
from apps.gateway.ports import Permit

API_URL: Final = "https://api.telegram.org"
#: How long the vendor holds an empty poll. Units: seconds.
POLL_SECONDS: Final = 8
TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
MOST_UPDATES: Final = 100
#: How often a webhook is looked after. Units: seconds.
STAND_BY_SECONDS: Final = 20
#: A failed call of the vendor's counts so long.
FAILED_WITHIN: Final = timedelta(seconds=90)
HEARD: Final = ["message", "edited_message", "callback_query"]
#: The vendor takes reactions from its own list alone.
MARKS: Final = {"⏳": "🤔", "✅": "👍", "❌": "👎"}
#: What the library raises of a shape that it does not know.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
)
#: Said where a text has nothing that would be seen.
NOTHING_SEEN: Final = "(nothing to show)"
#: Their logs quote URLs.
for _name in ("httpx", "httpcore", "telegram"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

Answer = TypeVar("Answer")


class GuardedRequest(BaseRequest):
    """The library's requests, through the one way out."""

    def __init__(self, local: frozenset[str]) -> None:
        self._client = egress.client(local=local, timeout=TIMEOUT)
        #: Whether the request at hand left this machine.
        self.was_sent = False
        self.refusal: PolarError | None = None

    @property
    def read_timeout(self) -> float | None:
        return TIMEOUT.read

    async def initialize(self) -> None:
        """Nothing: the client is open."""

    async def shutdown(self) -> None:
        self._client.close()

    async def do_request(  # noqa: PLR0913 (the library's signature)
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Any = None,
        write_timeout: Any = None,
        connect_timeout: Any = None,
        pool_timeout: Any = None,
    ) -> tuple[int, bytes]:
        """Send one request. The loop is this call's own, so it may block."""
        self.was_sent = False
        try:
            answer = self._client.request(
                method, url, data=request_data.json_parameters if request_data else None
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            raise NetworkError("Telegram could not be reached") from None
        except PolarError as refused:
            self.refusal = refused
            raise NetworkError("the wall refused") from None
        except httpx.HTTPError as error:
            self.was_sent = True
            raise NetworkError(f"no answer: {type(error).__name__}") from None
        self.was_sent = True
        return answer.status_code, answer.content


class TelegramTransport:
    """See `ports.Transport`."""

    draft_seconds: float | None = 3.0
    drafts_a_minute = 600

    def listen(self, line: Line, sink: Sink, stopping: Stopping, heard: Heard) -> None:
        me = _ask(line, lambda bot: bot.get_me())
        _ask(line, lambda bot: bot.set_my_commands(line.menu))
        name = me.username or ""
        if line.hook_url:
            _stand_by(line, name, stopping, heard)
        else:
            _poll(line, me, sink, stopping, heard)

    def check_age(self, headers: Mapping[str, str]) -> None:
        """Refuse what carries no secret, before the token is opened."""
        telegram_door.check_shape(headers)

    def verify(self, line: Line, headers: Mapping[str, str], body: bytes) -> None:
        telegram_door.check_secret(headers, line.token.reveal())

    def read(self, raw: Json, line: Line) -> Update | None:
        """Read one update that Telegram called us with.   Raises: ValueError."""
        number = raw.get("update_id")
        if not isinstance(number, int):
            raise ValueError("an update without a number")
        bot_id = line.token.reveal().split(":")[0]
        me = User(int(bot_id), line.name, is_bot=True, username=line.name or None)
        # Here the cursor means nothing: the vendor keeps its own.
        return replace(read_one(raw, me), cursor=None)

    def fetch(self, line: Line, attachment: Attachment) -> Attachment:
        """Read a small text file; of anything else say why it was not read."""

        async def load(bot: Bot) -> bytes:
            found = await bot.get_file(attachment.reference)
            return bytes(await found.download_as_bytearray())

        return files.read(attachment, lambda: _ask(line, load))

    def pieces(self, text: str) -> list[str]:
        return telegram_text.split(text)

    def pause(self, slug: str, chat: str) -> float:
        """None: Telegram says when to wait, and bears short bursts."""
        return 0.0

    def send(self, line: Line, permit: Permit, message: Outgoing) -> SentRef:
        permit.spend(message.arguments())
        sent = _as_html_or_plain(
            message,
            lambda said: _ask(
                line,
                lambda bot: bot.send_message(**_where(message), **said),
                effect=True,
            ),
        )
        return SentRef(message.key.chat, str(sent.message_id))

    def edit(self, line: Line, permit: Permit, ref: SentRef, message: Outgoing) -> None:
        permit.spend(message.arguments())
        place: Json = {"chat_id": int(ref.chat), "message_id": int(ref.message_id)}
        try:
            _as_html_or_plain(
                message,
                lambda said: _ask(
                    line, lambda bot: bot.edit_message_text(**place, **said)
                ),
            )
        except ChannelRefused as error:
            if "not modified" not in error.detail:
                raise

    def react(self, line: Line, permit: Permit, ref: SentRef, mark: str) -> None:
        permit.spend({"chat": ref.chat, "message_id": ref.message_id, "mark": mark})
        _ask(
            line,
            lambda bot: bot.set_message_reaction(
                chat_id=int(ref.chat),
                message_id=int(ref.message_id),
                reaction=[MARKS.get(mark, mark)] if mark else [],
            ),
        )

    def answer(self, line: Line, permit: Permit, answer_to: str, text: str) -> None:
        permit.spend({"answer_to": answer_to, "text": text})
        _ask(line, lambda bot: bot.answer_callback_query(answer_to, text=text[:200]))


def _poll(line: Line, me: User, sink: Sink, stopping: Stopping, heard: Heard) -> None:
    """Ask for updates, and again. A webhook that was set before is taken off."""
    waiting = _ask(line, lambda bot: bot.get_webhook_info())
    if waiting.url:
        _ask(line, lambda bot: bot.delete_webhook())
    heard(Proof(waiting.pending_update_count, me.username or ""))
    cursor = line.cursor
    while not stopping():
        updates = _ask(line, partial(_fetch, after=cursor))
        # What is left behind a full batch is not known until the next answer.
        heard(Proof(None if len(updates) >= MOST_UPDATES else 0))
        for raw in updates:
            number = raw.get("update_id")
            if isinstance(number, int):
                sink(read_one(raw, me))
                # After a week of silence Telegram numbers anew, from anywhere: what
                # comes below the place that we asked for is next all the same.
                cursor = number + 1


async def _fetch(bot: Bot, after: int) -> list[Json]:
    """Fetch updates as they came. The library's own `get_updates` reads a batch as a
    whole, fails when one of them has a shape that it does not know, and logs it."""
    asked = {
        "timeout": POLL_SECONDS,
        "allowed_updates": HEARD,
        "limit": MOST_UPDATES,
        **({"offset": after} if after else {}),
    }
    found = await bot._post("getUpdates", asked)
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, dict)]


def read_one(raw: Json, me: User) -> Update:
    """Read one update; of one that nobody can read, keep the place."""
    try:
        found = VendorUpdate.de_json(raw, None)
        return telegram_events.read(found, me)
    except UNREADABLE as error:
        number = int(raw["update_id"])
        problem = f"{type(error).__name__}: {error}"[:200]
        return telegram_events.unreadable(number, problem)


def _stand_by(line: Line, name: str, stopping: Stopping, heard: Heard) -> None:
    """Let Telegram call us, and ask whether it gets through.

    That it knows our address proves nothing; that it has nothing left for us, or
    that its last try did not fail, does.
    """
    secret = telegram_door.secret_of(line.token.reveal())
    _ask(
        line,
        lambda bot: bot.set_webhook(
            line.hook_url,
            secret_token=secret,
            allowed_updates=HEARD,
            max_connections=1,
        ),
    )
    while not stopping():
        told = _ask(line, lambda bot: bot.get_webhook_info())
        if told.url != line.hook_url:
            raise UpstreamError("Somebody else took Telegram's webhook.")
        failed = told.last_error_date
        is_stuck = told.pending_update_count > 0
        if is_stuck and failed and clock.now() - failed < FAILED_WITHIN:
            said = (told.last_error_message or "no reason given")[:200]
            raise UpstreamError(f"Telegram does not get through to us: {said}")
        heard(Proof(told.pending_update_count, name))
        for _ in range(STAND_BY_SECONDS):
            if stopping():
                return
            clock.sleep(1.0)


def _where(message: Outgoing) -> Json:
    where: Json = {"chat_id": int(message.key.chat)}
    if message.key.topic:
        where["message_thread_id"] = int(message.key.topic)
    if message.key.reply_to:
        where["reply_parameters"] = ReplyParameters(
            int(message.key.reply_to), allow_sending_without_reply=True
        )
    return where


def _as_html_or_plain(message: Outgoing, say: Callable[[Json], Answer]) -> Answer:
    """Say a text as HTML; refused for what it looks like, it goes out as it stands."""
    shown = telegram_text.render(message.text)
    said: Json = {
        "text": shown if telegram_text.is_seen(message.text) else NOTHING_SEEN,
        "link_preview_options": LinkPreviewOptions(is_disabled=True),
        "reply_markup": _keyboard(message),
    }
    try:
        return say(said | {"parse_mode": "HTML"})
    except ChannelRefused as error:
        if "parse entities" not in error.detail:
            raise
    return say(said | {"text": message.text})


def _keyboard(message: Outgoing) -> InlineKeyboardMarkup | None:
    if not message.buttons:
        return None
    row = [
        InlineKeyboardButton(each.label, callback_data=each.value)
        for each in message.buttons
    ]
    return InlineKeyboardMarkup([row])


def _ask(
    line: Line,
    ask: Callable[[Bot], Coroutine[Any, Any, Answer]],
    *,
    effect: bool = False,
) -> Answer:
    """Call one method of the vendor once. With `effect` a lost answer is unknown."""
    request = GuardedRequest(frozenset(line.settings.get("local", ())))
    url = str(line.settings.get("api_url") or API_URL)
    bot = Bot(
        line.token.reveal(),
        base_url=f"{url}/bot",
        base_file_url=f"{url}/file/bot",
        request=request,
        get_updates_request=request,
    )

    async def once() -> Answer:
        try:
            return await ask(bot)
        finally:
            await request.shutdown()

    try:
        return asyncio.run(once())
    except TelegramError as error:
        raise _as_ours(error, request, effect=effect) from None


def _as_ours(
    error: TelegramError, request: GuardedRequest, *, effect: bool
) -> PolarError:
    if request.refusal is not None:
        return request.refusal
    said = error.message
    if isinstance(error, RetryAfter):
        wait = error.retry_after
        seconds = wait.total_seconds() if isinstance(wait, timedelta) else float(wait)
        return UpstreamError("Telegram asks to wait.", retry_after=seconds)
    if isinstance(error, InvalidToken):
        return ChannelRefused("Telegram does not know this token.", revoked=True)
    if isinstance(error, TwoPollers):
        return UpstreamError(f"Somebody else receives for this bot: {said}")
    if isinstance(error, ChatMigrated):
        moved = str(error.new_chat_id)
        return ChannelRefused(f"The group is {moved} now.", moved_to=moved)
    if isinstance(error, BadRequest | Forbidden):
        return ChannelRefused(f"Telegram refused: {said}")
    if effect and request.was_sent:
        return DeliveryUnknown(f"Telegram did not confirm: {said}", permanent=True)
    return UpstreamError(f"Telegram failed: {said}")
