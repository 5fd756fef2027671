"""A loopback server that speaks Telegram's Bot API; the vendor's library reads it.

Every answer is parsed by python-telegram-bot into its typed objects, so a shape
that the library does not know shows as a failing test.
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

TOKEN = "12345678:test-token-of-a-fake-bot-000000000000"  # noqa: S105 (a fake)
#: Planned failures are for the calls that matter.
QUIET = ("getMe", "setMyCommands", "getWebhookInfo", "deleteWebhook")
ME = {
    "id": 99,
    "is_bot": True,
    "first_name": "Polar",
    "username": "polar_test_bot",
}


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
        return [form for name, form in self.calls if name == "sendMessage"]

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
    return {"update_id": update_id, kind: body}


def press(update_id: int, user: int, data: str, message_id: int) -> dict[str, Any]:
    """A pressed button under one of the bot's messages."""
    return {
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
        return self._ok(getattr(self, f"_{method}")(form))

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
        waiting = [u for u in self.server.updates if u["update_id"] >= offset]
        if not waiting and self.server.holds:
            time.sleep(self.server.holds)
        return waiting[:100]

    def _sendMessage(self, form: dict[str, str]) -> Any:  # noqa: N802
        self.server.sent += 1
        return self._message(self.server.sent, form)

    def _editMessageText(self, form: dict[str, str]) -> Any:  # noqa: N802
        return self._message(int(form["message_id"]), form)

    def _setMessageReaction(self, form: dict[str, str]) -> Any:  # noqa: N802
        return True

    def _answerCallbackQuery(self, form: dict[str, str]) -> Any:  # noqa: N802
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
