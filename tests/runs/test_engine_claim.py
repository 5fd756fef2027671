"""The work gate: one owner per run, oldest of a key first, fences that hold."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.access.models import Principal
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import Fenced
from apps.runs import services
from apps.runs.engine import settle
from apps.runs.engine.claim import anything_due, check_fence, claim
from apps.runs.engine.clock import Clock
from apps.runs.engine.leases import LeaseKeeper
from apps.runs.engine.sweep import sweep
from apps.runs.models import Run, State
from apps.runs.ports import Finish, Park
from tests.runs.conftest import Enqueue, claim_some

pytestmark = pytest.mark.django_db


def test_claim_when_due_then_state_fence_attempt_and_lease_are_set(
    enqueue: Enqueue,
) -> None:
    run = enqueue()

    claimed = claim_some()[0]

    run.refresh_from_db()
    assert (run.state, run.fence, run.attempt) == (State.RUNNING, 1, 1)
    assert run.lease_until == claimed.lease_until


def test_claim_when_two_ask_then_one_gets_it(enqueue: Enqueue) -> None:
    enqueue()

    taken = claim_some(owner="w1"), claim_some(owner="w2")

    assert [len(part) for part in taken] == [1, 0]


def test_claim_when_not_yet_due_then_nothing(enqueue: Enqueue) -> None:
    enqueue(due_at=clock.now() + timedelta(seconds=60))

    assert claim_some() == []


def test_claim_when_many_wait_for_later_then_the_due_one_is_found(
    enqueue: Enqueue,
) -> None:
    for _ in range(20):
        enqueue(due_at=clock.now() + timedelta(hours=1), priority=9)
    due = enqueue()

    assert [claimed.id for claimed in claim_some(limit=1)] == [due.id]


def test_claim_on_a_file_asks_the_indexes_of_the_key_and_not_the_whole_queue(
    enqueue: Enqueue,
) -> None:
    """Else it reads the queue once for each run of the queue, with the file locked."""
    if connection.vendor != "sqlite":
        pytest.skip("SQLite's partial indexes are chosen word for word")
    enqueue(serial_key="c1")
    with CaptureQueriesContext(connection) as asked:
        assert anything_due(["default"])
        assert claim_some()
    plans = [
        str(connection.cursor().execute("EXPLAIN QUERY PLAN " + each["sql"]).fetchall())
        for each in asked
        if "runs_run ahead" in each["sql"]
    ]

    assert len(plans) == 2
    for plan in plans:
        assert "run_one_running_per_key (serial_key=?)" in plan
        assert "run_key_line (serial_key=?" in plan


def test_claim_when_key_is_busy_then_the_next_of_it_waits(enqueue: Enqueue) -> None:
    first, _ = enqueue(serial_key="c1"), enqueue(serial_key="c1")

    assert [claimed.id for claimed in claim_some()] == [first.id]
    assert claim_some() == []


def test_claim_when_named_out_of_turn_then_refused(enqueue: Enqueue) -> None:
    enqueue(serial_key="c1")
    second = enqueue(serial_key="c1")

    assert claim(owner="w", queues=["default"], run_id=second.id) == []


def test_claim_when_first_backs_off_then_the_next_of_its_key_waits(
    enqueue: Enqueue,
) -> None:
    enqueue(serial_key="c1"), enqueue(serial_key="c1")
    settle.try_again(claim_some()[0], code="X", detail="")

    assert claim_some() == []


def test_claim_when_first_is_parked_then_the_next_of_its_key_goes(
    enqueue: Enqueue,
) -> None:
    enqueue(serial_key="c1")
    second = enqueue(serial_key="c1")
    settle.park(claim_some()[0], Park(State.WAITING_APPROVAL, "a1"))

    assert [claimed.id for claimed in claim_some()] == [second.id]


def test_claim_when_other_queue_then_nothing(enqueue: Enqueue) -> None:
    enqueue()

    assert claim(owner="w", queues=["listen"], limit=5) == []


def test_fence_when_lease_lapsed_and_taken_again_then_stale_write_is_refused(
    enqueue: Enqueue,
) -> None:
    run, start = enqueue(), clock.now()
    stale = claim_some()[0]
    with clock.frozen(start + timedelta(seconds=40)):
        sweep()
    with clock.frozen(start + timedelta(seconds=60)):
        fresh = claim_some(owner="w2")[0]

        with pytest.raises(Fenced):
            settle.finish(stale, Finish())
        check_fence(run.id, fresh.fence)

    run.refresh_from_db()
    assert (run.state, run.fence, run.attempt) == (State.RUNNING, 2, 2)


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(days=3)])
def test_run_when_the_clock_was_set_back_during_its_lease_then_it_goes_on_once(
    enqueue: Enqueue, back: timedelta
) -> None:
    run = enqueue(due_at=clock.now() - back - timedelta(hours=1))
    stale = claim_some()[0]

    with clock.frozen(clock.now() - back):
        sweep()
        clock.advance(60)
        fresh = claim_some(owner="w2")[0]
        settle.finish(fresh, Finish())
    with pytest.raises(Fenced):
        settle.finish(stale, Finish())

    run.refresh_from_db()
    assert (run.state, run.fence) == (State.SUCCEEDED, 2)
    assert Event.objects.filter(type="run.finished", run_id=run.id).count() == 1


def test_lease_when_the_clock_was_set_back_a_little_then_it_holds(
    enqueue: Enqueue,
) -> None:
    enqueue()
    claim_some()

    with clock.frozen(clock.now() - timedelta(minutes=2)):
        assert sweep().reclaimed == 0


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(days=3)])
def test_clock_when_it_was_set_back_then_another_process_becomes_it(
    db: None, back: timedelta
) -> None:
    assert Clock().acquire()

    assert not Clock().acquire()
    with clock.frozen(clock.now() - back):
        assert Clock().acquire()


def test_fence_when_run_was_cancelled_then_check_fence_refuses(
    enqueue: Enqueue, system: Principal
) -> None:
    claimed = (enqueue(), claim_some()[0])[1]
    services.cancel(by=system, run_id=claimed.id, reason="not wanted")

    with pytest.raises(Fenced):
        check_fence(claimed.id, claimed.fence)


def test_renew_when_step_has_time_then_lease_moves_on(
    enqueue: Enqueue, keeper: LeaseKeeper
) -> None:
    run = enqueue()
    claimed = claim_some(owner=keeper.owner)[0]
    keeper.hold(claimed)

    with clock.frozen(claimed.lease_until):
        assert keeper.renew() == 1

    run.refresh_from_db()
    assert run.lease_until > claimed.lease_until


def test_renew_when_step_is_over_time_then_lease_lapses(
    enqueue: Enqueue, keeper: LeaseKeeper
) -> None:
    enqueue()
    held = keeper.hold(claim_some(owner=keeper.owner)[0], step_seconds=-1)

    assert keeper.renew() == 0
    assert held.lost


def test_renew_when_somebody_else_has_it_then_it_counts_as_lost(
    enqueue: Enqueue, keeper: LeaseKeeper
) -> None:
    run = enqueue()
    held = keeper.hold(claim_some(owner=keeper.owner)[0])
    Run.objects.filter(id=run.id).update(lease_owner="w2", fence=2)

    assert keeper.renew() == 0
    assert held.lost


def test_worker_that_leaves_waits_for_what_is_just_being_claimed(
    enqueue: Enqueue, keeper: LeaseKeeper
) -> None:
    run = enqueue()

    with keeper.claiming() as may:
        [claimed] = claim(owner=keeper.owner, queues=keeper.queues)
        keeper.leaving.set()
        assert may
        assert keeper.in_flight() == 1, "nobody goes before it is held"
        keeper.hold(claimed)
    assert keeper.release_all() == 1

    run.refresh_from_db()
    assert run.state == State.QUEUED
    with keeper.claiming() as may:
        assert not may
