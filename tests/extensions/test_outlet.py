"""A process that was granted domains reaches those, by the wall, and nothing else."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from apps.common import egress
from apps.extensions import ports
from apps.extensions.adapters import outlet, sandbox
from tests.extensions import hostile
from tests.extensions.hostile import execute, source, target, write

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        not sandbox.isolation().is_available, reason=sandbox.isolation().detail
    ),
]

FETCH = """
import urllib.request, urllib.error
try:
    with urllib.request.urlopen({url!r}, timeout=4) as answer:
        return answer.read().decode()
except urllib.error.HTTPError as error:
    return [error.code, error.read().decode()]
"""
TUNNEL = """
import http.client
way = http.client.HTTPConnection('127.0.0.1', 3128, timeout=4)
way.set_tunnel({host!r}, {port})
way.request('GET', '/')
return way.getresponse().read().decode()
"""


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.heard.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server on this host's own loopback."""
    found = HTTPServer(("127.0.0.1", 0), Answering)
    found.heard = []
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def attempt(rob):
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)

        def run(body: str, **grants):
            script = hostile.report(body)
            package = write(Path(folder) / "package", {"try.py": script})
            local = grants.pop("local", frozenset())
            made = source(package, grants=ports.Grants(**grants), local=local)
            return execute(rob, target(made, "try.py"))["got"]

        yield run


def at(server: HTTPServer) -> str:
    return f"127.0.0.1:{server.server_port}"


def test_host_that_was_written_down_is_reached(attempt, server):
    where = at(server)

    got = attempt(FETCH.format(url=f"http://{where}/a?b=1"), local={where})

    assert got == "hello"
    ((path, headers),) = server.heard
    assert (path, headers["Host"]) == ("/a?b=1", where)
    assert "Proxy-Connection" not in headers


def test_tunnel_leads_to_a_host_that_was_written_down(attempt, server):
    body = TUNNEL.format(host="127.0.0.1", port=server.server_port)

    assert attempt(body, local={at(server)}) == "hello"


@pytest.mark.parametrize(
    "url",
    [
        "http://{}/",
        "http://localhost:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://another.example/",
        "http://api.example.evil.test/",
    ],
)
def test_host_that_nobody_granted_is_refused_and_named(attempt, server, url):
    url = url.format(at(server), port=server.server_port)

    code, said = attempt(FETCH.format(url=url), domains=("api.example", "localhost"))

    assert code == 403
    assert "is not granted" in said
    assert server.heard == []


def test_granted_name_that_leads_inside_is_refused(attempt, server, monkeypatch):
    inside = [(2, 1, 6, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(egress.socket, "getaddrinfo", lambda *a, **k: inside)

    code, said = attempt(
        FETCH.format(url="http://api.example/"), domains=("*.example",)
    )

    assert code == 403
    assert "not a public address" in said


def test_granted_domain_is_connected_to_where_it_was_checked(
    attempt, server, monkeypatch
):
    monkeypatch.setattr(egress, "check_host", lambda *a, **k: ["127.0.0.1"])
    monkeypatch.setattr(outlet, "PORTS", (server.server_port,))

    url = f"http://api.example:{server.server_port}/"
    assert attempt(FETCH.format(url=url), domains=("api.example",)) == "hello"
    assert server.heard[0][1]["Host"].startswith("api.example")


def test_port_that_is_neither_of_the_two_is_refused(attempt):
    url = "http://api.example:22/"

    assert attempt(FETCH.format(url=url), domains=("api.example",))[0] == 403


def test_program_that_goes_past_the_proxy_reaches_nothing(attempt, server):
    body = f"socket.create_connection(('127.0.0.1', {server.server_port}), 2)"

    got = attempt(body, domains=("api.example",), local={at(server)})

    assert got == "ConnectionRefusedError"


def test_nothing_leaves_while_nothing_is_asked(attempt, server, monkeypatch):
    real = outlet.Outlet.__init__

    def idle(self, domains, local, is_asked):
        real(self, domains, local, lambda: False)

    monkeypatch.setattr(outlet.Outlet, "__init__", idle)
    where = at(server)

    assert attempt(FETCH.format(url=f"http://{where}/"), local={where})[0] == 403
    assert server.heard == []


@pytest.mark.parametrize(
    "said",
    [
        "GET / HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n",
        "GET file:///etc/passwd HTTP/1.1\\r\\n\\r\\n",
        "CONNECT 127.0.0.1:6379 HTTP/1.1\\r\\n\\r\\n",
        "CONNECT api.example:443@127.0.0.1:80 HTTP/1.1\\r\\n\\r\\n",
        "nonsense\\r\\n\\r\\n",
    ],
)
def test_what_is_no_request_for_a_granted_host_is_refused(attempt, server, said):
    body = f"""
way = socket.create_connection(('127.0.0.1', 3128), 4)
way.sendall("{said}".encode())
return way.recv(100).decode().split('\\r\\n')[0]
"""

    assert attempt(body, domains=("api.example",)) in ("HTTP/1.1 403 Forbidden", "")
    assert server.heard == []


def test_outlet_is_gone_with_its_process(attempt, server, monkeypatch):
    made: list[outlet.Outlet] = []
    real = outlet.Outlet.open

    async def remembered(self) -> None:
        made.append(self)
        await real(self)

    monkeypatch.setattr(outlet.Outlet, "open", remembered)

    attempt("return 1", domains=("api.example",))

    (one,) = made
    assert not Path(one._folder).exists()
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as door:
        door.connect(one._path)


def test_answer_names_what_was_refused(rob, tmp_path):
    body = "import urllib.request\nurllib.request.urlopen('http://another.example/')\n"
    tmp_path.chmod(0o755)
    package = write(tmp_path / "package", {"try.py": body})
    made = source(package, grants=ports.Grants(domains=("api.example",)))

    with pytest.raises(Exception, match=r"was refused: another\.example:80"):
        execute(rob, target(made, "try.py"))


def test_host_without_a_python_of_its_own_lends_ours(attempt, server, monkeypatch):
    monkeypatch.setattr(outlet, "_system_python", lambda: "")
    where = at(server)

    assert attempt(FETCH.format(url=f"http://{where}/"), local={where}) == "hello"
