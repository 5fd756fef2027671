"""What only a server database shows: two claimers, two last children."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from apps.runs.engine import settle
from apps.runs.engine.claim import claim
from apps.runs.models import Run, State
from apps.runs.ports import Finish, Park
from tests.runs.conftest import Enqueue, claim_some

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL"),
]


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Do the jobs in threads that start together, each on its own connection."""
    barrier, results = threading.Barrier(len(jobs)), [None] * len(jobs)

    def work(place: int) -> None:
        barrier.wait()
        results[place] = jobs[place]()
        connection.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_claim_when_many_claim_at_once_then_each_run_has_one_owner(
    enqueue: Enqueue,
) -> None:
    for number in range(40):
        enqueue(serial_key=f"c{number % 10}" if number % 2 else "")

    taken = at_once(
        *(
            lambda n=n: claim(owner=f"w{n}", queues=["default"], limit=5)
            for n in range(8)
        )
    )

    owned = [claimed.id for part in taken for claimed in part]
    running = Run.objects.filter(state=State.RUNNING)
    assert len(owned) == len(set(owned)) == running.count()
    keys = list(running.exclude(serial_key="").values_list("serial_key", flat=True))
    assert len(keys) == len(set(keys))


def test_parent_when_two_last_children_end_at_once_then_it_is_queued(
    enqueue: Enqueue,
) -> None:
    for _ in range(5):
        parent = enqueue()
        parked = claim_some()[0]
        children = [enqueue(parent=parent) for _ in range(4)]
        settle.park(parked, Park(State.WAITING_CHILD))
        claimed = claim_some()
        assert len(claimed) == len(children)

        at_once(*(lambda c=c: settle.finish(c, Finish()) for c in claimed))

        parent.refresh_from_db()
        assert parent.state == State.QUEUED
        settle.finish(claim_some()[0], Finish())
