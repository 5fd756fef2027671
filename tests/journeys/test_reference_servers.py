"""The reference servers of the MCP project, which nobody here wrote, by every door.

Each is installed, reviewed and enabled over the API; each of its tools is then called
by `executeExtension` and by an agent's turn; it is revoked while it works. `make
reference` fetches them by version (tests/reference) and runs this; the ordinary suite
has no network and leaves it out.
"""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from apps.access import services as access
from apps.access.models import Role
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation
from apps.extensions import ports, services
from apps.extensions.adapters import processes, sandbox
from apps.extensions.models import Extension
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.runs import services as runs
from tests import people
from tests.agents.conftest import FakeModel, asks, model, says

__all__ = ["model"]
FOLDER = os.environ.get("MCP_REFERENCE", "")
PROJECT = "node_modules/@modelcontextprotocol"
pytestmark = [
    pytest.mark.journey,
    pytest.mark.django_db,
    pytest.mark.skipif(
        not FOLDER or not shutil.which("node") or not sandbox.isolation().is_available,
        reason="the reference MCP servers are left out: run `make reference`",
    ),
]
#: What Polar says of a tool that it is served and cannot ask.
BY_TASK = "answers only by a task"
#: Polar offers a server neither roots nor sampling nor elicitation: it is not served
#: the tools that need them. Tool, arguments, what the answer holds.
EVERYTHING: list[tuple[str, dict[str, Any], str]] = [
    ("echo", {"message": "hi"}, "Echo: hi"),
    ("get-annotated-message", {"messageType": "error"}, "Error"),
    ("get-env", {}, "POLAR_EXTENSION"),
    ("get-resource-links", {"count": 2}, "demo://resource"),
    ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}, "demo://"),
    ("get-structured-content", {"location": "New York"}, "temperature"),
    ("get-sum", {"a": 2, "b": 3}, "is 5"),
    ("get-tiny-image", {}, "image/png"),
    ("gzip-file-as-resource", {"data": "data:text/plain,hi"}, "gzip"),
    ("simulate-research-query", {"topic": "ice"}, BY_TASK),
    ("toggle-simulated-logging", {}, "simulated"),
    ("toggle-subscriber-updates", {}, "simulated"),
    ("trigger-long-running-operation", {"duration": 0.2, "steps": 2}, "completed"),
]
FILES: list[tuple[str, dict[str, Any], str]] = [
    ("create_directory", {"path": "{}/d"}, "Successfully"),
    ("write_file", {"path": "{}/b.txt", "content": "old"}, "Successfully"),
    (
        "edit_file",
        {"path": "{}/b.txt", "edits": [{"oldText": "old", "newText": "new"}]},
        "+new",
    ),
    ("read_file", {"path": "{}/b.txt"}, "new"),
    ("read_text_file", {"path": "{}/b.txt"}, "new"),
    ("read_media_file", {"path": "{}/dot.png"}, "image/png"),
    ("read_multiple_files", {"paths": ["{}/b.txt"]}, "new"),
    ("list_directory", {"path": "{}"}, "b.txt"),
    ("list_directory_with_sizes", {"path": "{}"}, "b.txt"),
    ("directory_tree", {"path": "{}"}, "b.txt"),
    ("search_files", {"path": "{}", "pattern": "**/*.txt"}, "b.txt"),
    ("get_file_info", {"path": "{}/b.txt"}, "size"),
    ("list_allowed_directories", {}, "{}"),
    ("move_file", {"source": "{}/b.txt", "destination": "{}/d/c.txt"}, "Success"),
]
WRITES = {"create_directory", "write_file", "edit_file", "move_file"}


@dataclass(frozen=True)
class Reference:
    """One server as an operator takes it in, and what is asked of each tool."""

    name: str
    sync: dict[str, Any]
    asks: list[tuple[str, dict[str, Any], str]]
    trust: str = "sandboxed"
    missing: set[str] = field(default_factory=set)


@pytest.fixture
def over_pipes() -> Reference:
    sync = {
        "command": ["node", script("server-everything"), "stdio"],
        "grants": {"readPaths": [FOLDER]},
    }
    return Reference("everything", sync, EVERYTHING)


