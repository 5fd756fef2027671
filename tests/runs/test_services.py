"""The verbs: cancel, dead letters, waking, sweeping."""

from datetime import timedelta
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal, User
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Invalid, InvalidTransition, NotFound
from apps.runs import services
from apps.runs.engine.sweep import sweep
from apps.runs.errors import NotDeadLetter
from apps.runs.models import Run, State
from apps.runs.ports import doorbell
from tests.runs.conftest import Enqueue, claim_some


@pytest.fixture
def dead(enqueue: Enqueue, system: Principal) -> Run:
    run = enqueue()
    return services.dead_letter(by=system.actor, run_id=run.id, reason="operator")


def test_enqueue_when_committed_then_the_bell_rings(
    enqueue: Enqueue, django_capture_on_commit_callbacks: Any
) -> None:
    rung: list[object] = []
    doorbell.plug(lambda run_id, queue: rung.append(run_id))
    try:
        with django_capture_on_commit_callbacks(execute=True):
            run = enqueue()
    finally:
        doorbell.plug(None)

    assert rung == [run.id]


def test_enqueue_when_trigger_is_unknown_then_refused(enqueue: Enqueue) -> None:
    with pytest.raises(Invalid):
        enqueue(trigger="whim")


def test_enqueue_when_child_then_root_and_trace_are_the_parents(
    enqueue: Enqueue,
) -> None:
    parent = enqueue()
    child = enqueue(parent=parent)

    assert (child.root_id, child.trace_id) == (parent.root_id, parent.trace_id)


def test_cancel_when_queued_then_cancelled_with_trace(
    enqueue: Enqueue, alice: User
) -> None:
    run = enqueue()
    by = access.principal_for_user(user=alice)

    assert services.cancel(by=by, run_id=run.id, reason="x").state == "cancelled"

    event = Event.objects.get(run_id=run.id, type="run.cancelled")
    assert event.actor_id == str(by.id)


def test_cancel_when_outsider_then_not_found(enqueue: Enqueue, charlie: User) -> None:
    run = enqueue()

    with pytest.raises(NotFound):
        services.cancel(
            by=access.principal_for_user(user=charlie), run_id=run.id, reason="x"
        )


def test_cancel_when_over_then_refused(enqueue: Enqueue, system: Principal) -> None:
    run = enqueue()
    services.cancel(by=system, run_id=run.id, reason="x")

    with pytest.raises(InvalidTransition):
        services.cancel(by=system, run_id=run.id, reason="x")


@pytest.mark.parametrize(
    ("action", "state"),
    [("retry_now", "queued"), ("requeue", "queued"), ("dismiss", "dismissed")],
)
def test_dead_letter_when_acted_on_then_moves_and_leaves_trace(
    dead: Run, system: Principal, action: str, state: str
) -> None:
    done = services.act_on_dead_letter(
        by=system, run_id=dead.id, action=action, reason="seen"
    )

    assert done.state == state
    event = Event.objects.get(run_id=dead.id, type="run.dead_letter_acted")
    assert event.decision == action


def test_dead_letter_when_acted_on_twice_then_second_is_refused(
    dead: Run, system: Principal
) -> None:
    act = {"by": system, "run_id": dead.id, "action": "dismiss", "reason": "seen"}
    services.act_on_dead_letter(**act)

    with pytest.raises(NotDeadLetter):
        services.act_on_dead_letter(**act)


def test_dead_letter_when_no_reason_then_refused(dead: Run, system: Principal) -> None:
    with pytest.raises(Invalid):
        services.act_on_dead_letter(
            by=system, run_id=dead.id, action="dismiss", reason=" "
        )


def test_wake_when_nothing_is_named_then_refused(db: None) -> None:
    with pytest.raises(Invalid):
        services.wake()


def test_sweep_when_lease_lapsed_then_queued_with_back_off(enqueue: Enqueue) -> None:
    run, start = enqueue(), clock.now()
    claim_some()

    with clock.frozen(start + timedelta(seconds=31)):
        assert sweep().reclaimed == 1
        run.refresh_from_db()
        assert run.state == State.QUEUED
        assert run.due_at > clock.now()


def test_sweep_when_lease_holds_then_nothing(enqueue: Enqueue) -> None:
    enqueue()
    claim_some()

    assert sweep().reclaimed == 0


def test_sweep_when_attempts_are_used_up_then_poison_with_trace(
    enqueue: Enqueue,
) -> None:
    run, start = enqueue(max_attempts=1), clock.now()
    claim_some()

    with clock.frozen(start + timedelta(seconds=31)):
        assert sweep().poisoned == 1

    run.refresh_from_db()
    assert (run.state, run.reason) == (State.DEAD_LETTER, "poison")
    assert Event.objects.filter(run_id=run.id, type="run.dead_lettered").exists()


def test_tick_when_hint_was_lost_then_it_rings_again(enqueue: Enqueue) -> None:
    run, rung = enqueue(), []
    doorbell.plug(lambda run_id, queue: rung.append(run_id))
    try:
        with clock.frozen(clock.now() + timedelta(seconds=5)):
            services.tick()
    finally:
        doorbell.plug(None)

    assert rung == [run.id]
