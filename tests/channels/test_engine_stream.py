"""The poller: one query for all streams, each told only what it has not seen."""

import asyncio
import uuid

import pytest

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import Delta
from apps.channels import services
from apps.channels.engine import stream
from apps.channels.engine.stream import News, Piece


@pytest.fixture
def turns(workspace, alice):
    by = access.principal_for_user(user=alice)
    made = agents.install_default_profiles(
        workspace=workspace, by=access.system_principal()
    )
    return [
        services.start_conversation(by=by, profile=made[0], text=text).turns.get()
        for text in ("one", "two")
    ]


def write(turn, *texts):
    for seq, text in enumerate(texts, 1):
        Delta.objects.create(turn=turn, attempt=1, seq=seq, text=text)


def test_poll_reads_all_turns_with_one_query(turns, django_assert_num_queries):
    write(turns[0], "a", "b")
    write(turns[1], "c")

    with django_assert_num_queries(1):
        found = stream.poll({turns[0].id: 1, turns[1].id: 0})

    assert [piece.text for piece in found[turns[0].id].pieces] == ["b"]
    assert [piece.text for piece in found[turns[1].id].pieces] == ["c"]


def test_poll_without_news_tells_the_state(turns):
    news = stream.poll({turns[0].id: 0})[turns[0].id]

    assert news == News((), "open", "queued")
    assert not news.is_over


def test_poll_leaves_out_turns_that_are_gone(db):
    assert stream.poll({uuid.uuid4(): 0}) == {}


def collect(turn_id, seq, script, monkeypatch):
    """Follow one turn while the poller answers from a script."""
    answers = iter(script)
    monkeypatch.setattr(stream, "POLL_SECONDS", 0)
    monkeypatch.setattr(stream, "_poll_and_close", lambda wanted: next(answers, {}))

    async def run():
        return [news async for news in stream.follow(turn_id, seq)]

    return asyncio.run(run())


def test_stream_ends_when_its_turn_does(monkeypatch):
    turn_id = uuid.uuid4()
    script = [
        {turn_id: News((Piece(1, "text", "a"),), "open", "running")},
        {turn_id: News((Piece(2, "text", "b"),), "answered", "succeeded")},
    ]

    told = collect(turn_id, 0, script, monkeypatch)

    assert [piece.text for news in told for piece in news.pieces] == ["a", "b"]
    assert told[-1].is_over


def test_stream_resumes_after_the_last_seen_piece(monkeypatch):
    turn_id = uuid.uuid4()
    pieces = tuple(Piece(seq, "text", str(seq)) for seq in (1, 2, 3))

    told = collect(
        turn_id, 2, [{turn_id: News(pieces, "answered", "succeeded")}], monkeypatch
    )

    assert [piece.seq for piece in told[0].pieces] == [3]


def test_stream_of_a_vanished_turn_ends(monkeypatch):
    told = collect(uuid.uuid4(), 0, [{}], monkeypatch)

    assert told[-1].is_over


def test_stream_ends_when_the_poller_is_silent(monkeypatch):
    def fail(wanted):
        raise ConnectionError("the store is away")

    monkeypatch.setattr(stream, "_poll_and_close", fail)
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 0.05)

    async def run():
        told = [news async for news in stream.follow(uuid.uuid4(), 0)]
        stream.hub().task.exception()
        return told

    assert asyncio.run(run()) == []
