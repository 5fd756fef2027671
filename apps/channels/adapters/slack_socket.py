"""Slack's Socket Mode: a WebSocket to the checked address, one envelope at a time.

Hides: the handshake, pings and the closing. An envelope is acknowledged by the
caller, after it is kept: what is not acknowledged comes again.
Source: https://docs.slack.dev/apis/events-api/using-socket-mode
"""

import json
import ssl
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from apps.common import clock, egress
from apps.common.errors import UpstreamError

OPEN_SECONDS: Final = 10.0
#: A larger frame closes the connection. Units: bytes.
MOST_BYTES: Final = 1_048_576
#: Silence for so long is answered with a ping; no pong means a deaf socket.
PING_EVERY_SECONDS: Final = 15.0
PONG_SECONDS: Final = 10.0


class Socket:
    """One connection. `heard_at` is the moment the far side last proved itself."""

    def __init__(self, url: str, *, local: frozenset[str]) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise UpstreamError("Slack named no WebSocket address.")
        raw = egress.open_socket(
            parts.hostname,
            parts.port or (443 if secure else 80),
            local=local,
            timeout=OPEN_SECONDS,
        )
        self._open = ExitStack()
        self._open.callback(raw.close)
        try:
            self._connection: ClientConnection = self._open.enter_context(
                connect(
                    url,
                    sock=raw,
                    ssl=ssl.create_default_context() if secure else None,
                    proxy=None,
                    open_timeout=OPEN_SECONDS,
                    close_timeout=1.0,
                    ping_interval=None,
                    max_size=MOST_BYTES,
                    max_queue=16,
                    compression=None,
                )
            )
        except (WebSocketException, OSError) as error:
            self._open.close()
            raise UpstreamError(f"Slack took no WebSocket: {error}") from error
        self.heard_at = clock.now()
        self._heard = clock.monotonic()

    def next(self, seconds: float) -> dict[str, Any] | None:
        """Return the next frame, or None when none came in time.

        Raises: UpstreamError when the connection is gone or deaf.
        """
        try:
            frame = self._connection.recv(timeout=seconds)
        except TimeoutError:
            self._prove()
            return None
        except (WebSocketException, OSError) as error:
            raise UpstreamError(f"Slack's WebSocket closed: {error}") from error
        self._mark()
        return _parsed(frame)

    def acknowledge(self, envelope_id: str, payload: Any = None) -> None:
        """Say that an envelope is kept.   Raises: UpstreamError."""
        said: dict[str, Any] = {"envelope_id": envelope_id}
        if payload is not None:
            said["payload"] = payload
        try:
            self._connection.send(json.dumps(said))
        except (WebSocketException, OSError) as error:
            raise UpstreamError(f"Slack's WebSocket closed: {error}") from error

    def close(self) -> None:
        self._open.close()

    def _prove(self) -> None:
        """An open socket proves nothing: a pong does."""
        if clock.monotonic() - self._heard < PING_EVERY_SECONDS:
            return
        try:
            answered = self._connection.ping().wait(PONG_SECONDS)
        except (WebSocketException, OSError) as error:
            raise UpstreamError(f"Slack's WebSocket closed: {error}") from error
        if not answered:
            raise UpstreamError("Slack's WebSocket is open but deaf.")
        self._mark()

    def _mark(self) -> None:
        self.heard_at = clock.now()
        self._heard = clock.monotonic()


def _parsed(frame: str | bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
