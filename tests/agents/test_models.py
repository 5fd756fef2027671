"""The lifecycles, pair by pair; constraints that hold without our code."""

import itertools

import pytest
from django.db import IntegrityError, transaction

from apps.agents.models import STEP, TURN, StepState, Turn, TurnState
from apps.common.errors import InvalidTransition
from apps.common.states import Transitions

TURN_MOVES = {(TurnState.OPEN, end) for end in TurnState if end != TurnState.OPEN}
STEP_MOVES = {
    (StepState.PLANNED, StepState.STARTED),
    (StepState.STARTED, StepState.DONE),
    (StepState.STARTED, StepState.FAILED),
    (StepState.STARTED, StepState.UNKNOWN),
    (StepState.UNKNOWN, StepState.DONE),
    (StepState.UNKNOWN, StepState.FAILED),
}


def check(table: Transitions, pair: tuple[str, str], is_allowed: bool) -> None:
    assert table.allows(*pair) is is_allowed
    if not is_allowed:
        with pytest.raises(InvalidTransition):
            table.check(*pair)


@pytest.mark.parametrize("pair", list(itertools.product(TurnState, repeat=2)))
def test_turn_moves_only_as_its_table_says(pair: tuple[str, str]) -> None:
    check(TURN, pair, pair in TURN_MOVES)


@pytest.mark.parametrize("pair", list(itertools.product(StepState, repeat=2)))
def test_step_moves_only_as_its_table_says(pair: tuple[str, str]) -> None:
    check(STEP, pair, pair in STEP_MOVES)


def test_ended_turn_without_an_end_time_is_refused(turn: Turn) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Turn.objects.filter(id=turn.id).update(state=TurnState.ANSWERED)
