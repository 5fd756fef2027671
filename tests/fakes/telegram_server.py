"""A loopback server that speaks Telegram's Bot API; the vendor's library reads it.

What comes in and what goes out must have the published shape (`shapes`); a request
that Telegram would refuse is refused with Telegram's words: text that is no HTML of
its kind, too long or empty, a reaction that it does not know, a button that is too
long, an edit of what was never sent. `telegram_server` fails when a shape differs.
Source: https://core.telegram.org/bots/api
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from telegram.constants import ReactionEmoji

from tests.fakes import shapes
from tests.fakes.telegram_html import problem_of

TOKEN = "12345678:test-token-of-a-fake-bot-000000000000"  # noqa: S105 (a fake)
#: Planned failures are for the calls that matter.
QUIET = ("getMe", "setMyCommands", "getWebhookInfo", "deleteWebhook")
ME = {
    "id": 99,
    "is_bot": True,
    "first_name": "Polar",
    "username": "polar_test_bot",
}
REACTIONS = frozenset(each.value for each in ReactionEmoji)
#: What a button may carry. Units: bytes.
LONGEST_DATA = 64
#: What stands beside a pressed button. Units: characters.
LONGEST_NOTE = 200
#: What each method answers, by the published name.
ANSWERS = {
    "getMe": "User",
    "getUpdates": "Update",
    "getWebhookInfo": "WebhookInfo",
    "sendMessage": "Message",
    "editMessageText": "Message",
    "getFile": "File",
}


class Refused(Exception):
    """What Telegram refuses, in its words."""


class FakeTelegram(ThreadingHTTPServer):
    """One bot and what people wrote to it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.updates: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.files: dict[str, bytes] = {}
        #: Answers to come instead of the next ones: 429 | 400 | 401 | 500 | "cut".
        self.next: list[int | str] = []
        self.sent = 100
        #: What setWebhook was told, and what getWebhookInfo adds.
        self.hook: dict[str, str] = {}
        self.hook_trouble: dict[str, Any] = {}
        self.polled = threading.Event()
        #: How long an empty poll is held, as Telegram does. Units: seconds.
        self.holds = 0.0
        #: The messages that stand in chats: (chat, message) → (text, buttons).
        self.standing: dict[tuple[str, str], tuple[str, str]] = {}
        #: Groups that became others: the old id, and the new one.
        self.moved: dict[str, int] = {}
        #: It numbers anew, and answers a place that it does not know from the start.
        self.forgets = False
        #: Where a request or an answer differs from what is published.
        self.misfits: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "api_url": self.url,
            "local": [f"127.0.0.1:{self.server_address[1]}"],
        }

    def said(self) -> list[dict[str, str]]:
        return self.asked("sendMessage")

    def asked(self, method: str) -> list[dict[str, str]]:
        """What a method was called with, in order."""
        return [form for name, form in self.calls if name == method]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some modes are for."""


def message(update_id: int, text: str, **more: Any) -> dict[str, Any]:
    """What a person wrote to the bot directly."""
    user = more.pop("user", 7)
    chat = more.pop("chat", {"id": user, "type": "private"})
    kind = more.pop("kind", "message")
    sender = {"id": user, "is_bot": False, "first_name": f"P{user}"}
    body = {
        "message_id": update_id + 1000,
        "date": 1_790_000_000,
        "chat": chat,
        "from": {**sender, "language_code": "en"},
        "text": text,
        **more,
    }
    found = {"update_id": update_id, kind: body}
    shapes.fitting("telegram", "$defs", "Update", value=found)
    return found


def press(update_id: int, user: int, data: str, message_id: int) -> dict[str, Any]:
    """A pressed button under one of the bot's messages."""
    found = {
        "update_id": update_id,
        "callback_query": {
            "id": f"q{update_id}",
            "from": {"id": user, "is_bot": False, "first_name": f"P{user}"},
            "chat_instance": "1",
            "data": data,
            "message": {
                "message_id": message_id,
                "date": 1_790_000_000,
                "chat": {"id": user, "type": "private"},
                "from": ME,
                "text": "?",
            },
        },
    }
    shapes.fitting("telegram", "$defs", "Update", value=found)
    return found


@contextmanager
def telegram_server() -> Iterator[FakeTelegram]:
    """Run a fake bot API for the length of a test."""
    server = FakeTelegram()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert server.misfits == [], server.misfits


