"""The turn loop: what is finished is never repeated, what waits goes on."""

from typing import Any

import pytest

from apps.agents.engine import loop
from apps.agents.models import AgentProfile, Step, StepState, Turn, TurnState
from apps.audit.models import Event
from apps.common import failpoints
from apps.common.errors import ApprovalRequired, Fenced, NotGranted, UpstreamError
from apps.extensions.errors import ToolTransientError, ToolValidationError
from apps.gateway.errors import LoopGuardTripped, OutcomeUnknown
from apps.providers.errors import NoRouteAvailable
from apps.runs.models import Run
from tests.agents.conftest import FakeModel, FakeTools, asks, carry, says


class Killed(BaseException):
    """The process died here."""


def kill_at(name: str) -> None:
    """Die once at a failpoint."""

    def hook(reached: str) -> None:
        if reached == name:
            failpoints.install(None)
            raise Killed(name)

    failpoints.install(hook)


@pytest.fixture(autouse=True)
def no_failpoints() -> Any:
    yield
    failpoints.install(None)


def test_turn_without_tools_is_answered(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("It is noon.")]

    outcome = carry(turn)

    assert (turn.state, turn.answer_text) == (TurnState.ANSWERED, "It is noon.")
    assert outcome.state == "succeeded"


def test_turn_with_a_tool_gives_its_result_to_the_model(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("polar_clock")), says("It is noon.")]
    tools.results = {"polar_clock": {"now": "12:00"}}

    carry(turn)

    assert [m.role for m in model.requests[1].messages] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert model.requests[1].messages[-1].text == '{"now":"12:00"}'


def test_answered_turn_has_a_header_and_one_event(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("polar_clock")), says("Noon.")]

    carry(turn)

    facts = {"steps": 3, "failed": 0, "micros": 11, "scripted": True}
    assert facts.items() <= turn.header.items()
    assert "isolation" not in turn.header
    assert Event.objects.filter(type="turn.answered", run_id=turn.run_id).count() == 1


def test_header_says_that_a_tool_ran_without_isolation(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    tools.unconfined = {"polar_clock"}
    model.answers = [says("", asks("polar_clock")), says("Noon.")]

    carry(turn)

    assert turn.header["isolation"] == "degraded"
    assert turn.degraded is False  # the lane was the one that was asked for


@pytest.mark.parametrize(
    ("point", "models", "tool_runs"),
    [
        ("step.model.planned", 2, 1),
        ("step.model.done.before_commit", 3, 1),
        ("step.model.done", 2, 1),
        ("step.tool.planned", 2, 1),
        ("step.tool.done.before_commit", 2, 2),
        ("step.tool.done", 2, 1),
        ("turn.answer.before_commit", 3, 1),
        ("turn.answered", 2, 1),
    ],
)
def test_turn_killed_anywhere_repeats_no_finished_step(
    turn: Turn,
    model: FakeModel,
    tools: FakeTools,
    point: str,
    models: int,
    tool_runs: int,
) -> None:
    first, last = says("", asks("polar_clock")), says("Noon.")
    repeats_first = point == "step.model.done.before_commit"
    model.answers = [first, first, last] if repeats_first else [first, last, last]
    kill_at(point)

    with pytest.raises(Killed):
        carry(turn)
    carry(turn, fence=2, attempt=2)

    assert turn.answer_text == "Noon."
    assert (len(model.requests), len(tools.calls)) == (models, tool_runs)


def test_repeated_step_has_the_same_seq_and_messages(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("Noon."), says("Noon.")]
    kill_at("step.model.done.before_commit")

    with pytest.raises(Killed):
        carry(turn)
    carry(turn, fence=2, attempt=2)

    before, after = model.requests
    assert before.messages == after.messages
    assert before.lineage.seq == after.lineage.seq == "1"


def test_answered_turn_is_left_alone(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("Noon.")]
    carry(turn)

    outcome = carry(turn, fence=2)

    assert outcome.result["state"] == TurnState.ANSWERED
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        ApprovalRequired("ask", approval_id="a1"),
        UpstreamError("down"),
        NoRouteAvailable("worker", ()),
    ],
)
def test_model_step_that_has_to_wait_is_resumed(
    turn: Turn, model: FakeModel, tools: FakeTools, error: Exception
) -> None:
    model.answers = [error, says("Noon.")]

    with pytest.raises(type(error)):
        carry(turn)
    carry(turn, fence=2)

    assert turn.state == TurnState.ANSWERED
    assert turn.steps.count() == 1


def test_tool_that_needs_approval_parks_and_resumes_the_same_step(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("web_fetch")), says("Read.")]
    tools.results = {"web_fetch": [ApprovalRequired("ask"), "page"]}

    with pytest.raises(ApprovalRequired):
        carry(turn)
    carry(turn, fence=2)

    assert [call["lineage"].seq for call in tools.calls] == ["2", "2"]
    assert turn.state == TurnState.ANSWERED


