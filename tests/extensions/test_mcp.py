"""MCP servers by the official SDK, in the sandbox and over HTTP."""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from apps.access.models import Principal
from apps.audit.models import Event
from apps.common import redaction
from apps.common.actor import SYSTEM
from apps.common.errors import UpstreamError
from apps.extensions import ports
from apps.extensions.adapters import mcp_sessions, processes, sandbox
from apps.extensions.adapters.mcp import McpRuntime
from apps.extensions.errors import (
    DefinitionChanged,
    ToolMisconfigured,
    ToolTransientError,
    ToolUnavailable,
    ToolValidationError,
)
from apps.gateway.errors import CapabilityDenied, OutcomeUnknown, OutputBroken
from apps.gateway.models import Call
from apps.gateway.ports import EffectClass
from apps.vault import services as vault
from tests import fakes
from tests.extensions import hostile

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        not sandbox.isolation().is_available, reason=sandbox.isolation().detail
    ),
]

SERVER = Path(fakes.__file__).parent / "mcp_server.py"
LIMITS = ports.Limits(call_seconds=5.0, output_bytes=65_536)


@pytest.fixture
def runtime(monkeypatch):
    """A runtime of its own, whose sessions end with the test."""
    mcp = McpRuntime()
    for transport in (ports.Transport.STDIO, ports.Transport.HTTP):
        monkeypatch.setitem(ports._runtimes, transport, mcp)
    yield mcp
    for extension_id in {key[0] for key in mcp._sessions}:
        mcp.stop(extension_id)


@pytest.fixture
def package():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copy(SERVER, folder)
        yield Path(folder)


def stdio(package, *command, **more):
    """A server in the sandbox that may read this Python and its libraries."""
    more.setdefault("grants", ports.Grants(read_paths=(sys.prefix, sys.base_prefix)))
    return ports.Source(
        extension_id=more.pop("extension_id", uuid4()),
        ext_id="fake",
        transport=ports.Transport.STDIO,
        command=command or (sys.executable, "mcp_server.py"),
        folder=package,
        limits=more.pop("limits", LIMITS),
        **more,
    )


@pytest.fixture
def asked(rob: Principal, runtime, package):
    """Ask a tool of a server through the gateway, as reviewed."""
    source = stdio(package)
    pinned = runtime.describe(source).digest

    def ask(name, arguments=None, **more):
        more.setdefault("pinned", pinned)
        chosen = more.pop("source", source)
        return hostile.execute(
            rob, hostile.target(chosen, name, **more), arguments or {}
        )

    ask.source = source
    ask.pinned = pinned
    return ask


def test_server_is_described(runtime, package):
    served = runtime.describe(stdio(package))

    add = next(offer for offer in served.offers if offer.name == "add")
    assert add.description == "Add two numbers."
    assert add.input_schema["required"] == ["a", "b"]
    assert served.server["name"] == "fake"
    assert served.server["instructions"] == "A server of the suite."


def test_description_is_the_same_after_a_restart(runtime, package):
    source = stdio(package)

    first = runtime.describe(source).digest
    runtime.stop(source.extension_id)

    assert runtime.describe(source).digest == first


def test_tool_answers_and_leaves_its_row(asked):
    assert asked("add", {"a": 2, "b": 3}) == {"result": 5}
    assert Call.objects.get(capability="fake/add").state == "succeeded"


def test_session_is_kept_between_calls(asked, runtime):
    asked("add", {"a": 1, "b": 1})
    session = next(iter(runtime._sessions.values()))
    asked("add", {"a": 2, "b": 2})

    assert list(runtime._sessions.values()) == [session]


def test_tool_that_answers_by_a_task_is_refused_and_leaves_nothing_in_flight(
    asked, runtime, monkeypatch
):
    monkeypatch.setattr(mcp_sessions, "_needs_task", lambda tool: tool.name == "add")

    with pytest.raises(ToolMisconfigured, match="only by a task"):
        asked("add", {"a": 1, "b": 1})

    (session,) = runtime._sessions.values()
    assert (session.in_flight, session.wire.headers) == ({}, {})


