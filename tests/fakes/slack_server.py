"""A loopback Slack: the Web API, Socket Mode, and signed requests.

Speaks what slack_sdk and slack_bolt speak (tests/channels/test_fake_slack.py lets
those libraries talk to it). What comes in and what goes out must have the shape that
Slack publishes (`shapes`), and blocks must pass slack_sdk's own limits: `slack_server`
fails when one does not. As Slack does, it refuses unknown methods and tokens, and
reads no JSON where a method only reads. On demand it answers 429, an error, garbage,
or hangs up after taking a message.
"""

import hashlib
import hmac
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block
from websockets.exceptions import WebSocketException
from websockets.sync.server import ServerConnection, serve

from tests.fakes import shapes

#: These read their arguments from the query or a form, never from JSON.
#: Source: https://docs.slack.dev/apis/web-api#methods_supporting_json
READ_ONLY = ("conversations.history", "conversations.replies", "reactions.get")
#: Longer texts are refused. Units: characters.
LONGEST_POST, LONGEST_UPDATE = 40_000, 4_000
BLOCKS = {
    "section": "SectionBlock",
    "actions": "ActionsBlock",
    "header": "HeaderBlock",
    "context": "ContextBlock",
}

BOT_TOKEN = "xoxb-fake-bot"
APP_TOKEN = "xapp-fake-app"
SIGNING_SECRET = "fake-signing-secret"
TEAM, BOT_USER, BOT_ID, APP = "T0TEAM", "U0BOT", "B0BOT", "A0APP"


class FakeSlack(ThreadingHTTPServer):
    """One workspace of Slack on a port of its own."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.calls: list[tuple[str, dict[str, Any], float]] = []
        self.messages: dict[tuple[str, str], dict[str, Any]] = {}
        self.reactions: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.reaction_log: list[str] = []
        self.homes: dict[str, Any] = {}
        self.responses: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        #: Answers to give instead, by method: (status, headers, body), used up.
        self.planned: dict[str, list[tuple[int, dict[str, str], Any]]] = {}
        #: Methods that do their work and then hang up without an answer.
        self.hang_up: list[str] = []
        self.revoked = False
        #: Where a request or an answer differs from what is published.
        self.misfits: list[str] = []
        self.acknowledged: list[dict[str, Any]] = []
        self.sockets: list[ServerConnection] = []
        self._ts = itertools.count(1)
        self.socket_server = serve(
            self._socket, "127.0.0.1", 0, ping_interval=None, compression=None
        )

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def api_url(self) -> str:
        return self.root + "/api/"

    @property
    def socket_port(self) -> int:
        return int(self.socket_server.socket.getsockname()[1])

    @property
    def local(self) -> frozenset[str]:
        ports = (self.server_address[1], self.socket_port)
        return frozenset(f"127.0.0.1:{port}" for port in ports)

    def next_ts(self) -> str:
        return f"1700000000.{next(self._ts):06d}"

    def sent(self, method: str) -> list[dict[str, Any]]:
        """The arguments of the calls of a method, in order."""
        return [said for name, said, _ in list(self.calls) if name == method]

    def shown(self, chat: str) -> list[str]:
        """What stands in a chat now."""
        return [row["text"] for (here, _), row in self.messages.items() if here == chat]

    def push(self, kind: str, payload: Any, *, envelope: str = "") -> str:
        """Send an envelope over the newest WebSocket."""
        envelope = envelope or f"env-{next(self._ts)}"
        frame = {
            "envelope_id": envelope,
            "type": kind,
            "accepts_response_payload": kind != "events_api",
            "payload": payload,
        }
        self.sockets[-1].send(json.dumps(frame))
        return envelope

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the game."""

    def _socket(self, connection: ServerConnection) -> None:
        self.sockets.append(connection)
        hello = {"type": "hello", "num_connections": 1, "connection_info": {}}
        try:
            connection.send(json.dumps(hello))
            for frame in connection:
                self.acknowledged.append(json.loads(frame))
        except (WebSocketException, OSError):
            return


