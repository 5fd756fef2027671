"""Hosts that keep a copy of the log: a counting HTTP host, a locking bucket, syslog.

Each refuses what the real one refuses: a gap, an object written twice, a signature
that is not the vendor's, a lock that is missing.
"""

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from apps.audit.adapters.sigv4 import Signer


class LogHost:
    """Counts for itself, as docs/how-to/keep-the-log-elsewhere.md says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.epochs: list[str] = []
        self.token = "letter-to-the-host"
        self.is_down = False

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        if self.is_down:
            return 503, {}, b""
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {}, b""
        status = 200
        if method == "POST" and "Polar-Epoch" in headers:
            self.epochs.append(headers["Polar-Epoch"])
            del self.lines[int(re.findall(rb'"fork": (\d+)', body)[0]) :]
        elif method == "POST":
            if int(headers["Polar-First-Seq"]) == len(self.lines):
                self.lines += body.decode().splitlines()
            else:
                status = 409
        said = b'{"lastContiguousSeq": %d}' % (len(self.lines) - 1)
        return status, {"Polar-Immutable": "write-once disk"}, said


class Bucket:
    """A bucket with object lock that checks signatures as the vendor does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.locks: dict[str, tuple[str, str]] = {}
        self.signer = Signer("AKIDEXAMPLE", "top-secret", "eu-central-1")
        self.is_down = False
        self.page = 3

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        if self.is_down:
            return 503, {}, b"<Error><Code>SlowDown</Code></Error>"
        if not self._is_signed(method, path, headers, body):
            return 403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query, True).items()}
        key = parts.path.removeprefix("/logs").lstrip("/")
        if method == "PUT":
            return self._put(key, headers, body)
        if "retention" in query:
            mode, until = self.locks[key]
            text = f"<Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate>"
            return 200, {}, f"<Retention>{text}</Retention>".encode()
        return 200, {}, self._list(query).encode()

    def _is_signed(self, method: str, path: str, headers: Any, body: bytes) -> bool:
        given = headers.get("Authorization", "")
        signed = re.search(r"SignedHeaders=([^,]+)", given)
        if signed is None:
            return False
        names = set(signed[1].split(";")) - {
            "host",
            "x-amz-date",
            "x-amz-content-sha256",
        }
        stamp = headers["x-amz-date"].replace("Z", "+0000")
        at = datetime.strptime(stamp, "%Y%m%dT%H%M%S%z")
        mine = self.signer.headers(
            method,
            f"http://{headers['Host']}{path}",
            body=body,
            at=at,
            more={name: headers[name] for name in names},
        )
        return mine["authorization"] == given

    def _put(self, key: str, headers: Any, body: bytes) -> Any:
        if headers.get("If-None-Match") == "*" and key in self.objects:
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        summed = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if headers.get("x-amz-checksum-sha256") != summed:
            return 400, {}, b"<Error><Code>BadDigest</Code></Error>"
        self.objects[key] = body
        self.locks[key] = (
            headers.get("x-amz-object-lock-mode", ""),
            headers.get("x-amz-object-lock-retain-until-date", ""),
        )
        return 200, {}, b""

    def _list(self, query: dict[str, str]) -> str:
        prefix = query.get("prefix", "")
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        names = sorted(
            name for name in self.objects if name.startswith(prefix) and name > after
        )
        if query.get("delimiter"):
            folders = {prefix + n[len(prefix) :].split("/")[0] + "/" for n in names}
            return "".join(
                f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>"
                for each in sorted(folders)
            )
        said = [f"<Contents><Key>{n}</Key></Contents>" for n in names[: self.page]]
        if len(names) > self.page:
            said.append(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>"
                f"{names[self.page - 1]}</NextContinuationToken>"
            )
        return "<ListBucketResult>" + "".join(said) + "</ListBucketResult>"


@contextmanager
def served(host: Any) -> Iterator[int]:
    """Serve a host on loopback; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802 (the library's name)
            length = int(self.headers.get("Content-Length") or 0)
            status, headers, body = host.answer(
                self.command, self.path, self.headers, self.rfile.read(length)
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Syslog:
    """Reads octet-counted messages until the sender is done, then closes."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._server.accept()
            except OSError:
                return
            with wire:
                raw = wire.makefile("rb").read()
                while raw:  # the sender is told by the close that all was taken
                    count, _, rest = raw.partition(b" ")
                    self.messages.append(rest[: int(count)].decode())
                    raw = rest[int(count) :]

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
