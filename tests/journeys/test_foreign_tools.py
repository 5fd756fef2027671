"""An agent uses a tool that is not ours; an operator takes it away in mid-call."""

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from apps.access import services as access
from apps.access.models import Role, User, Workspace
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Turn
from apps.audit.models import Event
from apps.common.errors import PolarError
from apps.extensions import ports, services
from apps.extensions.adapters import processes, sandbox
from apps.extensions.models import Certificate, Extension
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.gateway.ports import Lineage
from apps.runs import services as runs
from tests import fakes, people
from tests.agents.conftest import FakeModel, asks, model, says

__all__ = ["model"]
pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(
        not sandbox.isolation().is_available, reason=sandbox.isolation().detail
    ),
]

HARMLESS = {
    "riskLevel": "read",
    "sideEffects": "none",
    "dataEgress": "none",
    "reason": "works on numbers it is given",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shutil.copy(Path(fakes.__file__).parent / "mcp_server.py", name)
        yield Path(name)


@pytest.fixture
def server(workspace: Workspace, bob: User, folder: Path) -> Iterator[Extension]:
    """A server by the official SDK: installed, reviewed, enabled."""
    ada = people.person("ada", Role.ADMIN, workspace)
    new = services.NewServer(
        extension_id="fake",
        command=(sys.executable, str(folder / "mcp_server.py")),
        grants={"readPaths": [sys.prefix, sys.base_prefix, str(folder)]},
        limits={"callSeconds": 10},
    )
    row = services.sync_mcp_server(by=ada.principal, new=new, reason="adds up")
    risks = {each.capability_id: HARMLESS for each in row.capabilities.all()}
    verdict = services.Verdict(
        definition_hash=row.definition_hash,
        approve=True,
        reason="read every tool",
        risks=risks,
        trust="sandboxed",
    )
    row = services.review_extension(
        by=bob.principal, extension_id=row.id, verdict=verdict
    )
    yield services.enable_extension(
        by=bob.principal, extension_id=row.id, reason="ready"
    )
    for runtime in ports.runtimes():
        runtime.stop(row.id)


@pytest.fixture
def ask(workspace: Workspace, alice: User, server: Extension, model: FakeModel):
    """Put a question to an agent whose profile may use the server."""
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    services.sync_shipped_plugin()
    agents.install_default_profiles(workspace=workspace, by=system)
    AgentProfile.objects.filter(slug="primary").update(
        allowed_capabilities=["polar/*", "fake/*"]
    )

    def put(*answers) -> Turn:
        model.answers = list(answers)
        talk = agents.start_conversation(workspace=workspace, principal=alice.principal)
        turn = agents.start_turn(
            conversation=talk,
            principal=alice.principal,
            text="Two and three?",
            trigger="message",
        )
        runs.execute(turn.run_id)
        turn.refresh_from_db()
        return turn

    return put


def test_agent_calls_a_foreign_tool_through_the_gateway(ask, model):
    turn = ask(says("", asks("fake__add", a=2, b=3)), says("Five."))

    assert (turn.state, turn.answer_text) == ("answered", "Five.")
    call = Call.objects.get(capability="fake/add")
    assert (call.state, json.loads(call.result)) == ("succeeded", {"result": 5})
    assert call.turn_id == turn.id
    assert Event.objects.filter(type="call.settled", trace_id=turn.trace_id).exists()


def test_what_a_foreign_tool_said_is_untrusted_from_then_on(ask):
    turn = ask(says("", asks("fake__add", a=2, b=3)), says("Five."))

    assert "untrusted" in turn.labels


def test_changed_description_is_quarantined_before_the_call(ask, server, folder):
    text = (folder / "mcp_server.py").read_text()
    (folder / "mcp_server.py").write_text(text.replace("two numbers", "two numbers."))
    ports.find_runtime("stdio").stop(server.id)

    ask(says("", asks("fake__add", a=2, b=3)), says("It is not there."))

    server.refresh_from_db()
    assert server.trust == "blocked"
    assert Call.objects.get(capability="fake/add").started_at is None


@pytest.mark.django_db(transaction=True)
def test_revoke_in_mid_call_ends_the_process(rob, server, bob):
    """The tool sleeps for longer than the test may last; revoking wakes nobody."""
    said: list[str] = []

    def call() -> None:
        try:
            services.execute_tool(
                alias="fake__sleep",
                arguments={"seconds": 9.0},
                principal=rob,
                workspace_id=rob.workspace_id,
                lineage=Lineage(agent="rob"),
                scope={"allowed": {"fake": ["*"]}},
            )
        except PolarError as error:
            said.append(error.detail)
        finally:
            connection.close()

    caller = threading.Thread(target=call)
    caller.start()
    while not Call.objects.filter(capability="fake/sleep", state="executing"):
        time.sleep(0.02)
    services.revoke_extension(
        by=bob.principal, extension_id=server.id, reason="it reads too much"
    )
    caller.join()

    assert said
    assert processes.end_extension(server.id) == []
    certificate = Certificate.objects.get(extension=server)
    body = json.loads(certificate.body)
    assert body["processes"]
    assert {each["state"] for each in body["processes"]} == {"confirmed"}
