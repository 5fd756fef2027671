"""One person asks; three agents work, each with a tool, and one answer comes.

The built-in model says what it is. With POLAR_LLAMA, a Python that has
`llama-cpp-python[server]`, and POLAR_GGUF, a model, the same goes over the wire of a
real server of OpenAI's kind: see docs/how-to/add-a-provider.md.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.access import services as access
from apps.access.models import Principal, User, Workspace
from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import Turn, TurnState
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.providers.models import Route, UsageRow
from apps.runs import services as runs
from apps.runs.models import Run, State
from tests.providers import builders
from tests.services import free_port, wait_for

pytestmark = pytest.mark.journey

LLAMA, GGUF = os.environ.get("POLAR_LLAMA", ""), os.environ.get("POLAR_GGUF", "")
SERVER = Path(__file__).parents[1] / "reference" / "llama.py"


def three_agents_work(workspace: Workspace, person: Principal) -> Turn:
    """Ask for a job of three agents and carry all of it."""
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin()
    agents.install_default_profiles(workspace=workspace, by=system)
    conversation = agents.start_conversation(workspace=workspace, principal=person)
    turn = agents.start_turn(
        conversation=conversation,
        principal=person,
        text="Research and write about polar bears.",
    )

    while due := Run.objects.filter(state=State.QUEUED).in_line().first():
        runs.execute(due.id)
    turn.refresh_from_db()
    return turn


def check_waterfall(turn: Turn, person: Principal) -> None:
    """Every turn, step, call and attempt has its bar, and none failed."""
    bars = agents_queries.trace(trace_id=turn.trace_id, principal=person).bars
    kinds = Counter(bar.kind for bar in bars)
    assert kinds == {"turn": 3, "step": 9, "call": 10, "attempt": 6}
    assert not [bar for bar in bars if bar.state == "failed"]
    tools = Turn.objects.filter(parent=turn, steps__kind="tool")
    assert list(tools.values_list("steps__state", flat=True)) == ["done", "done"]


def test_primary_hands_over_to_two_and_puts_their_work_together(
    workspace: Workspace, alice: User
) -> None:
    person = access.principal_for_user(user=alice)
    providers.sync_from_env()

    turn = three_agents_work(workspace, person)

    assert turn.state == TurnState.ANSWERED
    assert "@researcher (succeeded)" in turn.answer_text
    assert "@writer (succeeded)" in turn.answer_text
    assert turn.header["scripted"] is True
    check_waterfall(turn, person)


@pytest.fixture
def llama() -> Iterator[str]:
    """llama.cpp's server, started and stopped here. Shape: its URL."""
    port = free_port()
    server = subprocess.Popen([LLAMA, str(SERVER), GGUF, str(port)])
    try:
        wait_for(port, server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(not (LLAMA and GGUF), reason="needs POLAR_LLAMA and POLAR_GGUF")
def test_the_same_job_over_the_wire_of_a_real_server(
    workspace: Workspace, alice: User, llama: str
) -> None:
    person = access.principal_for_user(user=alice)
    for lane in ("brain", "worker", "local"):
        builders.route(lane, "llama", llama, model="tiny")
    Route.objects.update(first_byte_seconds=120, idle_seconds=60, wall_seconds=300)

    turn = three_agents_work(workspace, person)

    assert (turn.state, turn.header["servedBy"]) == (TurnState.ANSWERED, "llama/tiny")
    assert turn.answer_text.startswith("I say: ")
    assert UsageRow.objects.filter(ok=True, attempts=1).count() == 6
    check_waterfall(turn, person)
