"""The one way out. Every outbound HTTP request passes an address check.

The check stands where the connection is made, on the resolved address, so that
a name that resolves to an inside address, a redirect or a rebinding finds the
same wall. Proxies from the environment are never used. Local model servers are
reached only as the exact host:port that an operator wrote down.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
from django.conf import settings

from .errors import Denied

SCHEMES = {"http": 80, "https": 443}
MOST_REDIRECTS = 3
#: Where the doubles of a drill's clone are; it reaches nothing else.
LOOPBACK = "127.0.0.1"
#: NAT64 and other ranges that carry inside addresses in disguise.
REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
        "100.64.0.0/10",
        "192.88.99.0/24",
    )
)
#: All of IPv6 that is ever routed; what lies outside holds old disguises.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


class EgressRefused(Denied):
    """This address may not be reached."""

    code = "POLAR_EGRESS_REFUSED"


def check_url(url: str, *, local: Collection[str] = ()) -> list[str]:
    """Resolve a URL's host and return the addresses that may be connected to.

    Reads: DNS.   Raises: EgressRefused when any address is not public, unless
    the exact host:port stands in `local`.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise EgressRefused(f"Only http and https URLs with a host: {url[:80]!r}.")
    if parts.username or parts.password:
        raise EgressRefused("A URL must not carry a user name or password.")
    return check_host(
        parts.hostname, parts.port or SCHEMES[parts.scheme], local=frozenset(local)
    )


def check_host(host: str, port: int, *, local: frozenset[str]) -> list[str]:
    """Return the addresses of a host, all of them allowed, or refuse."""
    is_double = host == LOOPBACK and f"{host}:{port}" in settings.POLAR_CLONE_REACHES
    if settings.POLAR_CLONE and not is_double:
        raise EgressRefused("This is a drill's clone: it reaches its doubles alone.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host} has no address") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if f"{host}:{port}" in local:
        return addresses
    for address in addresses:
        if not is_public(address):
            raise EgressRefused(
                f"{host} leads to {address}, which is not a public address.",
                reason_code="constraint_violated",
            )
    return addresses


def is_public(address: str) -> bool:
    """Tell whether an address belongs to the public internet."""
    parsed: Any = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        return is_public(str(mapped))
    if parsed.version == 6 and parsed not in GLOBAL_UNICAST:
        return False
    refused = any(
        parsed in network
        for network in REFUSED_NETWORKS
        if network.version == parsed.version
    )
    return parsed.is_global and not parsed.is_multicast and not refused


class GuardedTransport(httpx.HTTPTransport):
    """Sends to the checked address with the original name in Host and SNI."""

    def __init__(self, *, local: Collection[str] = (), **options: Any) -> None:
        options.setdefault("verify", _authorities())
        super().__init__(trust_env=False, **options)
        self._local = frozenset(local)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _pin(request, self._local)
        return super().handle_request(request)


class AsyncGuardedTransport2(httpx2.AsyncHTTPTransport):
    """The same wall for the client that model and MCP libraries use."""

    def __init__(self, *, local: Collection[str] = (), **options: Any) -> None:
        super().__init__(trust_env=False, **options)
        self._local = frozenset(local)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # Look-ups block; the loop that everybody shares must not.
        await asyncio.to_thread(_pin, request, self._local)
        return await super().handle_async_request(request)


def client(*, local: Collection[str] = (), **options: Any) -> httpx.Client:
    """Make an HTTP client behind the wall.

    Units: timeouts in seconds; connect 5 s unless `options` say otherwise.
    """
    options.setdefault("timeout", httpx.Timeout(30.0, connect=5.0))
    return httpx.Client(
        transport=GuardedTransport(local=local),
        trust_env=False,
        max_redirects=MOST_REDIRECTS,
        **options,
    )


@cache
def _authorities() -> Any:
    """Whose certificates are believed. Read once: it takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)


def open_socket(
    host: str, port: int, *, local: Collection[str] = (), timeout: float
) -> socket.socket:
    """Connect to a checked address, for protocols that httpx does not speak.

    Raises: EgressRefused; OSError when nobody answers.   Units: seconds.
    """
    addresses = check_host(host, port, local=frozenset(local))
    return socket.create_connection((addresses[0], port), timeout=timeout)


def _pin(request: Any, local: frozenset[str]) -> None:
    """Swap the host for its checked address; keep the name for Host and TLS."""
    host = request.url.host
    addresses = check_url(str(request.url), local=local)
    request.headers.setdefault("Host", request.url.netloc.decode())
    if request.url.scheme == "https":
        request.extensions = {**request.extensions, "sni_hostname": host}
    request.url = request.url.copy_with(host=addresses[0])