def test_environment_is_empty_but_for_what_is_said(asked, monkeypatch):
    monkeypatch.setenv("HOST_SECRET", "canary")

    found = asked("whoami")

    assert "HOST_SECRET" not in found
    assert "DJANGO_SETTINGS_MODULE" not in found


def test_failing_tool_is_a_typed_error(asked):
    with pytest.raises(ToolTransientError, match="says that it failed") as failed:
        asked("fail", {"reason": "no such city"})

    assert failed.value.permanent
    assert Call.objects.get(capability="fake/fail").error_code == "tool_error"


def test_unknown_tool_is_unavailable(asked):
    with pytest.raises(ToolUnavailable):
        asked("nothing")


def test_other_definition_stops_the_call_before_it_is_sent(asked):
    with pytest.raises(DefinitionChanged) as changed:
        asked("add", {"a": 1, "b": 2}, pinned="0" * 64)

    assert changed.value.served.digest == asked.pinned
    row = Call.objects.get(capability="fake/add")
    assert (row.state, row.started_at) == ("failed", None)


def test_one_changed_byte_is_another_definition(asked, runtime, package):
    text = (package / "mcp_server.py").read_text()
    (package / "mcp_server.py").write_text(text.replace("two numbers", "two number$"))
    runtime.stop(asked.source.extension_id)

    with pytest.raises(DefinitionChanged):
        asked("add", {"a": 1, "b": 2})


def test_call_that_times_out_leaves_the_session_usable(asked, package):
    quick = stdio(package, limits=ports.Limits(call_seconds=0.3))

    with pytest.raises(ToolTransientError, match="did not answer in 0.3 s"):
        asked("sleep", {"seconds": 0.6}, source=quick)

    assert asked("add", {"a": 1, "b": 1}, source=quick) == {"result": 2}


def test_careful_effect_that_times_out_is_in_doubt(asked, package):
    quick = stdio(package, limits=ports.Limits(call_seconds=0.3))

    with pytest.raises(OutcomeUnknown):
        asked(
            "sleep",
            {"seconds": 0.6},
            source=quick,
            effect_class=EffectClass.RECONCILABLE,
        )

    assert Call.objects.get(capability="fake/sleep").state == "unknown"


def test_dead_server_fails_the_call_and_rests_before_it_starts_again(asked):
    with pytest.raises(ToolTransientError, match="exit code 3"):
        asked("die")
    with pytest.raises(ToolTransientError, match="started again in") as resting:
        asked("add", {"a": 1, "b": 1})

    assert 0 < resting.value.retry_after <= 1.0


def test_server_that_keeps_dying_is_left_alone(runtime, package):
    crashing = stdio(package, "false")
    runtime._deaths[crashing.extension_id, ""] = deque(
        [time.monotonic() - 90] * 5, maxlen=5
    )

    with pytest.raises(ToolMisconfigured, match="died 5 times"):
        runtime.describe(crashing)


def test_answer_over_the_limit_ends_the_server(asked):
    with pytest.raises(OutputBroken, match="more than 65536 bytes"):
        asked("shout", {"size": 1_000_000})

    assert processes.end_extension(asked.source.extension_id) == []


def test_server_that_never_greets_is_given_up(runtime, package):
    deaf = stdio(package, "sleep", "60", limits=ports.Limits(connect_seconds=0.3))

    with pytest.raises(ToolTransientError, match="did not greet"):
        runtime.describe(deaf)

    assert processes.end_extension(deaf.extension_id) == []


def test_server_that_cannot_start_says_why(runtime, package):
    with pytest.raises(ToolTransientError, match="did not start"):
        runtime.describe(stdio(package, "no-such-program"))


def test_revoke_in_mid_call_ends_the_process(asked, runtime):
    """Shows 1: the call is in flight, the operator stops it, the process is gone."""
    said: list[object] = []
    asked("add", {"a": 1, "b": 1})

    def stop():
        while not any(s.in_flight for s in runtime._sessions.values()):
            time.sleep(0.01)
        said.extend(runtime.stop(asked.source.extension_id))

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(ToolTransientError, match="was stopped"):
        asked("sleep", {"seconds": 4})
    stopper.join()

    assert said
    assert all(each.is_confirmed for each in said)
    call = Call.objects.get(capability="fake/sleep")
    assert call.id in {each.call_id for each in said}
    assert runtime.stop(asked.source.extension_id) == []


