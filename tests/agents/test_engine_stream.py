"""Deltas: only while watched, redacted, reset when a route fails, gone at the end."""

from typing import Any

import pytest

from apps.agents import queries
from apps.agents import services as agents
from apps.agents.engine.stream import DeltaStream
from apps.agents.models import Delta, DeltaKind, Turn
from apps.common import clock, redaction
from tests.agents.conftest import FakeModel, FakeTools, carry, says


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time that moves when told."""
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    return now


def pieces(turn: Turn) -> list[tuple[str, str]]:
    found = queries.deltas_after(turn_id=turn.id, seq=0)
    return [(delta.kind, delta.text) for delta in found]


def stream_of(turn: Turn, attempt: int) -> DeltaStream:
    turn.refresh_from_db()
    return DeltaStream(
        turn_id=turn.id, attempt=attempt, watched_until=turn.watched_until
    )


def test_unwatched_turn_writes_no_deltas(turn: Turn, seconds: list[float]) -> None:
    stream = stream_of(turn, attempt=1)

    stream.write("It is ")
    seconds[0] += 1
    stream.write("noon.")

    assert pieces(turn) == []


def test_late_watcher_sees_the_answer_from_its_beginning(
    turn: Turn, seconds: list[float]
) -> None:
    stream = stream_of(turn, attempt=1)
    stream.write("It is ")
    agents.watch_turn(turn_id=turn.id)
    seconds[0] += 1

    stream.write("noon.")

    assert pieces(turn) == [("text", "It is noon.")]


def test_deltas_are_written_at_most_every_quarter_second(
    turn: Turn, seconds: list[float]
) -> None:
    agents.watch_turn(turn_id=turn.id)
    stream = stream_of(turn, attempt=1)

    for word in ["one", "two", "three", "four"]:
        stream.write(word)
        seconds[0] += 0.1

    assert pieces(turn) == [("text", "one"), ("text", "twothreefour")]


def test_failed_route_takes_its_text_back(turn: Turn, seconds: list[float]) -> None:
    agents.watch_turn(turn_id=turn.id)
    stream = stream_of(turn, attempt=1)
    stream.write("wrong")
    stream.reset()
    seconds[0] += 1

    stream.write("right")

    assert pieces(turn) == [("text", "wrong"), ("reset", ""), ("text", "right")]


def test_next_attempt_takes_back_what_the_first_showed(
    turn: Turn, seconds: list[float]
) -> None:
    agents.watch_turn(turn_id=turn.id)
    stream_of(turn, attempt=1).write("half an")

    stream_of(turn, attempt=2).write("whole")

    kinds = [kind for kind, _ in pieces(turn)]
    assert kinds == [DeltaKind.TEXT, DeltaKind.RESET, DeltaKind.TEXT]


def test_secret_cut_in_two_does_not_leak(turn: Turn, seconds: list[float]) -> None:
    agents.watch_turn(turn_id=turn.id)
    stream = stream_of(turn, attempt=1)
    redaction.register("hunter2-hunter2")
    try:
        for piece in ("the key is hunter2", "-hunter2, keep it", " well"):
            stream.write(piece)
            seconds[0] += 1
        stream.end()
    finally:
        redaction.forget("hunter2-hunter2")

    shown = "".join(text for _, text in pieces(turn))
    assert shown == f"the key is {redaction.MARK}, keep it well"


def test_deltas_are_gone_when_the_turn_ends(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    agents.watch_turn(turn_id=turn.id)
    model.deltas, model.answers = ["It is ", "noon."], [says("It is noon.")]
    seen: list[int] = []
    model.before = lambda request: seen.append(Delta.objects.count())

    carry(turn)

    assert seen == [1]
    assert Delta.objects.count() == 0


def test_finished_turn_is_not_watched(
    turn: Turn, model: FakeModel, tools: FakeTools
) -> None:
    model.answers = [says("Noon.")]
    carry(turn)

    assert agents.watch_turn(turn_id=turn.id) is False


def test_half_a_character_is_shown_as_one_that_is_missing(
    turn: Turn, seconds: list[float]
) -> None:
    agents.watch_turn(turn_id=turn.id)
    stream = stream_of(turn, attempt=1)

    stream.write("a\ud83d")

    assert pieces(turn) == [("text", "a\ufffd")]
