"""The one way out of the sandbox, for a process that was granted domains.

Hides: how a proxy reaches into a network namespace. A process keeps its namespace
without any network; in it listens a relay, on loopback, that knows one Unix socket
of ours. Whoever speaks HTTP proxy through it comes out here, where the host is
compared with the granted domains and the address passes `common.egress`. A program
that does not use the proxy reaches nothing. Invariants: only while something is
asked of the process; ports 80 and 443, or exactly the host:port that was written
down; what was refused is remembered for whoever reads the answer.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from apps.common import egress
from apps.common.errors import PolarError
from apps.extensions.adapters.narrowing import covers

#: Where the relay finds our socket, and where it listens itself.
SOCKET = "/run/polar/egress.sock"
OWN_PYTHON = "/run/polar/python"
PROXY = "http://127.0.0.1:3128"
ENV = {
    name: PROXY
    for each in ("http_proxy", "https_proxy", "all_proxy")
    for name in (each, each.upper())
} | {"NODE_USE_ENV_PROXY": "1"}
PORTS = (80, 443)
HEADER_BYTES = 16_384
HEADER_SECONDS = CONNECT_SECONDS = 10.0
#: A tunnel that says nothing for this long is closed. Units: seconds.
IDLE_SECONDS = 60.0
MOST_TUNNELS = 32
MOST_REFUSED = 20
CHUNK = 65_536

#: Listens before the program starts, then is the program; a child of it relays.
RELAY = f"""
import asyncio, os, socket, sys
door = socket.create_server(("127.0.0.1", {PROXY.rpartition(":")[2]}))
if os.fork():
    door.close()
    os.execvp(sys.argv[1], sys.argv[1:])
void = os.open(os.devnull, os.O_RDWR)
for each in (0, 1, 2):
    os.dup2(void, each)
async def pump(source, sink):
    try:
        while data := await source.read({CHUNK}):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.close()
async def relay(heard, said):
    try:
        back, out = await asyncio.open_unix_connection({SOCKET!r})
        await asyncio.gather(pump(heard, out), pump(back, said))
        out.close()
    finally:
        said.close()
async def main():
    async with await asyncio.start_server(relay, sock=door) as server:
        await server.serve_forever()
asyncio.run(main())
"""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Outlet:
    """What one process may reach, and a socket by which it does."""

    def __init__(
        self,
        domains: tuple[str, ...],
        local: frozenset[str],
        is_asked: Callable[[], bool],
    ) -> None:
        self._domains, self._local, self._is_asked = domains, local, is_asked
        #: Hosts that it asked for in vain, in order.
        self.refused: dict[str, None] = {}
        self._folder = ""
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen where nobody else of this host may walk in."""
        self._folder = tempfile.mkdtemp(prefix="polar-egress-")
        self._server = await asyncio.start_unix_server(
            self._serve, self._path, limit=HEADER_BYTES
        )
        # The child's own user writes to it; the folder around it is ours alone.
        os.chmod(self._path, 0o666)  # noqa: S103 # nosec B103

    def close(self) -> None:
        """Let nothing more through. Again: does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for tunnel in list(self._tunnels):
            tunnel.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def mounts(self) -> Iterator[str]:
        """Words for bubblewrap: our socket, and the Python that relays."""
        yield from ("--dir", "/run", "--dir", os.path.dirname(SOCKET))
        yield from ("--ro-bind", self._path, SOCKET)
        if not _system_python():
            yield from ("--ro-bind", sys.base_prefix, OWN_PYTHON)

    def wrapped(self) -> list[str]:
        """The words before the program's own."""
        python = _system_python() or f"{OWN_PYTHON}/bin/python3"
        return [python, "-I", "-S", "-c", RELAY]

    @property
    def complaint(self) -> str:
        return f"It was refused: {', '.join(self.refused)}." if self.refused else ""

    @property
    def _path(self) -> str:
        return str(Path(self._folder, "egress.sock"))

    async def _serve(
        self, heard: asyncio.StreamReader, said: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tunnels.add(task)
        try:
            if len(self._tunnels) <= MOST_TUNNELS:
                await self._tunnel(heard, said)
        except (OSError, ValueError, asyncio.IncompleteReadError, TimeoutError):
            pass  # it broke off, or spoke something else
        finally:
            self._tunnels.discard(task)
            said.close()

    async def _tunnel(
        self, heard: asyncio.StreamReader, said: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(HEADER_SECONDS):
            head = await heard.readuntil(b"\r\n\r\n")
        method, url, first = _asked(head)
        try:
            host, port = _aim(method, url)
            back, out = await self._connect(host, port)
        except (PolarError, httpx.ConnectError) as refusal:
            await _refuse(said, str(refusal))
            return
        try:
            if method == "CONNECT":
                said.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                out.write(first)
            await asyncio.gather(_pump(heard, out), _pump(back, said))
        finally:
            out.close()

    async def _connect(self, host: str, port: int) -> Streams:
        """Raises: EgressRefused; httpx.ConnectError without an address; OSError."""
        written = f"{host}:{port}" in self._local
        granted = any(covers(pattern, host) for pattern in self._domains)
        if not self._is_asked() or not (written or (granted and port in PORTS)):
            self._note(f"{host}:{port}")
            raise egress.EgressRefused(f"{host}:{port} is not granted.")
        try:
            addresses = await asyncio.to_thread(
                egress.check_host, host, port, local=self._local
            )
        except egress.EgressRefused:
            self._note(f"{host}:{port}")
            raise
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(addresses[0], port)

    def _note(self, where: str) -> None:
        if len(self.refused) < MOST_REFUSED:
            self.refused[where[:200]] = None


def _asked(head: bytes) -> tuple[str, str, bytes]:
    """Read a request's head. Returns the method, the target, and, for what is no
    tunnel, the head that the server is sent. Raises: ValueError."""
    line, *headers = head.decode("latin-1").split("\r\n")
    method, url, version = line.split(" ")
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    kept = [each for each in headers if each and not _is_hop(each)]
    lines = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
    return method, url, "\r\n".join(lines).encode("latin-1")


def _is_hop(header: str) -> bool:
    name = header.partition(":")[0].strip().lower()
    return name.startswith("proxy-") or name in ("connection", "keep-alive")


def _aim(method: str, url: str) -> tuple[str, int]:
    """Raises: EgressRefused for what is neither a tunnel nor plain HTTP."""
    parts = urlsplit(f"//{url}" if method == "CONNECT" else url)
    port = parts.port or (443 if method == "CONNECT" else 80)
    if not parts.hostname or (method != "CONNECT" and parts.scheme != "http"):
        raise egress.EgressRefused("Only CONNECT, or a request for an http URL.")
    return parts.hostname.lower(), port


async def _refuse(said: asyncio.StreamWriter, why: str) -> None:
    text = why.encode()
    said.write(
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(text), text)
    )
    with suppress(OSError):
        await said.drain()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError, TimeoutError):
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                data = await source.read(CHUNK)
            if not data:
                break
            sink.write(data)
            await sink.drain()
        sink.write_eof()


def _system_python() -> str:
    """The Python that every child sees, where this host has one."""
    return shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or ""