@contextmanager
def slack_server() -> Iterator[FakeSlack]:
    """Run a fake Slack for the length of a test."""
    server = FakeSlack()
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True),
        threading.Thread(target=server.socket_server.serve_forever, daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        for connection in server.sockets:
            connection.close()
        server.socket_server.shutdown()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join(5)
    assert server.misfits == [], server.misfits


def signed(
    body: bytes, *, secret: str = SIGNING_SECRET, at: float | None = None
) -> dict[str, str]:
    """The headers with which Slack would send a body."""
    stamp = str(int(time.time() if at is None else at))
    base = b"v0:" + stamp.encode() + b":" + body
    digest = hmac.new(secret.encode(), base, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={digest}"}


def message(text: str, *, number: int = 1, **changes: Any) -> dict[str, Any]:
    """A direct message, as the Events API sends it."""
    ts = f"1699999999.{number:06d}"
    event = {
        "type": "message",
        "channel_type": "im",
        "channel": "D0ALICE",
        "user": "U0ALICE",
        "team": TEAM,
        "text": text,
        "ts": ts,
        "event_ts": ts,
    }
    if changes.get("subtype") == "file_share":
        # Such an event names no team of its own.
        del event["team"]
    return callback(event | changes, number=number)


def mention(text: str, *, number: int = 1, **changes: Any) -> dict[str, Any]:
    """A message of a channel that names the bot."""
    ts = f"1699999999.{number:06d}"
    event = {
        "type": "app_mention",
        "channel": "C0ROOM",
        "user": "U0ALICE",
        "team": TEAM,
        "text": f"<@{BOT_USER}> {text}",
        "ts": ts,
        "event_ts": ts,
    }
    return callback(event | changes, number=number)


def changed(
    before: dict[str, Any], text: str, *, number: int = 1, **changes: Any
) -> dict[str, Any]:
    """A correction of a message, which was `before`."""
    told = {name: said for name, said in before.items() if name != "channel_type"}
    event = {
        "type": "message",
        "subtype": "message_changed",
        "hidden": True,
        "channel": before["channel"],
        "channel_type": before.get("channel_type", "channel"),
        "message": {**told, "type": "message", "text": text},
        "previous_message": {**told, "type": "message"},
        "ts": f"1699999999.{number:06d}",
        "event_ts": f"1699999999.{number:06d}",
    }
    return callback(event | changes, number=number)


def file(name: str, url: str, size: int, *, kind: str = "message_file_share") -> Any:
    """A text file that somebody attached, as an event of that kind describes it."""
    found: dict[str, Any] = {
        "name": name,
        "mimetype": "text/plain",
        "size": size,
        "mode": "hosted",
        "url_private": url,
        "url_private_download": url,
    }
    listed = shapes.published("slack")["events"][kind]["properties"]["files"]["items"]
    some = {"string": "x", "boolean": False, "number": 1}
    for missing in sorted(set(listed["required"]) - set(found)):
        told = listed["properties"][missing].get("type", "null")
        found[missing] = some.get(told) if isinstance(told, str) else None
    return found


def callback(event: dict[str, Any], *, number: int = 1) -> dict[str, Any]:
    """An event in its envelope.   Raises: AssertionError unless it is Slack's."""
    body = odd(event, number=number)
    shapes.fitting("slack", "envelope", value=body)
    shapes.fitting("slack", "events", _kind_of(event), value=_plain(event))
    return body


def odd(event: dict[str, Any], *, number: int = 1) -> dict[str, Any]:
    """An event in its envelope, whatever its shape: what an attacker may try."""
    return {
        "token": "deprecated",
        "team_id": TEAM,
        "api_app_id": APP,
        "event": event,
        "type": "event_callback",
        "event_id": f"Ev{number:08d}",
        "event_time": 1_700_000_000,
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": TEAM,
                "user_id": BOT_USER,
                "is_bot": True,
            }
        ],
    }


def _kind_of(event: dict[str, Any]) -> str:
    """The published name of an event's shape."""
    kind, subtype = event["type"], event.get("subtype")
    if subtype in ("message_changed", "message_deleted"):
        return str(subtype)
    return f"{kind}_file_share" if subtype == "file_share" else str(kind)


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    """Other subtypes share the shape of a plain message."""
    named = ("message_changed", "message_deleted", "file_share")
    return {
        name: said
        for name, said in event.items()
        if name != "subtype" or said in named or event["type"] != "message"
    }


