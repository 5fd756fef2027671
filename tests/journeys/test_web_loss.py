"""Web dies at named failpoints: a message that is sent again is one turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.processes import eventually, house
from tests.journeys.storm import Storm, end

pytestmark = pytest.mark.journey

#: Before the commit, twice; after it, with the answer on its way.
WEB = ["run.enqueued", "turn.started", "run.hinted", "answer.kept"]
COUNTS = "SELECT (SELECT count(*) FROM agents_turn), (SELECT count(*) FROM runs_run)"


@pytest.fixture
def shore(tmp_path: Path) -> Iterator[Storm]:
    """A seeded house in which nobody works yet."""
    with house(tmp_path, "seed_demo") as polar:
        built = Storm(polar, 1)
        assert polar.do("storm") == 0, polar.output()
        try:
            yield built
        finally:
            for process in built.roles.values():
                end(process)


def up(shore: Storm, *, die: str = "") -> None:
    shore.start("web", die=die)
    assert eventually(lambda: shore.send("/healthz")[0] == 200), shore.polar.output()


def test_message_whose_web_dies_at_each_step_is_one_turn(shore: Storm) -> None:
    said = {"text": "keyed"}
    for failpoint in WEB:
        up(shore, die=failpoint)
        status, _ = shore.send("/api/v1/orchestrate", said, failpoint)
        again, _ = shore.send("/api/v1/orchestrate", said, 0)
        assert (status, again) == (0, 0) or failpoint in WEB[2:], failpoint
        end(shore.roles["web"])
    up(shore)

    answers = [shore.send("/api/v1/orchestrate", said, 0) for _ in range(2)]

    assert [status for status, _ in answers] == [202, 202]
    assert answers[0][1]["runId"] == answers[1][1]["runId"]
    keys = {str(key) for key in ("0", *WEB)}
    for key in WEB:
        assert shore.send("/api/v1/orchestrate", said, key)[0] == 202
    assert shore.polar.rows(COUNTS) == [(len(keys), len(keys))]
    shore.start("worker1")
    assert shore.quiet(), shore.polar.output()[-2000:]
    assert shore.polar.states() == {"succeeded": len(keys)}
    assert len(shore.received().times) == len(keys)
