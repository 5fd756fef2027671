"""Over two hundred ways to ask for an inside address: none is connected to.

The resolver is ours and understands what a C library understands; every connect
of this process is written down, and listeners on loopback hear nothing.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator

import httpx
import httpx2
import pytest

from apps.common import egress
from apps.common.egress import AsyncGuardedTransport2, EgressRefused

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 (an address to refuse)
    "10.0.0.7",
    "10.255.255.255",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "192.168.255.254",
    "198.18.0.1",
    "224.0.0.251",
    "255.255.255.255",
]
INSIDE_6 = [
    "::", "::1", "fe80::1", "fe80::1%25lo", "fc00::1", "fd00:ec2::254", "ff02::1",
    "fec0::1", "100::1", "2001:db8::1", "2001::1", "0:0:0:0:0:0:0:1",
    "0000:0000:0000:0000:0000:0000:0000:0001",
]  # fmt: skip
NAMES = {
    "localhost": "127.0.0.1",
    "localhost.localdomain": "127.0.0.1",
    "metadata.google.internal": "169.254.169.254",
    "metadata": "169.254.169.254",
    "127.0.0.1.nip.example": "127.0.0.1",
    "evil.example": "10.0.0.7",
    "evil6.example": "::1",
    "mapped.example": "::ffff:127.0.0.1",
    "nat64.example": "64:ff9b::7f00:1",
    "xn--lclhst-wva.example": "127.0.0.1",
    "good.example": "1.1.1.1",
}
SCHEMES = (
    "file:///etc/passwd", "unix:///var/run/docker.sock", "http+unix://%2Frun%2Fx/",
    "unix:/run/x", "gopher://127.0.0.1:6379/_x", "dict://127.0.0.1:11211/",
    "ftp://127.0.0.1/", "ldap://127.0.0.1/", "tftp://127.0.0.1/", "jar:http://a!/",
    "netdoc:///etc/passwd", "data:text/plain,x", "javascript:alert(1)", "//127.0.0.1/",
    "http:127.0.0.1/", "http:/127.0.0.1/", "http:///127.0.0.1/", "https://", "",
)  # fmt: skip
PORT = 8


def forms_of(address: str) -> Iterator[str]:
    """Write one IPv4 address in every way that some parser accepts."""
    a, b, c, d = (int(part) for part in address.split("."))
    whole = int(ipaddress.ip_address(address))
    yield address
    yield f"{address}."
    yield str(whole)
    yield hex(whole)
    yield f"0{whole:o}"
    yield f"{a:#x}.{b:#x}.{c:#x}.{d:#x}"
    yield f"0{a:o}.0{b:o}.0{c:o}.0{d:o}"
    yield f"{a}.{(b << 16) + (c << 8) + d}"
    yield f"{a}.{b}.{(c << 8) + d}"
    yield f"{a:#x}.{b}.0{c:o}.{d}"
    yield address.replace(".", "%2e")
    yield "".join(chr(0xFF10 + int(x)) if x.isdigit() else "。" for x in address)
    yield "".join(chr(0xFF10 + int(x)) if x.isdigit() else x for x in address)
    yield f"[::ffff:{address}]"
    yield f"[::ffff:{a << 8 | b:x}:{c << 8 | d:x}]"
    yield f"[::{address}]"
    yield f"[64:ff9b::{address}]"
    yield f"[2002:{a << 8 | b:x}:{c << 8 | d:x}::]"


def corpus() -> list[str]:
    """Return every payload once."""
    found = [f"http://{f}:{PORT}/" for each in INSIDE for f in forms_of(each)]
    found += [f"http://[{each}]:{PORT}/" for each in INSIDE_6]
    found += [f"http://{n}:{PORT}/" for n in NAMES if n != "good.example"]
    found += [f"https://{n}/" for n in NAMES if n != "good.example"]
    found += list(SCHEMES)
    for trick in (
        "http://good.example@127.0.0.1:{p}/",
        "http://good.example:x@127.0.0.1:{p}/",
        "http://127.0.0.1:{p}#@good.example/",
        "http://127.0.0.1:{p}?@good.example/",
        "http://127.0.0.1:{p}/@good.example/",
        "http://good.example%40127.0.0.1:{p}/",
        "http://good.example\\@127.0.0.1:{p}/",
        "http://127.0.0.1\\@good.example:{p}/",
        "http://127.0.0.1%00.good.example:{p}/",
        "http://127.0.0.1%09:{p}/",
        "http://127.0.0.1 :{p}/",
        "http://127.0.0.1\r\nHost: good.example:{p}/",
        "http://good.example@evil.example:{p}/",
        "http://①②⑦.⓪.⓪.①:{p}/",
        "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{p}/",
        "http://LOCALHOST:{p}/",
        "http://localhost.:{p}/",
        "http://127.1:{p}/",
        "http://0:{p}/",
        "http://00000177.1:{p}/",
    ):
        found.append(trick.replace("{p}", str(PORT)))
    return list(dict.fromkeys(found))


CORPUS = corpus()
REFUSALS = (
    EgressRefused,
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    UnicodeError,
    ValueError,
)


def lookup(host, port, *_, **__):
    """Answer as a C library does, and from the table."""
    text = host.decode() if isinstance(host, bytes) else str(host)
    plain = text.strip("[]").rstrip(".")
    for read in (_literal, _number, _named):
        found = read(plain)
        if found:
            kind = socket.AF_INET6 if ":" in found else socket.AF_INET
            return [(kind, socket.SOCK_STREAM, 6, "", (found, port or 80))]
    raise socket.gaierror("unknown")


def _literal(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _number(text: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except (OSError, UnicodeError):
        return ""


def _named(text: str) -> str:
    return NAMES.get(text.lower(), "")


@pytest.fixture
def connects(monkeypatch) -> list[str]:
    """Every address that this process tries to connect to; none is reached."""
    tried: list[str] = []

    def connect(self, address):
        tried.append(str(address[0]) if isinstance(address, tuple) else str(address))
        raise ConnectionRefusedError(111, "refused by the test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return tried


def test_corpus_is_large_enough():
    assert len(CORPUS) >= 200


@pytest.mark.parametrize("url", CORPUS, ids=ascii)
def test_payload_reaches_nothing_inside(connects, url):
    with egress.client(follow_redirects=True) as client, pytest.raises(REFUSALS):
        client.get(url)

    assert [each for each in connects if not egress.is_public(each)] == []


def test_whole_corpus_over_the_shared_loop_reaches_nothing_inside(connects):
    async def ask_all() -> int:
        refused = 0
        async with httpx2.AsyncClient(
            transport=AsyncGuardedTransport2(), trust_env=False
        ) as client:
            for url in CORPUS:
                try:
                    await client.get(url)
                except REFUSALS:
                    refused += 1
        return refused

    assert asyncio.run(ask_all()) == len(CORPUS)
    assert [each for each in connects if not egress.is_public(each)] == []


def test_name_that_changes_its_answer_is_connected_to_where_it_was_checked(
    connects, monkeypatch
):
    """Rebinding: public when asked first, inside for whoever asks again."""
    answers = iter(["1.1.1.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"])

    def rebind(host, port, *_, **__):
        literal = _literal(str(host))
        return [(2, 1, 6, "", (literal or next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    with egress.client() as client, pytest.raises(httpx.ConnectError):
        client.get("http://rebind.example/")

    assert connects == ["1.1.1.1"]


def test_name_with_one_inside_answer_among_many_is_refused(connects, monkeypatch):
    def many(host, port, *_, **__):
        addresses = ("1.1.1.1", "1.0.0.1", "192.168.0.1")
        return [(2, 1, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", many)
    with egress.client() as client, pytest.raises(EgressRefused):
        client.get("http://mixed.example/")

    assert connects == []


class Listener:
    """A loopback server that counts who connects and answers one thing."""

    def __init__(self, answer: bytes) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.port = self.socket.getsockname()[1]
        self.heard = 0
        self._answer = answer
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.socket.close()

    def _serve(self) -> None:
        while not self._done.is_set():
            try:
                peer, _ = self.socket.accept()
            except TimeoutError:
                continue
            with peer:
                self.heard += 1
                peer.recv(65_536)
                peer.sendall(self._answer)


def moved_to(url: str) -> bytes:
    head = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n"
    return f"{head}Connection: close\r\n\r\n".encode()


SECRET = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_redirect_to_the_inside_is_not_followed(host):
    """The first hop is allowed as an operator wrote it down; the second is not."""
    with Listener(SECRET) as victim:
        inside = f"http://{host}:{victim.port}/"
        with Listener(moved_to(inside)) as first:
            allowed = {f"127.0.0.1:{first.port}"}
            with (
                egress.client(local=allowed, follow_redirects=True) as client,
                pytest.raises(EgressRefused),
            ):
                client.get(f"http://127.0.0.1:{first.port}/")
            assert first.heard == 1
        assert victim.heard == 0


def test_real_listener_on_loopback_hears_none_of_the_corpus(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with Listener(SECRET) as victim, egress.client(timeout=1.0) as client:
        for url in CORPUS:
            aimed = url.replace(f":{PORT}/", f":{victim.port}/")
            with pytest.raises(REFUSALS):
                client.get(aimed)
        assert victim.heard == 0


def test_redirects_end(monkeypatch):
    with Listener(b"") as loop:
        loop._answer = moved_to(f"http://127.0.0.1:{loop.port}/")
        local = {f"127.0.0.1:{loop.port}"}
        with (
            egress.client(local=local, follow_redirects=True) as client,
            pytest.raises(httpx.TooManyRedirects),
        ):
            client.get(f"http://127.0.0.1:{loop.port}/")
        assert loop.heard == egress.MOST_REDIRECTS + 1


def test_lookup_does_not_hold_up_the_loop(connects, monkeypatch):
    """A slow resolver of one call leaves the other calls of the loop alone."""
    released = threading.Event()

    def slow(host, port, *_, **__):
        assert released.wait(5)
        return lookup(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def ask() -> str:
        async with httpx2.AsyncClient(
            transport=AsyncGuardedTransport2(), trust_env=False
        ) as client:
            asking = asyncio.create_task(client.get("http://good.example/"))
            await asyncio.sleep(0.05)
            state = "waiting" if not asking.done() else "done"
            released.set()
            with pytest.raises(httpx2.ConnectError):
                await asking
        return state

    assert asyncio.run(ask()) == "waiting"
