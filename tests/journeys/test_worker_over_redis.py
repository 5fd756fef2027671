"""Redis wakes workers sooner; without it, or wiped, nothing is lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.journeys.processes import House, eventually, house, redis_url

pytestmark = [
    pytest.mark.journey,
    pytest.mark.redis,
    pytest.mark.skipif(not os.environ.get("REDIS_URL"), reason="needs Redis"),
]


@pytest.fixture
def broker() -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(redis_url())
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def polar(tmp_path: Path, broker: "redis.Redis") -> Iterator[House]:
    with house(tmp_path) as built:
        yield built


def test_runs_when_rung_for_then_carried_once_each(polar: House) -> None:
    polar.start("worker", "--concurrency", "8")
    assert eventually(polar.working), polar.output()

    polar.do("enqueue", "journey.note", "{}", "50")

    assert eventually(lambda: polar.states() == {"succeeded": 50}), polar.output()
    assert len(polar.carried()) == 50


def test_runs_when_the_broker_is_wiped_then_none_is_lost(
    polar: House, broker: "redis.Redis"
) -> None:
    polar.do("enqueue", "journey.note", "{}", "200")
    broker.flushall()

    polar.start("worker", "--concurrency", "8")

    assert eventually(polar.working), polar.output()
    began = eventually(lambda: polar.states().get("succeeded", 0) > 0, within=10)
    assert began, polar.output()
    assert eventually(lambda: polar.states() == {"succeeded": 200}), polar.output()
    assert len(polar.carried()) == 200


def test_runs_when_the_broker_is_away_then_they_are_taken_in(polar: House) -> None:
    polar.env["REDIS_URL"] = "redis://127.0.0.1:1/0"

    assert polar.do("enqueue", "journey.note", "{}", "3") == 0, polar.output()
    polar.start("worker", "--concurrency", "8")

    assert eventually(lambda: polar.states() == {"succeeded": 3}), polar.output()
