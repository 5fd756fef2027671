"""The two ways to an MCP server: a child in the sandbox, or a guarded URL.

Both bound what is read before it is parsed, so that a server can neither fill our
memory with one line nor with many; both remember why they broke, since the
library reports only that they did.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import httpx
import httpx2
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.auth import utils as sdk
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage

from apps.common.egress import AsyncGuardedTransport2
from apps.common.errors import Denied, PolarError
from apps.extensions.adapters import sandbox
from apps.extensions.errors import (
    AuthorizationWanted,
    ToolMisconfigured,
    ToolTransientError,
)
from apps.extensions.ports import Source
from apps.gateway.errors import OutputBroken

Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]

#: What wraps an answer beyond its own bytes. Units: bytes.
ENVELOPE_BYTES = 65_536
#: All that a server may say around one call, logs and progress included, in
#: multiples of one answer.
MOST_ANSWERS = 32


class Wire:
    """What both ways have in common: how much was heard, and what went wrong."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.most_bytes = source.limits.output_bytes + ENVELOPE_BYTES
        self.heard = 0
        #: The reason that it broke, in our own words.
        self.fault: PolarError | None = None
        #: HTTP headers with leased secrets; only while a call is under way.
        self.headers: dict[str, str] = {}
        self.child: sandbox.Child | None = None

    def begin(self, headers: dict[str, str]) -> None:
        """Start counting for one more call."""
        self.heard, self.headers = 0, headers

    def hear(self, size: int) -> None:
        """Raises: OutputBroken when a server says too much around one call."""
        self.heard += size
        if self.heard > self.most_bytes * MOST_ANSWERS:
            self.fault = OutputBroken(
                f"{self.source.ext_id} said more than its limit and was cut off.",
                permanent=True,
            )
            raise self.fault

    def too_long(self) -> OutputBroken:
        self.fault = OutputBroken(
            f"{self.source.ext_id} answered with more than "
            f"{self.source.limits.output_bytes} bytes and was cut off.",
            permanent=True,
        )
        return self.fault


# --- a child in the sandbox


@asynccontextmanager
async def stdio(
    wire: Wire, job: sandbox.Job, ended: Callable[[], None]
) -> AsyncGenerator[Streams, None]:
    """Start a server and speak newline-delimited JSON with it.

    Calls `ended` when it stops speaking. Raises: ToolMisconfigured.
    """
    child = wire.child = await sandbox.start(job)
    child.release()
    heard_in, heard = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    said, said_out = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as group:
        group.start_soon(_hear, wire, child, heard_in, ended)
        group.start_soon(_say, child, said_out)
        try:
            yield heard, said
        finally:
            with anyio.CancelScope(shield=True):
                await child.end()
            for stream in (heard, said, heard_in, said_out):
                stream.close()
            group.cancel_scope.cancel()


async def _hear(
    wire: Wire,
    child: sandbox.Child,
    out: MemoryObjectSendStream[SessionMessage | Exception],
    ended: Callable[[], None],
) -> None:
    try:
        async with out:
            async for line in _lines(wire, child):
                await out.send(_message(line))
    except OutputBroken as error:
        await child.end(error.detail)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        return  # nobody listens any more
    finally:
        ended()


async def _lines(wire: Wire, child: sandbox.Child) -> AsyncIterator[bytes]:
    stdout = child.process.stdout
    assert stdout is not None
    buffer = bytearray()
    while chunk := await stdout.read(sandbox.READ_BYTES):
        wire.hear(len(chunk))
        buffer += chunk
        *whole, rest = buffer.split(b"\n")
        if len(rest) > wire.most_bytes:
            raise wire.too_long()
        buffer = rest
        for line in whole:
            if len(line) > wire.most_bytes:
                raise wire.too_long()
            yield bytes(line)


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(
            types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        )
    except ValueError as error:
        return error


async def _say(
    child: sandbox.Child, said: MemoryObjectReceiveStream[SessionMessage]
) -> None:
    stdin = child.process.stdin
    assert stdin is not None
    try:
        async for each in said:
            text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
            stdin.write(text.encode() + b"\n")
            await stdin.drain()
    except (BrokenPipeError, ConnectionResetError, anyio.ClosedResourceError):
        return  # it is gone; whoever hears it knows


