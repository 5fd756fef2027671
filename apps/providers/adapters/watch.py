"""Stands between a vendor's SDK and the wire, and watches one call.

Hides: where the deadlines, the byte cap and the key are applied. The key is put
into the request here, so no SDK object ever holds it; nothing is sent to a host
other than the one in the provider's record.
"""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from urllib.parse import urlsplit

import httpx
import httpx2

from apps.common import clock
from apps.common.egress import AsyncGuardedTransport2
from apps.common.errors import Denied
from apps.common.redaction import SecretStr
from apps.providers.ports import Deadlines, Target

#: Seconds over which a stream's minimum rate is measured.
RATE_WINDOW_SECONDS = 10.0
#: Kept of each response, for the record of a bad one. Units: bytes.
HEAD_BYTES = 65_536

VENDOR_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")


def base_url(target: Target) -> str:
    """Return the server's address; a provider without one uses its vendor's."""
    return (target.base_url or VENDOR_URLS.get(target.kind, "")).rstrip("/")


def local_hosts(target: Target) -> frozenset[str]:
    """Return the host:port that an operator wrote down, if any."""
    if not target.base_url:
        return frozenset()
    parts = urlsplit(target.base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return frozenset({f"{parts.hostname}:{port}"})


def key_headers(kind: str, key: SecretStr | None) -> dict[str, str]:
    """Return the header by which a kind of server knows its customers."""
    if key is None:
        return {}
    if kind == "anthropic":
        return {"x-api-key": key.reveal()}
    if kind == "gemini":
        return {"x-goog-api-key": key.reveal()}
    return {"authorization": f"Bearer {key.reveal()}"}


class Watch:
    """What one call has seen so far."""

    def __init__(self, deadlines: Deadlines, key: SecretStr | None) -> None:
        self.deadlines = deadlines
        self.key = key
        #: The error class that this watch itself decided on, if any.
        self.tripped = ""
        self.detail = ""
        self.received = 0
        self.head = bytearray()
        self.tail = b""

    def trip(self, error_class: str, detail: str) -> str:
        self.tripped = self.tripped or error_class
        self.detail = self.detail or detail
        return detail

    def saw(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if len(self.head) < HEAD_BYTES:
            self.head += chunk[: HEAD_BYTES - len(self.head)]
        self.tail = (self.tail + chunk)[-256:]


CURRENT: ContextVar[Watch] = ContextVar("providers_watch")


class WatchedTransport(httpx2.AsyncBaseTransport):
    """Applies the current call's watch to one exchange."""

    def __init__(self, target: Target) -> None:
        self._inner = AsyncGuardedTransport2(local=local_hosts(target))
        self._kind = target.kind
        self._host = urlsplit(base_url(target)).hostname

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        watch = CURRENT.get()
        self._authorise(request, watch)
        limits = watch.deadlines
        request.extensions = {
            **request.extensions,
            "timeout": {
                "connect": limits.connect,
                "pool": limits.connect,
                "write": limits.first_byte,
                "read": None,
            },
        }
        started = clock.monotonic()
        try:
            async with asyncio.timeout(limits.connect + limits.first_byte):
                response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            watch.trip("timeout_connect", f"no connection in {limits.connect:g} s")
            raise httpx2.ConnectTimeout(watch.detail, request=request) from error
        except TimeoutError as error:
            watch.trip("timeout_first_byte", f"silent for {limits.first_byte:g} s")
            raise httpx2.ReadTimeout(watch.detail, request=request) from error
        except (httpx2.ConnectError, httpx.ConnectError, OSError, Denied) as error:
            watch.trip("network", f"cannot reach the server: {error}")
            raise httpx2.ConnectError(watch.detail, request=request) from error
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=WatchedStream(response, watch, started),
            extensions=response.extensions,
        )

    def _authorise(self, request: httpx2.Request, watch: Watch) -> None:
        for name in _KEY_HEADERS:
            request.headers.pop(name, None)
        if request.url.host == self._host:
            request.headers.update(key_headers(self._kind, watch.key))

    async def aclose(self) -> None:
        await self._inner.aclose()


class WatchedStream(httpx2.AsyncByteStream):
    """Reads a body under the idle limit, the minimum rate and the byte cap."""

    def __init__(self, response: httpx2.Response, watch: Watch, started: float) -> None:
        self._response = response
        self._watch = watch
        self._first_by = started + watch.deadlines.first_byte

    async def __aiter__(self) -> AsyncIterator[bytes]:
        watch, limits = self._watch, self._watch.deadlines
        stream = self._response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        source = aiter(stream)
        window_start, window_bytes = 0.0, 0
        while True:
            chunk = await self._next(source)
            if chunk is None:
                return
            watch.saw(chunk)
            if watch.received > limits.max_bytes:
                raise httpx2.ReadError(
                    watch.trip("bad_response", f"over {limits.max_bytes} bytes")
                )
            now = clock.monotonic()
            window_start = window_start or now
            window_bytes += len(chunk)
            if now - window_start >= RATE_WINDOW_SECONDS:
                if window_bytes < limits.min_bytes_per_10s:
                    raise httpx2.ReadTimeout(
                        watch.trip("timeout_idle", f"{window_bytes} bytes in 10 s")
                    )
                window_start, window_bytes = now, 0
            yield chunk

    async def _next(self, source: AsyncIterator[bytes]) -> bytes | None:
        watch, limits = self._watch, self._watch.deadlines
        wait = limits.idle if watch.received else self._first_by - clock.monotonic()
        try:
            async with asyncio.timeout(max(wait, 0.01)):
                return await anext(source, None)
        except TimeoutError as error:
            if watch.received:
                watch.trip("timeout_idle", f"silent for {limits.idle:g} s")
            else:
                watch.trip("timeout_first_byte", f"silent for {limits.first_byte:g} s")
            raise httpx2.ReadTimeout(watch.detail) from error
        except httpx2.RemoteProtocolError:
            watch.trip("bad_response", "the server broke off in mid-answer")
            raise

    async def aclose(self) -> None:
        await self._response.aclose()