# --- over HTTP


@pytest.fixture(scope="module")
def http_port(tmp_path_factory):
    """A server of the SDK on loopback."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = (tmp_path_factory.mktemp("mcp") / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, str(SERVER), str(port)], stdout=log, stderr=log
    )
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    server.kill()
    server.wait()
    log.close()


def over_http(port, **more):
    more.setdefault("local", frozenset({f"127.0.0.1:{port}"}))
    return ports.Source(
        extension_id=uuid4(),
        ext_id="fake",
        transport=ports.Transport.HTTP,
        url=more.pop("url", f"http://127.0.0.1:{port}/mcp"),
        limits=LIMITS,
        **more,
    )


def test_server_over_http_answers(rob, runtime, http_port):
    source = over_http(http_port)
    pinned = runtime.describe(source).digest

    output = hostile.execute(
        rob, hostile.target(source, "add", pinned=pinned), {"a": 20, "b": 22}
    )

    assert output == {"result": 42}


def test_answer_over_http_is_bounded(rob, runtime, http_port):
    source = over_http(http_port)
    shout = hostile.target(source, "shout", pinned=runtime.describe(source).digest)

    with pytest.raises(UpstreamError):
        hostile.execute(rob, shout, {"size": 1_000_000})


def test_server_on_a_private_address_that_nobody_wrote_down_is_refused(
    runtime, http_port
):
    with pytest.raises(Exception, match="not a public address"):
        runtime.describe(over_http(http_port, local=frozenset()))


def test_domain_that_nobody_granted_is_refused(rob, runtime):
    source = over_http(1, url="https://a.example/mcp", local=frozenset())

    with pytest.raises(CapabilityDenied) as refused:
        hostile.execute(rob, hostile.target(source, "add", pinned="0" * 64))

    assert refused.value.reason_code == "constraint_violated"


def test_server_that_is_not_there_is_a_connection_failure(runtime):
    with pytest.raises(ToolTransientError, match="cannot be reached"):
        runtime.describe(over_http(9))


def test_wrong_arguments_are_named(asked):
    with pytest.raises((ToolValidationError, ToolTransientError)):
        asked("add", {"a": "many", "b": 1})


# --- credentials


@pytest.fixture
def recorder():
    """A server on loopback that writes down what it was sent, and refuses."""
    seen: list[dict[str, str]] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append({name.lower(): text for name, text in self.headers.items()})
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            return

    with HTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, seen
        server.shutdown()
        thread.join()


def test_server_is_sent_its_own_secret_and_no_other(runtime, recorder):
    """T12: what an operator stored for it, and nothing that anybody else showed."""
    port, seen = recorder
    secret = vault.put(
        by=SYSTEM, name="fake/token", purpose="tool", value="Bearer own-canary"
    )
    grants = ports.Grants(secrets={"Authorization": secret.id})

    with pytest.raises(ToolMisconfigured, match="answered 401"):
        runtime.describe(over_http(port, grants=grants))

    assert {each["authorization"] for each in seen} == {"Bearer own-canary"}
    assert not any("cookie" in each for each in seen)
    assert Event.objects.filter(type="vault.leased").exists()


def test_secret_of_a_process_is_leased_while_it_lives(runtime, package):
    secret = vault.put(
        by=SYSTEM, name="fake/token", purpose="tool", value="process-canary"
    )
    grants = ports.Grants(
        read_paths=(sys.prefix, sys.base_prefix), secrets={"TOKEN": secret.id}
    )
    source = stdio(package, grants=grants)

    runtime.describe(source)

    assert redaction.scrub("process-canary") == redaction.MARK
    runtime.stop(source.extension_id)
    assert redaction.scrub("process-canary") == "process-canary"
