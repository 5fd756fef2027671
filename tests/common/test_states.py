"""What is not in the table cannot happen."""

from itertools import product

import pytest

from apps.common import states
from apps.common.errors import InvalidTransition
from apps.common.states import Transitions

TABLE = {"draft": ["open", "gone"], "open": ["done", "open"]}
ALLOWED = {("draft", "open"), ("draft", "gone"), ("open", "done"), ("open", "open")}
STATES = ["draft", "open", "gone", "done"]


@pytest.fixture
def lifecycle(monkeypatch):
    monkeypatch.setattr(states, "REGISTRY", {})
    return Transitions("ticket", initial="draft", table=TABLE)


@pytest.mark.parametrize(("source", "target"), list(product(STATES, STATES)))
def test_every_pair_is_as_the_table_says(lifecycle, source, target):
    assert lifecycle.allows(source, target) == ((source, target) in ALLOWED)


def test_allowed_move_passes(lifecycle):
    lifecycle.check("draft", "open")


def test_other_move_is_refused_naming_what_is_allowed(lifecycle):
    with pytest.raises(InvalidTransition, match="allowed: done, open"):
        lifecycle.check("open", "draft")


def test_unknown_state_goes_nowhere(lifecycle):
    with pytest.raises(InvalidTransition, match="none"):
        lifecycle.check("unheard", "open")


def test_terminal_states_are_those_nothing_leaves(lifecycle):
    assert lifecycle.terminal == {"gone", "done"}


def test_sources_lead_to_a_state(lifecycle):
    assert lifecycle.sources("open") == ["draft", "open"]


def test_lifecycle_registers_itself(lifecycle):
    assert {"ticket": lifecycle} == states.REGISTRY


def test_diagram_shows_start_moves_and_ends(lifecycle):
    drawn = lifecycle.mermaid().splitlines()

    assert drawn[:2] == ["stateDiagram-v2", "    [*] --> draft"]
    assert {"    open --> done", "    done --> [*]"} <= set(drawn)


@pytest.mark.parametrize("name", sorted(states.REGISTRY))
def test_every_lifecycle_of_the_house_can_be_walked_from_its_start(name):
    table = states.REGISTRY[name]
    reached, rest = set(), [table.initial]
    while rest:
        state = rest.pop()
        if state not in reached:
            reached.add(state)
            rest += table.table[state]

    assert set(table.states) - reached <= {"dead_letter"} | reached
