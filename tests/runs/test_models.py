"""The lifecycle of a run: every pair of states, and what the database refuses."""

import itertools

import pytest
from django.db import IntegrityError
from django.db.models import Q

from apps.access import services as access
from apps.access.models import User
from apps.common import clock
from apps.common.errors import InvalidTransition
from apps.runs.models import (
    LIFECYCLE,
    SCHEDULE_LIFECYCLE,
    SETTLED,
    UNSETTLED,
    WAITING,
    Run,
    ScheduleState,
    State,
)
from tests.runs.conftest import Enqueue

ALLOWED = (
    {(State.QUEUED, State.RUNNING), (State.RUNNING, State.QUEUED)}
    | {(State.RUNNING, waiting) for waiting in WAITING}
    | {(waiting, State.QUEUED) for waiting in WAITING}
    | {(State.RUNNING, end) for end in (State.SUCCEEDED, State.FAILED, State.TRUNCATED)}
    | {
        (source, end)
        for source in (State.QUEUED, State.RUNNING, *WAITING)
        for end in (State.CANCELLED, State.DEAD_LETTER)
    }
    | {(State.DEAD_LETTER, State.QUEUED), (State.DEAD_LETTER, State.DISMISSED)}
    # held as stale after a restore
    | {
        (source, State.WAITING_OPERATOR)
        for source in (State.QUEUED, *WAITING)
        if source != State.WAITING_OPERATOR
    }
)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)))
def test_run_states_when_any_pair_then_as_the_contract_says(
    source: State, target: State
) -> None:
    if (source, target) in ALLOWED:
        LIFECYCLE.check(source, target)
    else:
        with pytest.raises(InvalidTransition):
            LIFECYCLE.check(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    list(itertools.product(ScheduleState, ScheduleState)),
)
def test_schedule_states_when_any_pair_then_as_the_contract_says(
    source: ScheduleState, target: ScheduleState
) -> None:
    allowed = {
        ("active", "paused"),
        ("active", "disabled"),
        ("paused", "active"),
        ("paused", "disabled"),
        ("disabled", "active"),
    }

    assert SCHEDULE_LIFECYCLE.allows(source, target) == ((source, target) in allowed)


def test_run_when_state_is_unknown_then_the_database_refuses(enqueue: Enqueue) -> None:
    run = enqueue()

    with pytest.raises(IntegrityError):
        Run.objects.filter(id=run.id).update(state="flying")


def test_run_when_running_without_lease_then_the_database_refuses(
    enqueue: Enqueue,
) -> None:
    run = enqueue()

    with pytest.raises(IntegrityError):
        Run.objects.filter(id=run.id).update(state=State.RUNNING)


def test_run_when_second_of_key_starts_then_the_database_refuses(
    enqueue: Enqueue,
) -> None:
    first, second = enqueue(serial_key="c1"), enqueue(serial_key="c1")
    running = {"state": State.RUNNING, "lease_until": clock.now()}
    Run.objects.filter(id=first.id).update(**running)

    with pytest.raises(IntegrityError):
        Run.objects.filter(id=second.id).update(**running)


def test_runs_when_outsider_looks_then_none_are_visible(
    enqueue: Enqueue, charlie: User
) -> None:
    enqueue()

    principal = access.principal_for_user(user=charlie)
    assert not Run.objects.visible_to(principal).exists()


def test_index_of_what_is_not_over_holds_every_such_state():
    index = next(each for each in Run._meta.indexes if each.name == "run_unsettled")

    assert index.condition == Q(state__in=UNSETTLED)
    assert {*UNSETTLED, *SETTLED} == set(State)
    assert not {*UNSETTLED} & {*SETTLED}
