"""A replay decides anew on what was recorded, and does nothing."""

import pytest

from apps.access import services as access
from apps.agents.engine import replay
from apps.agents.models import Delta, Step, Turn
from apps.audit.models import Event
from apps.gateway.models import Call
from apps.runs import services as runs
from tests.agents.conftest import asks, carry, says


@pytest.fixture
def answered(turn, model, tools) -> Turn:
    model.answers = [says("", asks("polar_clock")), says("It is noon.")]
    carry(turn)
    turn.refresh_from_db()
    assert turn.state == "answered"
    return turn


def test_replay_of_an_unchanged_turn_is_the_same(answered):
    found = runs.replay(by=access.system_principal(), run_id=answered.run_id)

    assert found["divergence"] is None
    assert found["same"] == found["steps"] == 3


def test_replay_does_and_writes_nothing(answered, model, tools):
    asked, ran = len(model.requests), len(tools.calls)
    before = [table.objects.count() for table in (Step, Call, Event, Delta)]

    replay.replay(answered.run_id)

    assert (len(model.requests), len(tools.calls)) == (asked, ran)
    assert [t.objects.count() for t in (Step, Call, Event, Delta)] == before


def test_replay_names_the_first_step_that_would_be_planned_otherwise(answered):
    tool = Step.objects.get(turn=answered, seq=2)
    Step.objects.filter(id=tool.id).update(
        request={**tool.request, "arguments": {"x": 1}}
    )

    found = replay.replay(answered.run_id)

    assert (found["divergence"]["seq"], found["divergence"]["what"]) == (2, "plan")
    assert found["same"] == 1


def test_replay_names_an_end_that_would_be_another(answered):
    Turn.objects.filter(id=answered.id).update(state="failed")

    found = replay.replay(answered.run_id)

    assert found["divergence"]["what"] == "end"
    assert found["divergence"]["replayed"] == "answered"
