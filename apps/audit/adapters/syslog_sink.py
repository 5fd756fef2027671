"""The syslog sink: RFC 5424 over TCP or TLS, each message with its number.

Syslog acknowledges nothing. What is sent counts as kept once the host has read the
connection to its end and closed it; what it holds is what this install remembers.
So a message may come twice after a crash, never not at all; its number tells.
Source: RFC 5424; RFC 6587, section 3.4.1; RFC 5425
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from apps.audit.errors import SinkRefused
from apps.audit.ports import Keeping, Line
from apps.common import clock, egress
from apps.common.errors import Denied

#: Facility 13 (log audit), severity 6 (informational).
PRIORITY = 13 * 8 + 6
#: The number of examples in RFC 5612 stands for installs without their own.
ENTERPRISE = 32473
SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SyslogHost:
    """`tcp://host:port` or `tls://host:port`, and whether it may be inside."""

    url: str
    local: tuple[str, ...] = ()


class SyslogSink:
    """Sends messages. Off without a URL."""

    patience_seconds = 0.0

    def __init__(
        self, host: Callable[[], SyslogHost], known: Callable[[], int]
    ) -> None:
        self._host, self._known = host, known

    def is_on(self) -> bool:
        return bool(self._host().url)

    def keeping(self) -> Keeping:
        return Keeping(
            is_immutable=False, detail="syslog cannot say how its host keeps it"
        )

    def last_contiguous_seq(self) -> int | None:
        return self._known() if self.is_on() else None

    def append(self, lines: Sequence[Line]) -> int:
        self._send([_message(f'seq="{line.seq}"', line.text) for line in lines])
        return lines[-1].seq

    def fork(self, *, epoch: str, seq: int) -> None:
        self._send([_message(f'fork="{seq}" epoch="{epoch}"', "recovery accepted")])

    def _send(self, messages: list[bytes]) -> None:
        """Send all, then wait until the host has read all of it."""
        try:
            with self._connected() as wire:
                for message in messages:
                    wire.sendall(b"%d %s" % (len(message), message))
                wire.shutdown(socket.SHUT_WR)
                while wire.recv(4096):
                    pass
        except (OSError, Denied) as error:
            raise SinkRefused(f"The syslog host did not take it: {error}") from error

    def _connected(self) -> socket.socket:
        host = self._host()
        parts = urlsplit(host.url)
        if parts.scheme not in ("tcp", "tls") or not parts.hostname:
            raise SinkRefused("POLAR_SINK_SYSLOG is tcp://host:port or tls://host:port")
        port = parts.port or (6514 if parts.scheme == "tls" else 601)
        plain = egress.open_socket(
            parts.hostname, port, local=host.local, timeout=SECONDS
        )
        if parts.scheme == "tcp":
            return plain
        context = ssl.create_default_context()
        return context.wrap_socket(plain, server_hostname=parts.hostname)


def _message(facts: str, text: str) -> bytes:
    """Write one message. Shape: RFC 5424, with the text as UTF-8."""
    name = socket.gethostname()[:255] or "-"
    head = f"<{PRIORITY}>1 {clock.now():%Y-%m-%dT%H:%M:%S.%fZ} {name} polar - event"
    return f"{head} [polar@{ENTERPRISE} {facts}] \ufeff{text}".encode()