# --- a guarded URL


@asynccontextmanager
async def http(wire: Wire) -> AsyncGenerator[Streams, None]:
    """Speak streamable HTTP with a server, through the wall."""
    limits = wire.source.limits
    timeout = httpx2.Timeout(limits.call_seconds, connect=limits.connect_seconds)
    async with (
        httpx2.AsyncClient(
            transport=GuardedWire(wire),
            trust_env=False,
            follow_redirects=False,
            timeout=timeout,
        ) as client,
        streamable_http_client(
            wire.source.url, http_client=client, max_sse_event_size=wire.most_bytes
        ) as streams,
    ):
        yield streams


class GuardedWire(httpx2.AsyncBaseTransport):
    """Puts in the server's own secrets, counts what comes back, and classifies."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._inner = AsyncGuardedTransport2(local=wire.source.local)
        self._origin = httpx2.URL(wire.source.url)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        name = self._wire.source.ext_id
        if _origin(request.url) != _origin(self._origin):
            self._wire.fault = ToolMisconfigured(
                f"{name} sends us to another server, {request.url.host}; the URL of "
                "the extension has to be the final one."
            )
            raise httpx2.ConnectError(self._wire.fault.detail)
        request.headers.update(self._wire.headers)
        try:
            response = await self._inner.handle_async_request(request)
        except Denied as error:
            self._wire.fault = error
            raise httpx2.ConnectError(error.detail) from error
        except (httpx2.TransportError, httpx.TransportError, OSError) as error:
            self._wire.fault = ToolTransientError(f"{name} cannot be reached: {error}")
            raise httpx2.ConnectError(self._wire.fault.detail) from error
        # A stream that is opened again between two calls carries no secret.
        if request.method == "POST":
            self._judge(response)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=CountedStream(response, self._wire),
            extensions=response.extensions,
        )

    def _judge(self, response: httpx2.Response) -> None:
        name, status = self._wire.source.ext_id, response.status_code
        if wants_authorization(response):
            self._wire.fault = AuthorizationWanted(
                f"{name} answered {status}: it wants to be authorized. An "
                "administrator connects it on its page.",
                challenge=_challenge(response),
                status=status,
            )
        elif status in (401, 403):
            self._wire.fault = ToolMisconfigured(
                f"{name} answered {status}: it wants other credentials. Put its token "
                "into the vault and name it in the extension's secrets.",
                status=status,
            )
        elif status == 429 or status >= 500:
            self._wire.fault = ToolTransientError(f"{name} answered {status}.")

    async def aclose(self) -> None:
        await self._inner.aclose()


class CountedStream(httpx2.AsyncByteStream):
    """Reads a body up to what one answer may have."""

    def __init__(self, response: httpx2.Response, wire: Wire) -> None:
        self._response, self._wire = response, wire
        self._is_stream = "event-stream" in response.headers.get("content-type", "")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        size = 0
        async for chunk in stream:
            size += len(chunk)
            # A stream of events lives on; its single events are bounded elsewhere.
            if size > self._wire.most_bytes and not self._is_stream:
                raise httpx2.ReadError(self._wire.too_long().detail)
            try:
                self._wire.hear(len(chunk))
            except OutputBroken as error:
                raise httpx2.ReadError(error.detail) from error
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


def wants_authorization(response: httpx2.Response) -> bool:
    """Tell whether a server asks for OAuth (RFC 6750), or for more of it."""
    said = response.headers.get("www-authenticate", "")
    if response.status_code == 401:
        return bool(re.search(r"\bbearer\b", said, re.IGNORECASE))
    if response.status_code != 403:
        return False
    return sdk.extract_field_from_www_auth(response, "error") == "insufficient_scope"


def _challenge(response: httpx2.Response) -> dict[str, str]:
    return {
        "metadata": (sdk.extract_resource_metadata_from_www_auth(response) or "")[:500],
        "scope": (sdk.extract_scope_from_www_auth(response) or "")[:500],
        "status": str(response.status_code),
    }


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
