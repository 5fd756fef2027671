"""The wall around the suite: a test that reaches for the network fails.

Loopback and Unix sockets pass, since databases and brokers of the suite live there.
"""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

LOOPBACK_NAMES = frozenset({"", "localhost", "ip6-localhost", "testserver"})


class NetworkBlocked(AssertionError):
    """A test reached for the network."""


def is_loopback(host: Any) -> bool:
    """Tell whether a host stays on this machine."""
    text = host.decode() if isinstance(host, bytes) else host
    if text is None or text in LOOPBACK_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(text).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _check(kept: socket.socket, address: Any) -> None:
    inside = kept.family not in (socket.AF_INET, socket.AF_INET6)
    if not inside and not is_loopback(address[0]):
        raise NetworkBlocked(f"blocked: connection to {address[0]}")


@contextmanager
def blocked() -> Iterator[None]:
    """Refuse connections and look-ups that would leave this machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    sendto, lookup = socket.socket.sendto, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _check(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _check(self, address)
        return connect_ex(self, address)

    def guarded_sendto(self: socket.socket, data: Any, *rest: Any) -> int:
        _check(self, rest[-1])
        return sendto(self, data, *rest)

    def guarded_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        literal = host is not None and _is_address(host)
        if not literal and not is_loopback(host):
            raise NetworkBlocked(f"blocked: look-up of {host}")
        return lookup(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket.socket, "sendto", guarded_sendto)
        patch.setattr(socket, "getaddrinfo", guarded_lookup)
        yield


def _is_address(host: Any) -> bool:
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    return True
