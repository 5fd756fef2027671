"""A page of somebody else in the operator's browser reads and changes nothing."""

import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Role
from apps.boards import services as boards
from apps.boards.models import Board, Task
from apps.gateway.models import Halt
from tests import people
from tests.desk import browser

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        shutil.which("chromium") is None, reason="Chromium is not installed"
    ),
]

#: Whatever a page can try with the visitor's cookies; each gives a word.
TRIES = """async ([base, board]) => {
  const read = (path) => fetch(base + path, {credentials: "include"})
    .then((answer) => answer.text(), () => "unreadable");
  const write = (path, type, body) => fetch(base + path, {
    method: "POST", credentials: "include", mode: "no-cors", body,
    headers: {"Content-Type": type},
  }).then(() => "sent", () => "not sent");
  const halt = JSON.stringify({scope: "all", reason: "planted"});
  await write("/api/v1/halts", "text/plain", halt);
  const form = "application/x-www-form-urlencoded";
  await write(`/boards/${board}/new/`, form, "title=planted");
  return Promise.all(["/", "/api/v1/agents", `/boards/${board}/`].map(read));
}"""
#: The browser says of a frame that it refused only that it is empty.
FRAMED = """(base) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.onload = () => {
    try { done(frame.contentDocument ? "same" : "kept apart"); }
    catch (error) { done("kept apart"); }
  };
  frame.src = base; document.body.append(frame);
})"""
#: A form needs no script and no preflight: the oldest way in.
FORM = """([base, board]) => {
  const form = document.createElement("form");
  form.method = "post"; form.action = `${base}/boards/${board}/new/`;
  form.innerHTML = '<input name="title" value="planted">';
  document.body.append(form); form.submit();
}"""


class Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Win a bear</title><body>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """Another site of this machine.   Shape: its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def board(transactional_db: None) -> Board:
    return boards.ensure_board(
        by=access.system_principal(),
        workspace=access.ensure_default_workspace(),
        slug="default",
        title="Secret plans",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_page_of_another_site_reads_nothing_and_changes_nothing(
    board: Board, live_server: Any, elsewhere: int, monkeypatch: Any, host: str
) -> None:
    """Another port of one host gets the cookie; another host does not even get that."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    ada = people.person("ada", Role.ADMIN, board.workspace)
    base = live_server.url.replace("localhost", "127.0.0.1")
    with browser.chromium() as chromium:
        desk = browser.sit_down(chromium, base, ada)
        assert desk.go(f"/boards/{board.id}/") == 200
        page = desk.page.context.new_page()
        page.goto(f"http://{host}:{elsewhere}/")

        told = page.evaluate(TRIES, [base, str(board.id)])
        framed = page.evaluate(FRAMED, base)
        with page.expect_navigation():
            page.evaluate(FORM, [base, str(board.id)])
        answered = page.content()

    assert told == ["unreadable"] * 3
    assert framed == "kept apart"
    assert "Secret plans" not in answered
    assert not Task.objects.exists()
    assert not Halt.objects.exists()
