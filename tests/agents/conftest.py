"""A model and tools that do as they are told, and turns to try them on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal, User, Workspace
from apps.agents import services as agents
from apps.agents.engine import loop
from apps.agents.models import AgentProfile, Conversation, Turn
from apps.common import ids
from apps.extensions import services as extensions
from apps.extensions.queries import ToolSpec
from apps.gateway.models import CallState
from apps.gateway.ports import Usage
from apps.gateway.services import Outcome
from apps.providers import services as providers
from apps.providers.ports import ToolCall
from apps.runs import ports as runs_ports

TOOLS = ["polar_clock", "web_fetch"]


def says(text: str, *calls: ToolCall, micros: int = 5) -> providers.Generated:
    """One answer of the scripted part."""
    return providers.Generated(
        text=text,
        tool_calls=calls,
        usage=Usage(micros=micros, tokens_in=10, tokens_out=3),
        served_by="fake/one",
        lane="worker",
        degraded=False,
        lane_change="none",
        finish="stop",
        attempts=(),
        is_scripted=True,
    )


def asks(name: str, call_id: str = "c1", **arguments: Any) -> ToolCall:
    return ToolCall(call_id, name, arguments)


@dataclass
class FakeModel:
    """Gives its answers in order; an exception is raised."""

    answers: list[Any] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    deltas: list[str] = field(default_factory=list)
    before: Callable[[Any], None] | None = None

    def generate(
        self, *, request: Any, on_delta: Any = None, on_reset: Any = None
    ) -> providers.Generated:
        self.requests.append(request)
        for piece in self.deltas:
            on_reset() if piece == "<reset>" else on_delta(piece)
        if self.before:
            self.before(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class FakeTools:
    """Records what was run; answers from `results` by alias."""

    results: dict[str, Any] = field(default_factory=dict)
    #: Aliases whose code ran without isolation.
    unconfined: set[str] = field(default_factory=set)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def execute_tool(self, **call: Any) -> Outcome:
        self.calls.append(call)
        result = self.results.get(call["alias"], {"ok": True})
        if isinstance(result, list):
            result = result.pop(0)
        if isinstance(result, Exception):
            raise result
        return Outcome(
            ids.new_id(),
            CallState.SUCCEEDED,
            result,
            Usage(micros=1),
            is_degraded=call["alias"] in self.unconfined,
        )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setattr(providers, "generate", fake.generate)
    return fake


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    fake = FakeTools()
    specs = [
        ToolSpec("polar_clock", "Tell the time.", {}, "polar/clock.now"),
        ToolSpec("web_fetch", "Read a page.", {}, "web/fetch"),
    ]
    monkeypatch.setattr(extensions, "execute_tool", fake.execute_tool)
    monkeypatch.setattr(extensions, "tools_for", lambda *, scope: specs)
    return fake


@pytest.fixture
def operator(alice: User) -> Principal:
    return access.principal_for_user(user=alice)


@pytest.fixture
def primary(workspace: Workspace) -> AgentProfile:
    by = access.system_principal()
    agents.install_default_profiles(workspace=workspace, by=by)
    return AgentProfile.objects.get(workspace=workspace, slug="primary")


@pytest.fixture
def conversation(
    workspace: Workspace, operator: Principal, primary: AgentProfile
) -> Conversation:
    return agents.ensure_conversation(workspace=workspace, principal=operator)


@pytest.fixture
def turn(conversation: Conversation, operator: Principal) -> Turn:
    return agents.start_turn(
        conversation=conversation,
        principal=operator,
        text="What time is it?",
        trigger="message",
    )


def carry(turn: Turn, **context: Any) -> runs_ports.Outcome:
    """Hand a turn to the loop as a worker would."""
    ctx = runs_ports.RunContext(
        run_id=turn.run_id,
        fence=context.pop("fence", 1),
        attempt=context.pop("attempt", 1),
        trace_id=turn.trace_id,
        payload={"turn_id": str(turn.id)},
        **context,
    )
    outcome = loop.advance(ctx)
    turn.refresh_from_db()
    return outcome