def press(
    action: str, value: str, *, message_ts: str, user: str = "U0ALICE", number: int = 1
) -> dict[str, Any]:
    """A press of a button."""
    button = {
        "type": "button",
        "action_id": action,
        "block_id": "b",
        "text": {"type": "plain_text", "text": "Press"},
        "value": value,
        "action_ts": f"1700000100.{number:06d}",
    }
    body = {
        "type": "block_actions",
        "user": {"id": user, "username": "whoever", "team_id": TEAM},
        "api_app_id": APP,
        "token": "deprecated",
        "team": {"id": TEAM, "domain": "fake"},
        "container": {
            "type": "message",
            "message_ts": message_ts,
            "channel_id": "D0ALICE",
        },
        "channel": {"id": "D0ALICE", "name": "directmessage"},
        "trigger_id": f"13345224609.{number}",
        "actions": [button],
    }
    shapes.fitting("slack", "block_actions", value=body)
    shapes.fitting("slack", "button", value=button)
    return body


def command(
    text: str, *, number: int = 1, user: str = "U0ALICE", channel: str = "D0ALICE"
) -> dict[str, str]:
    """A slash command."""
    body = {
        "token": "deprecated",
        "command": "/polar",
        "text": text,
        "user_id": user,
        "user_name": "whoever",
        "team_id": TEAM,
        "team_domain": "fake",
        "channel_id": channel,
        "channel_name": "whatever",
        "trigger_id": f"233.{number}",
        "response_url": "https://hooks.slack.com/commands/T0TEAM/1/x",
        "api_app_id": APP,
    }
    shapes.fitting("slack", "slash_command", value=body)
    return body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeSlack

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/api/"):
            self._call(parts.path.removeprefix("/api/"), dict(parse_qsl(parts.query)))
            return
        body = self.server.files.get(urlsplit(self.path).path)
        if body is None or not self._is_known():
            # Slack answers a stranger with its sign-in page.
            self._send(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
            return
        self._send(200, {"Content-Type": "application/octet-stream"}, body)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = urlsplit(self.path).path
        said = self._arguments(raw)
        if path.startswith("/response/"):
            self.server.responses.append(said)
            self._json(200, {"ok": True})
            return
        method = path.removeprefix("/api/")
        is_json = "json" in self.headers.get("content-type", "")
        self._call(method, {} if is_json and method in READ_ONLY else said)

    def _call(self, method: str, said: dict[str, Any]) -> None:
        with self.server.lock:
            self.server.calls.append((method, said, time.monotonic()))
            planned = self.server.planned.get(method)
            if planned:
                status, headers, body = planned.pop(0)
                self._json(status, body, headers)
                return
            answer = self._answer(method, said)
            self._look_at(method, said, answer)
        if method in self.server.hang_up:
            self.server.hang_up.remove(method)
            self.close_connection = True
            self.connection.close()
            return
        self._json(200, answer)

    def _arguments(self, raw: bytes) -> dict[str, Any]:
        if "json" in self.headers.get("content-type", ""):
            found: dict[str, Any] = json.loads(raw or b"{}")
            return found
        return dict(parse_qsl(raw.decode(), keep_blank_values=True))

    def _is_known(self) -> bool:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        return not self.server.revoked and token in (BOT_TOKEN, APP_TOKEN)

    def _answer(self, method: str, said: dict[str, Any]) -> dict[str, Any]:
        if not self._is_known():
            revoked = "token_revoked" if self.server.revoked else "invalid_auth"
            return {"ok": False, "error": revoked}
        handler = getattr(self, "_" + method.replace(".", "_").lower(), None)
        if handler is None:
            return {"ok": False, "error": "unknown_method"}
        if method.startswith("conversations.") and not said.get("channel"):
            return {"ok": False, "error": "channel_not_found"}
        refused = _refusal(method, said)
        found: dict[str, Any] = {"error": refused} if refused else handler(said)
        return {"ok": "error" not in found} | found

    def _look_at(self, method: str, said: dict[str, Any], answer: Any) -> None:
        """Compare a call and its answer with what Slack publishes."""
        book = shapes.published("slack")
        if method in book["requests"]:
            self.server.misfits += shapes.misfits(
                "slack", "requests", method, value=_typed(method, said)
            )
        if method in book["answers"]:
            self.server.misfits += shapes.misfits(
                "slack", "answers", method, value=answer
            )
        view = said.get("view")
        blocks = [*said.get("blocks", ()), *(view["blocks"] if view else ())]
        for block in blocks:
            self.server.misfits += _block_misfits(block)

    def _auth_test(self, said: dict[str, Any]) -> dict[str, Any]:
        return {
            "url": "https://fake.slack.com/",
            "team": "Fake",
            "user": "polar",
            "team_id": TEAM,
            "user_id": BOT_USER,
            "bot_id": BOT_ID,
        }

    def _apps_connections_open(self, said: dict[str, Any]) -> dict[str, Any]:
        if APP_TOKEN not in self.headers.get("authorization", ""):
            return {"error": "not_allowed_token_type"}
        return {"url": f"ws://127.0.0.1:{self.server.socket_port}/link?ticket=1"}

    def _chat_postmessage(self, said: dict[str, Any]) -> dict[str, Any]:
        ts = self.server.next_ts()
        row = dict(said) | {"ts": ts}
        self.server.messages[said["channel"], ts] = row
        return {"channel": said["channel"], "ts": ts, "message": row}

    def _chat_update(self, said: dict[str, Any]) -> dict[str, Any]:
        row = self.server.messages.get((said["channel"], said["ts"]))
        if row is None:
            return {"error": "message_not_found"}
        row.update(said)
        return {"channel": said["channel"], "ts": said["ts"], "text": row["text"]}

    def _chat_postephemeral(self, said: dict[str, Any]) -> dict[str, Any]:
        return {"message_ts": self.server.next_ts()}

    def _reactions_add(self, said: dict[str, Any]) -> dict[str, Any]:
        names = self.server.reactions[said["channel"], said["timestamp"]]
        if said["name"] in names:
            return {"error": "already_reacted"}
        names.add(said["name"])
        self.server.reaction_log.append("+" + said["name"])
        return {}

    def _reactions_remove(self, said: dict[str, Any]) -> dict[str, Any]:
        names = self.server.reactions[said["channel"], said["timestamp"]]
        if said["name"] not in names:
            return {"error": "no_reaction"}
        names.remove(said["name"])
        self.server.reaction_log.append("-" + said["name"])
        return {}

    def _reactions_get(self, said: dict[str, Any]) -> dict[str, Any]:
        names = sorted(self.server.reactions[said["channel"], said["timestamp"]])
        rows = [{"name": name, "users": [BOT_USER], "count": 1} for name in names]
        return {"type": "message", "message": {"reactions": rows}}

    def _views_publish(self, said: dict[str, Any]) -> dict[str, Any]:
        self.server.homes[said["user_id"]] = said["view"]
        return {"view": {"id": "V1"}}

    def _conversations_history(self, said: dict[str, Any]) -> dict[str, Any]:
        rows = [
            row
            for (chat, ts), row in self.server.messages.items()
            if chat == said["channel"] and float(ts) >= float(said.get("oldest") or 0)
        ]
        return {"messages": rows[::-1], "has_more": False}

    _conversations_replies = _conversations_history

    def _json(
        self, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> None:
        raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json; charset=utf-8"}
        self._send(status, kind | (headers or {}), raw)

    def _send(self, status: int, headers: dict[str, str], raw: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _refusal(method: str, said: dict[str, Any]) -> str:
    """What Slack would say no to, in its words, or ""."""
    if method not in ("chat.postMessage", "chat.update", "chat.postEphemeral"):
        return ""
    text, most = said.get("text", ""), LONGEST_POST
    if method == "chat.update":
        most = LONGEST_UPDATE
    if not text.strip() and not said.get("blocks"):
        return "no_text"
    return "msg_too_long" if len(text) > most else ""


def _typed(method: str, said: dict[str, Any]) -> dict[str, Any]:
    """A form's values as the published types of its fields."""
    known = shapes.published("slack")["requests"][method]["properties"]
    found = dict(said)
    for name, value in said.items():
        kind = known.get(name, {}).get("type")
        if isinstance(value, str) and kind in ("boolean", "number"):
            found[name] = value in ("1", "true") if kind == "boolean" else float(value)
    return found


def _block_misfits(block: dict[str, Any]) -> list[str]:
    """Where a block is not what Slack publishes, or longer than its library takes."""
    name = BLOCKS.get(block.get("type", ""))
    if name is None:
        return [f"an unknown block: {block.get('type')}"]
    found = shapes.misfits("slack", "definitions", name, value=block)
    parsed = Block.parse(block)
    for each in (parsed, *getattr(parsed, "elements", ())):
        try:
            each.validate_json()
        except SlackObjectFormationError as error:
            found.append(f"{block['type']}: {error}")
    return found
