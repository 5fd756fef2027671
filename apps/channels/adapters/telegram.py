"""Telegram, by python-telegram-bot's bare `Bot` behind the wall.

Every request goes through `common.egress`. A request that was never sent is an
`UpstreamError`; one that may have arrived is `DeliveryUnknown`. No message of an
error names the URL, which holds the token.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
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
from telegram.error import (
    BadRequest,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
)
from telegram.error import Conflict as TwoPollers
from telegram.request import BaseRequest, RequestData

from apps.channels.adapters import telegram_events, telegram_text
from apps.channels.errors import ChannelRefused, DeliveryUnknown
from apps.channels.ports import (
    Attachment,
    Json,
    Line,
    Outgoing,
    SentRef,
    Sink,
    Stopping,
)
from apps.common import egress
from apps.common.errors import PolarError, UpstreamError
from apps.gateway.ports import Permit

API_URL: Final = "https://api.telegram.org"
#: How long the vendor holds an empty poll. Units: seconds.
POLL_SECONDS: Final = 8
TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
HEARD: Final = ["message", "edited_message", "callback_query"]
#: Larger files are not read. Units: bytes.
LARGEST_FILE: Final = 262_144
READABLE: Final = ("text/", "application/json", "application/xml", "application/x-yaml")
#: The vendor takes reactions from its own list alone.
MARKS: Final = {"⏳": "🤔", "✅": "👍", "❌": "👎"}
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

    def listen(
        self, line: Line, sink: Sink, stopping: Stopping, heard: Callable[[], None]
    ) -> None:
        me = self._introduce(line)
        heard()
        cursor = line.cursor
        while not stopping():
            after = cursor
            updates = _ask(
                line,
                lambda bot, after=after: bot.get_updates(  # type: ignore[misc]
                    offset=after or None,
                    timeout=timedelta(seconds=POLL_SECONDS),
                    allowed_updates=HEARD,
                ),
            )
            heard()
            for raw in updates:
                update = telegram_events.read(raw, me)
                sink(update)
                cursor = max(cursor, raw.update_id + 1)

    def _introduce(self, line: Line) -> User:
        """Learn our own name, and put the commands into the vendor's menu."""
        me: User = _ask(line, lambda bot: bot.get_me())
        _ask(line, lambda bot: bot.set_my_commands(line.menu))
        return me

    def fetch(self, line: Line, attachment: Attachment) -> Attachment:
        """Read a small text file; of anything else say why it was not read."""
        if not attachment.mimetype.startswith(READABLE):
            return attachment
        if not 0 < attachment.size <= LARGEST_FILE:
            return replace(attachment, problem=f"larger than {LARGEST_FILE} bytes")

        async def load(bot: Bot) -> bytes:
            found = await bot.get_file(attachment.reference)
            return bytes(await found.download_as_bytearray())

        try:
            raw = _ask(line, load)
        except UpstreamError as error:
            return replace(attachment, problem=error.detail[:200])
        if len(raw) > LARGEST_FILE:
            return replace(attachment, problem=f"larger than {LARGEST_FILE} bytes")
        return replace(attachment, text=raw.decode("utf-8", "replace"))

    def pieces(self, text: str) -> list[str]:
        return telegram_text.split(text)

    def send(self, line: Line, permit: Permit, message: Outgoing) -> SentRef:
        permit.spend(message.arguments())
        sent = _ask(line, lambda bot: bot.send_message(**_said(message)), effect=True)
        return SentRef(message.key.chat, str(sent.message_id))

    def edit(self, line: Line, permit: Permit, ref: SentRef, message: Outgoing) -> None:
        permit.spend(message.arguments())
        try:
            _ask(
                line,
                lambda bot: bot.edit_message_text(
                    chat_id=int(ref.chat),
                    message_id=int(ref.message_id),
                    text=telegram_text.render(message.text),
                    parse_mode="HTML",
                    reply_markup=_keyboard(message),
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


def _said(message: Outgoing) -> Json:
    said: Json = {
        "chat_id": int(message.key.chat),
        "text": telegram_text.render(message.text),
        "parse_mode": "HTML",
        "link_preview_options": LinkPreviewOptions(is_disabled=True),
        "reply_markup": _keyboard(message),
    }
    if message.key.topic:
        said["message_thread_id"] = int(message.key.topic)
    if message.key.reply_to:
        said["reply_parameters"] = ReplyParameters(
            int(message.key.reply_to), allow_sending_without_reply=True
        )
    return said


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
        return ChannelRefused("Telegram does not know this token.")
    if isinstance(error, TwoPollers):
        return UpstreamError(f"Somebody else receives for this bot: {said}")
    if isinstance(error, BadRequest | Forbidden):
        return ChannelRefused(f"Telegram refused: {said}")
    if effect and request.was_sent:
        return DeliveryUnknown(f"Telegram did not confirm: {said}", permanent=True)
    return UpstreamError(f"Telegram failed: {said}")
