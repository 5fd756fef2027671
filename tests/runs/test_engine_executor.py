"""Whatever a handler does, its run ends up somewhere."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import (
    ApprovalRequired,
    Invalid,
    Unavailable,
    UpstreamError,
)
from apps.runs import services
from apps.runs.engine.executor import BUG
from apps.runs.engine.sweep import sweep
from apps.runs.models import Run, State
from apps.runs.ports import Again, Finish, Outcome, Park, RunContext
from tests.runs.conftest import Enqueue, Handle

CarryOne = Callable[[], Run | None]


def raising(error: Exception) -> Callable[[RunContext], Outcome]:
    def handler(context: RunContext) -> Outcome:
        raise error

    return handler


def test_run_when_handler_finishes_then_result_and_event(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(lambda context: Finish({"n": 1}))
    enqueue()

    run = carry_one()

    assert (run.state, run.result, run.lease_until) == ("succeeded", {"n": 1}, None)
    assert Event.objects.filter(run_id=run.id, type="run.finished").count() == 1


def test_run_when_handler_asks_for_more_then_queued_without_attempt(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(lambda context: Again())
    enqueue()

    run = carry_one()

    assert (run.state, run.attempt) == (State.QUEUED, 0)


def test_run_when_approval_is_required_then_parks_and_wakes_by_decision(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(raising(ApprovalRequired(approval_id="a1")))
    enqueue()

    run = carry_one()
    assert (run.state, run.waiting_on, run.attempt) == ("waiting_approval", "a1", 0)

    services.wake_for_decision(run.id)
    run.refresh_from_db()
    assert (run.state, run.waiting_on) == (State.QUEUED, "")


def test_run_when_decision_comes_before_it_parks_then_it_goes_on(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    def handler(context: RunContext) -> Outcome:
        services.wake_for_decision(context.run_id)
        return Park(State.WAITING_APPROVAL, "a1")

    handle(handler)
    enqueue()

    assert carry_one().state == State.QUEUED


def test_run_when_error_says_what_it_waits_as_then_parks(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    class NoRoute(Unavailable):
        """No route."""

        waits_as = "waiting_provider"

    handle(raising(NoRoute()))
    enqueue()

    run = carry_one()

    assert run.state == State.WAITING_PROVIDER
    assert run.wake_at is not None


def test_run_when_upstream_fails_for_now_then_backs_off(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(raising(UpstreamError("busy", retry_after=30)))
    enqueue()

    run = carry_one()

    assert (run.state, run.attempt) == (State.QUEUED, 1)
    assert run.due_at > clock.now() + timedelta(seconds=29)


@pytest.mark.parametrize("error", [Invalid("no"), UpstreamError("no", permanent=True)])
def test_run_when_refused_for_good_then_fails_with_the_code(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne, error: Invalid
) -> None:
    handle(raising(error))
    enqueue()

    run = carry_one()

    assert (run.state, run.error_code) == (State.FAILED, error.code)


def test_run_when_handler_has_a_bug_then_poison_after_its_attempts(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(raising(ZeroDivisionError("oops")))
    run, at = enqueue(max_attempts=2), clock.now()

    carry_one()
    with clock.frozen(at + timedelta(minutes=10)):
        carry_one()

    run.refresh_from_db()
    assert (run.state, run.reason) == (State.DEAD_LETTER, "poison")
    assert (run.error_code, "oops" in run.error_detail) == (BUG, True)


def test_run_when_kind_is_unknown_then_fails(
    enqueue: Enqueue, carry_one: CarryOne
) -> None:
    enqueue(kind="nobody.knows")

    assert carry_one().error_code == "POLAR_RUN_KIND_UNKNOWN"


def test_run_when_lease_is_lost_then_nothing_is_written(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    def handler(context: RunContext) -> Outcome:
        Run.objects.filter(id=context.run_id).update(fence=context.fence + 1)
        return Finish()

    handle(handler)
    enqueue()

    assert carry_one().state == State.RUNNING


def test_parent_when_last_child_ends_then_it_is_queued(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(lambda context: Park(State.WAITING_CHILD))
    parent = enqueue(parent=None)
    child = enqueue(parent=parent, due_at=clock.now() + timedelta(minutes=1))
    assert carry_one().state == State.WAITING_CHILD

    handle(lambda context: Finish())
    with clock.frozen(clock.now() + timedelta(minutes=2)):
        assert carry_one().id == child.id

    parent.refresh_from_db()
    assert (parent.state, parent.reason) == (State.QUEUED, "children_settled")


def test_parent_when_children_ended_before_it_parks_then_it_is_queued(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(lambda context: Park(State.WAITING_CHILD))
    enqueue()

    assert carry_one().state == State.QUEUED


def test_parent_when_deadline_passes_then_it_is_queued(
    enqueue: Enqueue, handle: Handle, carry_one: CarryOne
) -> None:
    handle(lambda context: Park(State.WAITING_CHILD))
    parent = enqueue(deadline_at=clock.now() + timedelta(minutes=1))
    enqueue(parent=parent, due_at=clock.now() + timedelta(hours=1))
    carry_one()

    with clock.frozen(clock.now() + timedelta(minutes=2)):
        sweep()

    parent.refresh_from_db()
    assert (parent.state, parent.reason) == (State.QUEUED, "time_to_go_on")