class _Handler(BaseHTTPRequestHandler):
    server: FakeTelegram
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self._raw(200, self.server.files.get(name, b""), "application/octet-stream")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        bot, method = self.path.rsplit("/", 2)[-2:]
        if bot != f"bot{TOKEN}":
            return self._fail(401, "Unauthorized")
        self.server.calls.append((method, form))
        if self.server.next and method not in QUIET:
            wrong = self.server.next.pop(0)
            if wrong == "cut":
                self.close_connection = True
                self.connection.close()
                return None
            more = {"parameters": {"retry_after": 30}} if wrong == 429 else {}
            return self._fail(int(wrong), f"error {wrong}", **more)
        if moved := self.server.moved.get(form.get("chat_id", "")):
            words = "Bad Request: group chat was upgraded to a supergroup chat"
            return self._fail(400, words, parameters={"migrate_to_chat_id": moved})
        try:
            self._look_at(method, form)
            result = getattr(self, f"_{method}")(form)
        except Refused as refused:
            return self._fail(400, f"Bad Request: {refused}")
        self._look_at_answer(method, result)
        return self._ok(result)

    def _look_at(self, method: str, form: dict[str, str]) -> None:
        """Compare a request with the published parameters of its method."""
        known = shapes.published("telegram")["methods"].get(method)
        if known is None:
            raise Refused("method not found")
        given = {name: _decoded(known, name, said) for name, said in form.items()}
        self.server.misfits += shapes.misfits(
            "telegram", "methods", method, value=given
        )

    def _look_at_answer(self, method: str, result: Any) -> None:
        """Compare an answer of ours with what the method is published to answer.

        What a test puts into `updates` is its own affair: the builders look at it.
        """
        kind = ANSWERS.get(method)
        if kind is not None and kind != "Update":
            self.server.misfits += shapes.misfits(
                "telegram", "$defs", kind, value=result
            )

    def _getMe(self, form: dict[str, str]) -> Any:  # noqa: N802 (the vendor's name)
        return {**ME, "can_join_groups": True, "can_read_all_group_messages": False}

    def _setMyCommands(self, form: dict[str, str]) -> Any:  # noqa: N802
        return True

    def _getWebhookInfo(self, form: dict[str, str]) -> Any:  # noqa: N802
        waiting = len(self.server.updates) if self.server.hook else 0
        return {
            "url": self.server.hook.get("url", ""),
            "has_custom_certificate": False,
            "pending_update_count": waiting,
            **self.server.hook_trouble,
        }

    def _setWebhook(self, form: dict[str, str]) -> Any:  # noqa: N802
        self.server.hook = form
        return True

    def _deleteWebhook(self, form: dict[str, str]) -> Any:  # noqa: N802
        self.server.hook = {}
        return True

    def _getUpdates(self, form: dict[str, str]) -> Any:  # noqa: N802
        offset = int(form.get("offset", 0))
        self.server.polled.set()
        numbers = [u["update_id"] for u in self.server.updates]
        if self.server.forgets and offset > max(numbers, default=0) + 1:
            offset = 0
        waiting = [u for u in self.server.updates if u["update_id"] >= offset]
        if not waiting and self.server.holds:
            time.sleep(self.server.holds)
        return waiting[:100]

    def _sendMessage(self, form: dict[str, str]) -> Any:  # noqa: N802
        self._check_text(form)
        self.server.sent += 1
        return self._stand(self.server.sent, form)

    def _editMessageText(self, form: dict[str, str]) -> Any:  # noqa: N802
        standing = self.server.standing.get((form["chat_id"], form["message_id"]))
        if standing is None:
            raise Refused("message to edit not found")
        self._check_text(form)
        if standing == (form["text"], form.get("reply_markup", "")):
            raise Refused("message is not modified: it is the same already")
        return self._stand(int(form["message_id"]), form)

    def _check_text(self, form: dict[str, str]) -> None:
        problem = problem_of(form["text"], form.get("parse_mode", ""))
        if problem:
            raise Refused(problem)
        markup = json.loads(form.get("reply_markup", "{}"))
        for row in markup.get("inline_keyboard", ()):
            for button in row:
                if not 1 <= len(button["callback_data"].encode()) <= LONGEST_DATA:
                    raise Refused("BUTTON_DATA_INVALID")

    def _stand(self, message_id: int, form: dict[str, str]) -> Any:
        at = (form["chat_id"], str(message_id))
        self.server.standing[at] = (form["text"], form.get("reply_markup", ""))
        return self._message(message_id, form)

    def _setMessageReaction(self, form: dict[str, str]) -> Any:  # noqa: N802
        for each in json.loads(form.get("reaction", "[]")):
            self.server.misfits += shapes.misfits(
                "telegram", "$defs", "ReactionTypeEmoji", value=each
            )
            if each["emoji"] not in REACTIONS:
                raise Refused("REACTION_INVALID")
        return True

    def _answerCallbackQuery(self, form: dict[str, str]) -> Any:  # noqa: N802
        if len(form.get("text", "")) > LONGEST_NOTE:
            raise Refused("MESSAGE_TOO_LONG")
        return True

    def _getFile(self, form: dict[str, str]) -> Any:  # noqa: N802
        name = form["file_id"]
        return {"file_id": name, "file_unique_id": name, "file_path": name}

    def _message(self, message_id: int, form: dict[str, str]) -> Any:
        return {
            "message_id": message_id,
            "date": 1_790_000_000,
            "chat": {"id": int(form["chat_id"]), "type": "private"},
            "from": ME,
            "text": form["text"],
        }

    def _ok(self, result: Any) -> None:
        self._json(200, {"ok": True, "result": result})

    def _fail(self, code: int, description: str, **more: Any) -> None:
        answer = {"ok": False, "error_code": code, "description": description, **more}
        self._json(code, answer)

    def _json(self, code: int, answer: Any) -> None:
        self._raw(code, json.dumps(answer).encode(), "application/json")

    def _raw(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _decoded(known: dict[str, Any], name: str, said: str) -> Any:
    """Read a form's value as the published type of its parameter."""
    schema = known["properties"].get(name, {})
    kind = schema.get("type")
    if kind in ("integer", "boolean", "array", "object") or "$ref" in schema:
        return json.loads(said)
    # A number or a name, or one of several objects.
    return json.loads(said) if said[:1] in "{[" or _is_number(schema, said) else said


def _is_number(schema: dict[str, Any], said: str) -> bool:
    kinds = {each.get("type") for each in schema.get("anyOf", ())}
    return "integer" in kinds and said.lstrip("-").isdigit()
