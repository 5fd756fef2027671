"""What is revoked at one web process is refused by the next request at another; and no
secret that came in by any door is left anywhere.

POLAR_DOOR_TRIALS: how many tokens are revoked.
"""

import json
import os
import re
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.fakes.openai_server import FakeOpenAI, openai_server
from tests.journeys import leaks
from tests.journeys.processes import House, eventually, house
from tests.journeys.storm import end
from tests.services import free_port

pytestmark = pytest.mark.journey

TRIALS = int(os.environ.get("POLAR_DOOR_TRIALS", "1"))
KEY = "sk-canary-31f7a0d94c5e"
FIRST = "canary-first-secret-of-the-ui-5d1"
SECOND = "canary-second-secret-of-the-ui-8c2"
GUESSED = "canary-token-that-nobody-has-77b"
MISTYPED = "canary password typed wrongly 90e"
MARKER = "marker-c41f9"


class Web:
    """A web process of its own port."""

    def __init__(self, polar: House) -> None:
        self.port = free_port()
        self.process = polar.start("serve", str(self.port))

    def send(
        self, method: str, path: str, token: str = "", body: object = None
    ) -> tuple[int, dict[str, str]]:
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code, {}
        except OSError:
            return 0, {}

    def asks(self, token: str) -> int:
        return self.send("GET", "/api/v1/tokens", token)[0]

    def is_up(self) -> bool:
        return self.send("GET", "/healthz")[0] == 200


@pytest.fixture
def vendor() -> Iterator[FakeOpenAI]:
    with openai_server() as server:
        server.accepted_keys = {KEY}
        yield server


@pytest.fixture
def polar(tmp_path: Path, vendor: FakeOpenAI) -> Iterator[House]:
    with house(tmp_path, "seed_demo") as built:
        built.env["JOURNEY_RECEIVER"] = "http://127.0.0.1:9/"
        built.env["JOURNEY_UI_SECRET"] = FIRST
        document = tmp_path.parent / f"{tmp_path.name}-document.json"
        provider = {
            "kind": "openai_compatible",
            "baseUrl": vendor.url,
            "models": [{"name": "fake-1"}],
            "key": KEY,
        }
        routes = {"routes": [{"provider": "openai", "model": "fake-1"}]}
        sections = {
            "providers": {"openai": provider},
            "lanes": dict.fromkeys(("brain", "worker"), routes),
        }
        document.write_text(
            json.dumps({"format": "polar-config/1", "sections": sections})
        )
        assert built.do("config", "import", "--file", str(document)) == 0
        document.unlink()
        yield built
        for process in built.processes:
            end(process)


def test_revoked_here_is_refused_there_and_no_secret_is_left(polar: House) -> None:
    one, other = Web(polar), Web(polar)
    worker = polar.start("worker")
    assert eventually(lambda: one.is_up() and other.is_up()), polar.output()
    tokens, seconds = [], []
    for number in range(TRIALS):
        status, made = one.send(
            "POST", "/api/v1/tokens", FIRST, {"name": f"t{number}", "scopes": ["*"]}
        )
        assert status == 201
        tokens.append(made["token"])
        seconds.append(revoke(one, other, made))
    told = f"median {statistics.median(seconds):.3f} s, most {max(seconds):.3f} s"
    sys.stdout.write(f"revoked tokens: {TRIALS}, the last let in after {told}\n")

    status, run = one.send("POST", "/api/v1/orchestrate", FIRST, {"text": MARKER})
    assert status == 202
    done = "SELECT 1 FROM runs_run WHERE kind = 'agents.turn' AND state = 'succeeded'"
    assert eventually(lambda: bool(polar.rows(done))), polar.output()

    third = new_secret(polar, [one, other])
    assert third.asks(GUESSED) == 401
    mistype(third)
    secrets = [KEY, FIRST, SECOND, GUESSED, MISTYPED, *tokens]
    assert worker.poll() is None
    read = leaks.seek(polar, secrets, MARKER)
    sys.stdout.write(f"{len(secrets)} secrets sought in {read} bytes\n")


def revoke(one: Web, other: Web, made: dict[str, str]) -> float:
    """End a token at one web process while it is used at the other.

    Returns how long after the order the other still let it in. Units: seconds.
    """
    token, over = made["token"], threading.Event()
    let_in, refused = [], threading.Event()

    def use() -> None:
        while not over.is_set() and not refused.is_set():
            begun = time.monotonic()
            if other.asks(token) == 200:
                let_in.append(begun)
            else:
                refused.set()

    assert other.asks(token) == 200
    user = threading.Thread(target=use)
    user.start()
    assert eventually(lambda: bool(let_in))
    ordered = time.monotonic()
    assert one.send("DELETE", f"/api/v1/tokens/{made['id']}", FIRST)[0] == 204
    confirmed = time.monotonic()

    # Whatever is asked after the order was confirmed is refused.
    assert other.asks(token) == one.asks(token) == 401
    assert refused.wait(30)
    over.set()
    user.join()
    assert max(let_in) < confirmed
    return max(0.0, max(let_in) - ordered)


def new_secret(polar: House, running: list[Web]) -> Web:
    """Change `POLAR_UI_API_SECRET` and start another web process; those that serve
    with the one before are left alone."""
    assert [web.asks(FIRST) for web in running] == [200, 200]
    polar.env["JOURNEY_UI_SECRET"] = SECOND
    begun = time.monotonic()
    third = Web(polar)
    assert eventually(third.is_up), polar.output()

    assert [web.asks(FIRST) for web in [*running, third]] == [401] * 3
    assert [web.asks(SECOND) for web in [*running, third]] == [200] * 3
    sys.stdout.write(
        f"new UI secret: holds everywhere {time.monotonic() - begun:.3f} s after the "
        "start of one process with it\n"
    )
    return third


def mistype(web: Web) -> None:
    """Sign in as a person does, with a wrong password."""
    opener = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(CookieJar())
    )
    address = f"http://127.0.0.1:{web.port}/login/"
    with opener.open(address, timeout=30) as page:
        (token,) = re.findall(
            r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode()
        )
    form = {"csrfmiddlewaretoken": token, "username": "ada", "password": MISTYPED}
    with opener.open(address, urlencode(form).encode(), timeout=30) as page:
        assert "correct user" in page.read().decode()
