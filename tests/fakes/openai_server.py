"""A loopback server that speaks OpenAI chat completions, and fails on demand.

Modes: ok, tool, refused, 401, 403, 429, 500, hang, hang_after_headers, drip,
half_sse, cut, endless, garbage, error_in_200, huge, no_usage, context, filtered, slow,
llama (the habits of llama.cpp's Python server), raw (`chunks` first, then as ok).
The model name may carry the mode: "mode:429" wins over the server's own.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPLY = "Hello from the fake model."


class FakeOpenAI(ThreadingHTTPServer):
    """One fake provider on a port of its own."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, mode: str = "ok", models: tuple[str, ...] = ("fake-1",)) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.models = models
        self.reply = REPLY
        self.retry_after = "7"
        #: When not empty, any other bearer key is refused.
        self.accepted_keys: set[str] = set()
        self.delay_seconds = 0.0
        #: What an answer says it took. Units: tokens.
        self.tokens_out = 5
        #: After so many requests the server answers well. 0: never.
        self.heal_after = 0
        #: What the raw mode answers the first request with.
        self.chunks: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.released = threading.Event()
        #: Of the endless mode: what it sent, and whether the caller hung up.
        self.tokens_sent = 0
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some modes are for."""


@contextmanager
def openai_server(mode: str = "ok", **options: Any) -> Iterator[FakeOpenAI]:
    """Run a fake provider for the length of a test."""
    server = FakeOpenAI(mode, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeOpenAI

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.headers_seen.append(_lowered(self.headers))
        if self.path.endswith("/api/tags"):
            self._json(200, {"models": [{"name": name} for name in self.server.models]})
            return
        if self.server.mode == "401" or self._is_unknown():
            self._json(401, {"error": {"message": "bad key"}})
            return
        self._json(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length) or b"{}")
        self.server.requests.append(body)
        self.server.headers_seen.append(_lowered(self.headers))
        if self._is_unknown():
            self._mode_401(body)
            return
        if 0 < self.server.heal_after < len(self.server.requests):
            self.server.mode = "ok"
        if self.path.endswith("/embeddings"):
            rows = [
                {"index": index, "embedding": [float(index), 1.0]}
                for index, _ in enumerate(body["input"])
            ]
            self._json(200, {"data": rows, "usage": {"prompt_tokens": 3}})
            return
        if self.path.endswith("/responses") and self.server.mode in ("ok", "tool"):
            self._responses(body)
            return
        if self.path.endswith("/v1/messages") and self.server.mode == "ok":
            self._anthropic()
            return
        if "streamGenerateContent" in self.path and self.server.mode == "ok":
            self._gemini()
            return
        name = str(body.get("model", ""))
        mode = name.removeprefix("mode:") if name.startswith("mode:") else ""
        mode = mode or self.server.mode
        time.sleep(self.server.delay_seconds)
        getattr(self, f"_mode_{mode}")(body)

    def _is_unknown(self) -> bool:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        return bool(self.server.accepted_keys) and key not in self.server.accepted_keys

    # --- failures before an answer --------------------------------------------

    def _mode_refused(self, body: Any) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _mode_401(self, body: Any) -> None:
        key = self.headers.get("authorization", "")
        self._json(401, {"error": {"message": f"Incorrect API key: {key}"}})

    def _mode_403(self, body: Any) -> None:
        self._json(403, {"error": {"message": "forbidden"}})

    def _mode_429(self, body: Any) -> None:
        error = {"message": "slow down", "code": "rate_limit_exceeded"}
        self._json(429, {"error": error}, {"retry-after": self.server.retry_after})

    def _mode_500(self, body: Any) -> None:
        self._json(500, {"error": {"message": "boom"}})

    def _mode_context(self, body: Any) -> None:
        error = {
            "message": "This model's maximum context length is 8192 tokens.",
            "code": "context_length_exceeded",
            "type": "invalid_request_error",
        }
        self._json(400, {"error": error})

    def _mode_filtered(self, body: Any) -> None:
        self._head("text/event-stream")
        self._chunk(_delta("I can not"))
        self._chunk(_delta("", finish="content_filter"))
        self._done()

    def _mode_hang(self, body: Any) -> None:
        self.server.released.wait(60)

    def _mode_hang_after_headers(self, body: Any) -> None:
        self._head("text/event-stream")
        self.server.released.wait(60)

    # --- failures inside an answer --------------------------------------------

    def _mode_drip(self, body: Any) -> None:
        """One token, then silence."""
        self._head("text/event-stream")
        self._chunk(_delta("Hel"))
        self.server.released.wait(60)

    def _mode_slow(self, body: Any) -> None:
        """A token every 50 ms, for ever."""
        self._head("text/event-stream")
        while not self.server.released.wait(0.05):
            self._chunk(_delta("tick "))

    def _mode_trickle(self, body: Any) -> None:
        """A byte at a time: never silent, never done."""
        self._head("text/event-stream")
        while not self.server.released.wait(0.02):
            self._raw(b":\n")

    def _mode_half_sse(self, body: Any) -> None:
        self._head("text/event-stream")
        self._chunk(_delta("Hel"))
        self._raw(b'data: {"id": "x", "choi')
        self._end()

    def _mode_cut(self, body: Any) -> None:
        self._head("text/event-stream")
        self._chunk(_delta("Hel"))
        self.close_connection = True

    def _mode_garbage(self, body: Any) -> None:
        self._head("text/event-stream")
        self._raw(b"data: <html>not json</html>\n\n")
        self._done()

    def _mode_error_in_200(self, body: Any) -> None:
        self._json(200, {"error": {"message": "the model is not loaded", "code": 1}})

    def _mode_huge(self, body: Any) -> None:
        self._head("text/event-stream")
        while not self.server.released.is_set():
            self._chunk(_delta("x" * 10_000))

    # --- answers --------------------------------------------------------------

    def _mode_endless(self, body: Any) -> None:
        """A token at a time, whatever `max_tokens` says, until nobody listens."""
        self._head("text/event-stream")
        try:
            while not self.server.released.is_set():
                self._chunk(_delta("tok "))
                self.server.tokens_sent += 1
        except OSError:
            self.server.hung_up.set()

    def _mode_ok(self, body: Any) -> None:
        self._answer(with_usage=True)

    def _mode_no_usage(self, body: Any) -> None:
        self._answer(with_usage=False)

    def _mode_tool(self, body: Any) -> None:
        if body["messages"][-1]["role"] == "tool":
            self._answer(with_usage=True)
            return
        name = body["tools"][0]["function"]["name"]
        function = {"name": name, "arguments": '{"zone": "UTC"}'}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        self._head("text/event-stream")
        self._chunk(_delta(None, tool_calls=[call]))
        self._chunk(_delta(None, finish="tool_calls"))
        self._done()

    def _mode_llama(self, body: Any) -> None:
        """Every piece of a call carries the tool's whole name; null is no content."""
        if any(message["content"] is None for message in body["messages"]):
            self._json(422, {"error": {"message": "Input should be a valid string"}})
            return
        if body["messages"][-1]["role"] == "tool":
            self._answer(with_usage=False)
            return
        name = body["tools"][0]["function"]["name"]
        self._head("text/event-stream")
        for piece in ('{"zone"', ": ", '"UTC"}'):
            function = {"name": name, "arguments": piece}
            call = {"index": 0, "id": "call_1", "type": "function"}
            self._chunk(_delta(None, tool_calls=[{**call, "function": function}]))
        self._chunk(_delta(None, finish="tool_calls"))
        self._done()

    def _mode_raw(self, body: Any) -> None:
        if len(self.server.requests) > 1:
            self._answer(with_usage=True)
            return
        self._head("text/event-stream")
        for chunk in self.server.chunks:
            self._chunk(chunk)
        self._done()

    def _answer(self, *, with_usage: bool) -> None:
        self._head("text/event-stream")
        words = self.server.reply.split(" ")
        for index, word in enumerate(words):
            self._chunk(_delta(word if index == 0 else f" {word}"))
        self._chunk(_delta("", finish="stop"))
        if with_usage:
            details = {"cached_tokens": 2}
            self._chunk(
                {
                    "id": "x",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": "fake-1",
                    "choices": [],
                    "usage": {
                        "prompt_tokens": 10,
                        "completion_tokens": self.server.tokens_out,
                        "total_tokens": 10 + self.server.tokens_out,
                        "prompt_tokens_details": details,
                    },
                }
            )
        self._done()

    def _responses(self, body: Any) -> None:
        """Answer as OpenAI's Responses API streams."""
        told = any(item.get("type") == "function_call_output" for item in body["input"])
        if self.server.mode == "tool" and not told:
            item, events = _function_call(body["tools"][0]["name"])
        else:
            item, events = _output_text(self.server.reply)
        usage = {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        }
        begun = {"type": "response.created", "response": _response("in_progress")}
        ended = _response("completed", output=[item], usage=usage)
        self._head("text/event-stream")
        for number, event in enumerate(
            (begun, *events, {"type": "response.completed", "response": ended})
        ):
            self._raw(f"event: {event['type']}\n".encode())
            self._chunk({**event, "sequence_number": number})
        self._end()

    def _anthropic(self) -> None:
        """Answer as Anthropic's Messages API streams."""
        usage = {"input_tokens": 10, "output_tokens": 0}
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "fake-1",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        text = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": self.server.reply}
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        self._head("text/event-stream")
        for event in (
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": text},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ):
            self._raw(f"event: {event['type']}\n".encode())
            self._chunk(event)
        self._end()

    def _gemini(self) -> None:
        """Answer as Gemini's streamGenerateContent streams."""
        content = {"role": "model", "parts": [{"text": self.server.reply}]}
        self._head("text/event-stream")
        self._chunk(
            {
                "candidates": [
                    {"content": content, "finishReason": "STOP", "index": 0}
                ],
                "usageMetadata": {
                    "promptTokenCount": 10,
                    "candidatesTokenCount": 5,
                    "totalTokenCount": 15,
                },
                "modelVersion": "fake-1",
                "responseId": "r1",
            }
        )
        self._end()

    # --- the wire -------------------------------------------------------------

    def _json(
        self, status: int, body: Any, headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _head(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _raw(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _chunk(self, body: Any) -> None:
        self._raw(b"data: " + json.dumps(body).encode() + b"\n\n")

    def _done(self) -> None:
        self._raw(b"data: [DONE]\n\n")
        self._end()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def delta(text: Any = None, finish: str | None = None, **more: Any) -> Any:
    """Write one chunk of a stream, for the raw mode."""
    return _delta(text, finish, **more)


def tool_call(name: Any, arguments: str, call_id: Any = "call_1", at: int = 0) -> Any:
    """Write one tool call of a chunk, for the raw mode."""
    function = {"name": name, "arguments": arguments}
    return {"index": at, "id": call_id, "type": "function", "function": function}


def _delta(text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {"role": "assistant", "content": text, **more}
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake-1",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _response(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "fake-1",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **more,
    }


def _output_text(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Shape: the finished item, and the events that build it up."""
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant"}
    done = {**item, "status": "completed", "content": [{**part, "text": text}]}
    started = {**item, "status": "in_progress", "content": []}
    deltas = [
        {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
        for piece in (text[:5], text[5:])
    ]
    return done, [
        {"type": "response.output_item.added", "output_index": 0, "item": started},
        {"type": "response.content_part.added", **at, "part": part},
        *deltas,
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]


def _function_call(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    at = {"item_id": "fc_1", "output_index": 0}
    said = '{"zone": "UTC"}'
    item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": name}
    done = {**item, "status": "completed", "arguments": said}
    started = {**item, "status": "in_progress", "arguments": ""}
    arguments = "response.function_call_arguments"
    return done, [
        {"type": "response.output_item.added", "output_index": 0, "item": started},
        {"type": f"{arguments}.delta", **at, "delta": said},
        {"type": f"{arguments}.done", **at, "name": name, "arguments": said},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]


def _lowered(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