@pytest.fixture
def over_http() -> Iterator[Reference]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["node", script("server-everything"), "streamableHttp"],
        env={**os.environ, "PORT": str(port), "POLAR_EXTENSION": "its own"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        sync = {
            "url": f"http://127.0.0.1:{port}/mcp",
            "grants": {"local": [f"127.0.0.1:{port}"]},
        }
        yield Reference("remote", sync, EVERYTHING, trust="reviewed")
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def files(tmp_path: Path) -> Reference:
    """The server of files, in a granted folder."""
    root = tmp_path / "granted"
    root.mkdir()
    root.chmod(0o777)
    (root / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    sync = {
        "command": ["node", script("server-filesystem"), str(root)],
        "grants": {"readPaths": [FOLDER], "writePaths": [str(root)]},
    }
    return Reference("files", sync, [placed(each, str(root)) for each in FILES])


def placed(ask: tuple[str, dict[str, Any], str], root: str) -> tuple[str, Any, str]:
    name, arguments, expected = ask
    text = json.dumps(arguments).replace("{}", root) if arguments else "{}"
    return name, json.loads(text), expected.replace("{}", root)


def script(server: str) -> str:
    return str(Path(FOLDER, PROJECT, server, "dist/index.js"))


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the reference server did not start")


@dataclass
class Door:
    """The API, as one person with a token comes in by it."""

    user: Any
    token: str

    @classmethod
    def of(cls, user: Any) -> "Door":
        issued = access.issue_token(
            by=access.system_principal(),
            principal=user.principal,
            name="t",
            scopes=("extensions:read", "extensions:write", "extensions:execute"),
            held=frozenset({"*"}),
        )
        return cls(user, issued[1])

    def post(self, path: str, body: dict[str, Any], *, status: int = 200) -> Any:
        response = Client().post(
            f"/api/v1/extensions/{path}",
            json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        assert response.status_code == status, response.json().get(
            "error", response.content
        )
        return response.json()


@pytest.fixture
def doors(workspace, alice, bob) -> dict[str, Door]:
    """Ada takes in, Bob reviews, Alice uses."""
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    services.sync_shipped_plugin()
    agents.install_default_profiles(workspace=workspace, by=system)
    ada = people.person("ada", Role.ADMIN, workspace)
    return {"ada": Door.of(ada), "bob": Door.of(bob), "alice": Door.of(alice)}


@contextmanager
def taken_in(doors: dict[str, Door], server: Reference) -> Iterator[Extension]:
    """Install, review and enable over the API; end what runs afterwards."""
    sync = {"extensionId": server.name, "reason": "tried", **server.sync}
    shown = doors["ada"].post("mcp", sync)
    assert {each["capabilityId"] for each in shown["capabilities"]} == {
        name for name, _, _ in server.asks
    }, "a tool that nobody asks here"
    risks = {each["capabilityId"]: risk_of(each) for each in shown["capabilities"]}
    verdict = {
        "definitionHash": shown["definitionHash"],
        "approve": True,
        "trustLevel": server.trust,
        "reason": "read every tool",
        "risks": risks,
    }
    doors["bob"].post(f"{server.name}/review", verdict)
    order = {"operation": "enable", "reason": "ready"}
    doors["bob"].post(f"{server.name}/lifecycle", order)
    AgentProfile.objects.filter(slug="primary").update(
        allowed_capabilities=[f"{server.name}/*"], max_tool_calls=50
    )
    row = Extension.objects.get(ext_id=server.name)
    # What nobody may repeat would wait for the log's witness, which no test has.
    row.capabilities.update(effect_class="keyed")
    try:
        yield row
    finally:
        for runtime in ports.runtimes():
            runtime.stop(row.id)


def risk_of(capability: dict[str, Any]) -> dict[str, Any]:
    writes = capability["capabilityId"] in WRITES
    return {
        "riskLevel": "write" if writes else "read",
        "sideEffects": "internal" if writes else "none",
        "dataEgress": "none",
        "reason": "read its source",
    }


def payload(door: Door, talk: Conversation, server: Reference, name: str, given: Any):
    return {
        "extensionId": server.name,
        "extensionType": "mcp",
        "capabilityId": name,
        "sessionId": str(talk.id),
        "userId": str(door.user.principal.id),
        "capabilityScope": {"allowed": {server.name: [name]}},
        "input": given,
    }


def execute_each(doors: dict[str, Door], server: Reference, workspace) -> None:
    door = doors["alice"]
    talk = agents.start_conversation(workspace=workspace, principal=door.user.principal)
    for name, given, expected in server.asks:
        asked = payload(door, talk, server, name, given)
        if expected == BY_TASK:
            refused = door.post("execute", asked, status=502)
            assert expected in refused["error"]["message"]
            continue
        answer = door.post("execute", asked)
        assert answer["status"] == "completed", (name, answer)
        assert expected in json.dumps(answer["output"]), (name, answer["output"])


def ask_each(model: FakeModel, server: Reference, workspace, alice) -> None:
    """One turn, in which an agent calls each tool in order."""
    calls = [
        says("", asks(alias_of(server, name), **given))
        for name, given, _ in server.asks
    ]
    model.answers = [*calls, says("That is all.")]
    talk = agents.start_conversation(workspace=workspace, principal=alice.principal)
    AgentProfile.objects.filter(slug="primary").update(max_turns=60)
    turn = agents.start_turn(
        conversation=talk,
        principal=alice.principal,
        text="Try everything.",
        trigger="message",
    )
    runs.execute(turn.run_id)
    turn.refresh_from_db()
    assert (turn.state, turn.answer_text) == ("answered", "That is all."), turn.reason
    made = Call.objects.filter(turn_id=turn.id, kind="tool").order_by("id")
    for call, (name, _, expected) in zip(made, server.asks, strict=True):
        is_done = expected != BY_TASK
        said = call.result if is_done else call.error_detail
        assert call.capability == f"{server.name}/{name}"
        assert call.state == ("succeeded" if is_done else "failed"), call.error_detail
        assert expected in said, name
    assert "untrusted" in turn.labels


def alias_of(server: Reference, name: str) -> str:
    row = Extension.objects.get(ext_id=server.name)
    return str(row.capabilities.get(capability_id=name).alias)


@pytest.mark.parametrize("which", ["over_pipes", "over_http"])
def test_everything_by_execute_extension(request, which, doors, workspace):
    server = request.getfixturevalue(which)
    with taken_in(doors, server):
        execute_each(doors, server, workspace)


@pytest.mark.parametrize("which", ["over_pipes", "over_http"])
def test_everything_by_an_agents_turn(request, which, doors, workspace, alice, model):
    server = request.getfixturevalue(which)
    with taken_in(doors, server):
        ask_each(model, server, workspace, alice)


def test_files_by_execute_extension(doors, files, workspace):
    with taken_in(doors, files):
        execute_each(doors, files, workspace)

        door = doors["alice"]
        talk = Conversation.objects.latest("id")
        outside = payload(door, talk, files, "read_text_file", {"path": "/etc/passwd"})
        refused = door.post("execute", outside, status=502)
    assert "says that it failed" in refused["error"]["message"]


def test_files_by_an_agents_turn(doors, files, workspace, alice, model):
    with taken_in(doors, files):
        ask_each(model, files, workspace, alice)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("which", ["over_pipes", "over_http"])
def test_revoked_in_mid_call(request, which, on_a_file, doors, workspace):
    """The tool works for longer than the test may last."""
    server, door = request.getfixturevalue(which), doors["alice"]
    talk = agents.start_conversation(workspace=workspace, principal=door.user.principal)
    name, said = "trigger-long-running-operation", []

    def call() -> None:
        long = payload(door, talk, server, name, {"duration": 50, "steps": 5})
        said.append(door.post("execute", long, status=502))
        connection.close()

    with taken_in(doors, server) as row:
        caller = threading.Thread(target=call)
        caller.start()
        # Seen without the database, whose table the call may hold just now.
        sessions = ports.find_runtime("stdio")._sessions
        while not any(each.in_flight for each in sessions.values()):
            time.sleep(0.02)
        order = {"operation": "revoke", "reason": "it works too long"}
        certificate = doors["bob"].post(f"{server.name}/lifecycle", order)
        caller.join()

        again = door.post(
            "execute", payload(door, talk, server, "echo", {"message": "x"}), status=403
        )

    assert said[0]["error"]["code"] == "POLAR_RUNTIME_EXECUTION_ERROR"
    assert again["error"]["code"] == "POLAR_EXTENSION_BLOCKED"
    assert processes.end_extension(row.id) == []
    ended = certificate["certificate"]["body"]["processes"]
    # A process here is seen to be gone; what a server elsewhere does, nobody sees.
    expected = {"confirmed"} if which == "over_pipes" else {"unconfirmed"}
    assert {each["state"] for each in ended} == expected