def test_tool_in_doubt_is_marked_unknown_and_settled_later(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("web_fetch")), says("Sent.")]
    tools.results = {"web_fetch": [OutcomeUnknown("?"), "sent"]}

    with pytest.raises(OutcomeUnknown):
        carry(turn)
    assert turn.steps.get(seq=2).state == StepState.UNKNOWN
    carry(turn, fence=2)

    assert turn.steps.get(seq=2).state == StepState.DONE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ToolTransientError("slow"), "ToolTransientError"),
        (ToolValidationError("bad"), "ToolValidationError"),
        (NotGranted("no", reason_code="approval_denied"), "ToolUnavailable"),
    ],
)
def test_failed_tool_is_told_to_the_model(
    turn: Turn, model: FakeModel, tools: FakeTools, error: Exception, kind: str
) -> None:
    model.answers = [says("", asks("web_fetch")), says("It failed.")]
    tools.results = {"web_fetch": error}

    carry(turn)

    assert model.requests[1].messages[-1].text.startswith(f"{kind}: ")
    assert turn.header["failed"] == 1


def test_tool_that_was_not_offered_is_told_to_the_model(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("rm_rf")), says("Sorry.")]

    carry(turn)

    assert "offered: polar_clock, web_fetch" in model.requests[1].messages[-1].text
    assert tools.calls == []


def test_third_invalid_tool_call_truncates(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("rm_rf", f"c{n}")) for n in range(4)]

    outcome = carry(turn)

    assert (turn.state, turn.reason) == (TurnState.TRUNCATED, "tool_validation")
    assert (outcome.state, len(model.requests)) == ("truncated", 3)


def limited(profile: AgentProfile, **limits: int) -> None:
    AgentProfile.objects.filter(id=profile.id).update(**limits)


def test_turn_at_its_tool_limit_keeps_the_partial_answer(
    turn: Turn, primary: AgentProfile, model: FakeModel, tools: FakeTools
) -> None:
    limited(primary, max_tool_calls=1)
    calls = (asks("polar_clock", "c2"), asks("polar_clock", "c3"))
    model.answers = [says("", asks("polar_clock")), says("So far: noon.", *calls)]

    carry(turn)

    assert (turn.state, turn.reason) == (TurnState.TRUNCATED, "max_tool_calls")
    assert turn.answer_text.startswith("So far: noon.")


def test_turn_at_its_model_limit_is_truncated(
    turn: Turn, primary: AgentProfile, model: FakeModel, tools: FakeTools
) -> None:
    limited(primary, max_turns=2)
    model.answers = [says("", asks("polar_clock", f"c{n}")) for n in range(3)]

    carry(turn)

    assert (turn.reason, len(model.requests)) == ("max_turns", 2)
    assert Event.objects.filter(type="turn.truncated").count() == 1


def test_loop_guard_truncates(turn: Turn, model: FakeModel, tools: FakeTools) -> None:
    model.answers = [says("", asks("web_fetch"))]
    tools.results = {"web_fetch": LoopGuardTripped("again", reason_code="loop_guard")}

    outcome = carry(turn)

    assert (turn.state, turn.reason) == (TurnState.TRUNCATED, "loop_guard")
    assert outcome.reason == "loop_guard"


def test_refused_model_call_fails_the_turn_by_name(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [NotGranted("not for you", reason_code="scope_invalid")]

    outcome = carry(turn)

    assert (turn.state, turn.reason) == (TurnState.FAILED, "scope_invalid")
    assert "not for you" in turn.answer_text
    assert outcome.state == "failed"


def test_lost_lease_commits_nothing(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("Noon.")]
    fences = iter([None, Fenced("gone")])

    def check_fence() -> None:
        if error := next(fences):
            raise error

    with pytest.raises(Fenced):
        carry(turn, check_fence=check_fence)

    assert turn.state == TurnState.OPEN
    assert Step.objects.get(turn=turn).state == StepState.STARTED


def test_stopping_worker_gives_the_turn_back(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    outcome = carry(turn, stopping=lambda: True)

    assert isinstance(outcome, loop.runs_ports.Again)
    assert turn.state == TurnState.OPEN


def test_answer_queues_the_reply_run(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    Turn.objects.filter(id=turn.id).update(reply_run_kind="channels.deliver")
    model.answers = [says("Noon.")]

    carry(turn)

    reply = Run.objects.get(kind="channels.deliver")
    assert reply.payload == {"turn_id": str(turn.id)}
    assert reply.trace_id == turn.trace_id


def test_nul_in_an_answer_is_made_storable(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("web_fetch", url="a\0b")), says("a\0b")]

    carry(turn)

    assert turn.answer_text == "a\ufffdb"
    assert tools.calls[0]["arguments"] == {"url": "a\ufffdb"}


def test_half_a_character_is_made_storable(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("", asks("web_fetch", url="a\ud800b")), says("\udfff")]

    carry(turn)

    assert turn.answer_text == "\ufffd"
    assert tools.calls[0]["arguments"] == {"url": "a\ufffdb"}


def test_calls_of_one_id_are_told_apart_by_their_places(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    AgentProfile.objects.update(routing={"explicit": False})
    model.answers = [
        says("", asks("polar_clock", "c1"), asks("web_fetch", "c1", url="a")),
        says("", asks("polar_clock", "c1", again=True)),
        says("Done."),
    ]
    tools.results = {"polar_clock": ["first", "third"], "web_fetch": "second"}

    carry(turn)

    told = [m.text for m in model.requests[-1].messages if m.role == "tool"]
    assert told == ["first", "second", "third"]
