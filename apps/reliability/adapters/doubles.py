"""Vendors on loopback, played for a rehearsal: a model server, a bot's API, a log
host and a tool server. Each speaks its vendor's wire over a real socket, so that the
clone's own clients, time-outs and errors are what is rehearsed.
"""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from apps.common import clock
from apps.reliability.errors import DrillFailed

HOST = "127.0.0.1"
Manner = dict[str, Any]


@dataclass(slots=True)
class Said:
    """What a double answers. A body that is a list is sent as a stream of events."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Asked:
    """What a double was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body or b"{}"))


Answer = Callable[["Double", Asked], Said]


class Double:
    """One vendor on one port. Cut, it refuses every connection; mended, it is back."""

    def __init__(self, kind: str, port: int) -> None:
        if kind not in KINDS:
            raise DrillFailed(f"No double plays {kind!r}: {', '.join(KINDS)}.")
        self.place = f"{HOST}:{port}"
        self.heard: list[dict[str, Any]] = []
        self.manner: Manner = {}
        self._answer, self._port = KINDS[kind], port
        #: Held by answers that count.
        self.lock = threading.Lock()
        self._server: _Server | None = None
        self.mend()

    def answer(self, asked: Asked) -> Said:
        return self._answer(self, asked)

    def cut(self) -> None:
        """Hang up on everybody and listen no more. Again: nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.hang_up()
            server.server_close()

    def mend(self) -> None:
        """Listen again. Again: nothing."""
        if self._server is None:
            self._server = _Server(self, self._port)
            serve = self._server.serve_forever
            threading.Thread(target=serve, args=(0.05,), daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, double: Double, port: int) -> None:
        self.double = double
        self._open: set[socket.socket] = set()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise DrillFailed(f"Port {port} cannot be played on: {error}") from error

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what drills are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:  # noqa: N802 (the library's name)
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length)
        asked = Asked(self.command, self.path, headers, body)
        said = self.server.double.answer(asked)
        self._say(said)

    do_GET = do_DELETE = do_POST  # noqa: N815

    def _say(self, said: Said) -> None:
        if isinstance(said.body, list):
            events = [f"data: {json.dumps(each)}\n\n" for each in said.body]
            raw = "".join([*events, "data: [DONE]\n\n"]).encode()
            kind = "text/event-stream"
        else:
            raw = b"" if said.body is None else json.dumps(said.body).encode()
            kind = "application/json"
        self.send_response(said.status)
        for name, value in {"Content-Type": kind, **said.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


# --- A model server: OpenAI's chat completions


def _models(double: Double, asked: Asked) -> Said:
    """Manner: reply, key (any other is refused)."""
    key = double.manner.get("key")
    if key and asked.headers.get("authorization") != f"Bearer {key}":
        return Said({"error": {"message": "no such key"}}, 401)
    if asked.method == "GET":
        return Said({"data": [{"id": "drill"}]})
    double.heard.append(asked.json())
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return Said(
        [
            _piece({"content": double.manner.get("reply", "Here.")}, None),
            _piece({}, "stop"),
            {**_piece({}, None), "choices": [], "usage": usage},
        ]
    )


def _piece(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", **delta}}
    return {
        "id": "drill",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "drill",
        "choices": [{**choice, "finish_reason": finish}],
    }


# --- A bot's API: Telegram


def _bot(double: Double, asked: Asked) -> Said:
    """Manner: updates (what people wrote), token (any other is refused)."""
    bot, method = asked.path.rsplit("/", 2)[-2:]
    if bot != f"bot{double.manner.get('token')}":
        return Said({"ok": False, "error_code": 401, "description": "no"}, 401)
    form = {name: rows[0] for name, rows in parse_qs(asked.body.decode()).items()}
    if method == "getUpdates":
        return Said({"ok": True, "result": _updates(double, form)})
    if method == "sendMessage":
        double.heard.append(form)
        return Said({"ok": True, "result": _message(len(double.heard), form)})
    if method == "editMessageText":
        double.heard.append(form)
        return Said({"ok": True, "result": _message(int(form["message_id"]), form)})
    return Said({"ok": True, "result": _QUIET.get(method, True)})


def _updates(double: Double, form: dict[str, str]) -> list[dict[str, Any]]:
    after = int(form.get("offset", 0))
    waiting = [u for u in double.manner.get("updates", ()) if u["update_id"] >= after]
    if not waiting:
        clock.sleep(0.2)
    return waiting[:100]


def _message(number: int, form: dict[str, str]) -> dict[str, Any]:
    chat = {"id": int(form["chat_id"]), "type": "private"}
    return {"message_id": number, "date": 1, "chat": chat, "text": form["text"]}


_QUIET: dict[str, Any] = {
    "getMe": {
        "id": 99,
        "is_bot": True,
        "first_name": "Drill",
        "username": "drill_bot",
        "can_join_groups": True,
        "can_read_all_group_messages": False,
    },
    "getWebhookInfo": {
        "url": "",
        "has_custom_certificate": False,
        "pending_update_count": 0,
    },
}


# --- A log host


def _log(double: Double, asked: Asked) -> Said:
    """Counts for itself and refuses a gap. Manner: claims, a number that it says it
    holds though nobody sent it."""
    with double.lock:
        held = max(len(double.heard) - 1, int(double.manner.get("claims", -1)))
        if asked.method == "GET":
            return Said({"lastContiguousSeq": held})
        if int(asked.headers["polar-first-seq"]) != held + 1:
            return Said({"lastContiguousSeq": held}, 409)
        lines = [json.loads(line) for line in asked.body.splitlines()]
        double.heard += lines
        return Said({"lastContiguousSeq": held + len(lines)})


# --- A tool server: MCP over HTTP


def _tools(double: Double, asked: Asked) -> Said:
    """Manner: description (of its one tool), seconds (that a call takes)."""
    if asked.method != "POST":
        return Said(None, 405)
    request = asked.json()
    method, number = request.get("method", ""), request.get("id")
    if number is None:
        return Said(None, 202)
    if method == "tools/call":
        double.heard.append(request["params"])
    result = _tool_answer(double, method, request)
    if result is None:
        error = {"code": -32601, "message": "not here"}
        return Said({"jsonrpc": "2.0", "id": number, "error": error})
    return Said({"jsonrpc": "2.0", "id": number, "result": result})


def _tool_answer(
    double: Double, method: str, request: dict[str, Any]
) -> dict[str, Any] | None:
    if method == "initialize":
        return {
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "drill", "version": "1"},
        }
    if method == "tools/list":
        tool = {
            "name": "look",
            "description": double.manner.get("description", "Look something up."),
            "inputSchema": {"type": "object", "properties": {}},
            "annotations": {"readOnlyHint": True},
        }
        return {"tools": [tool]}
    if method == "tools/call":
        clock.sleep(float(double.manner.get("seconds", 0)))
        return {"content": [{"type": "text", "text": "Seen."}], "isError": False}
    return {} if method == "ping" else None


KINDS: dict[str, Answer] = {
    "models": _models,
    "bot": _bot,
    "log": _log,
    "tools": _tools,
}
