"""A worker's own look, where a server tells nobody that there is work."""

import pytest

from apps.runs.engine.claim import Claimed
from apps.runs.engine.leases import LeaseKeeper
from apps.runs.engine.watch import Watch
from tests.runs.conftest import Enqueue

pytestmark = pytest.mark.django_db


@pytest.fixture
def handed() -> list[Claimed]:
    return []


@pytest.fixture
def watch(handed: list[Claimed]) -> Watch:
    keeper = LeaseKeeper(queues=("default",), concurrency=1)
    made = Watch(keeper, handed.append)
    made._sign = None  # as on PostgreSQL
    return made


def test_look_when_it_was_full_then_room_is_used_at_once(
    watch: Watch, handed: list[Claimed], enqueue: Enqueue
) -> None:
    first, second = enqueue(), enqueue()

    watch.look()
    while_full = watch.look()
    watch.keeper.drop(handed[0])
    watch.look()

    assert while_full == 0
    assert [claimed.id for claimed in handed] == [first.id, second.id]


def test_look_when_it_had_room_then_the_server_is_left_alone_for_a_while(
    watch: Watch, handed: list[Claimed], enqueue: Enqueue
) -> None:
    watch.look()
    enqueue()

    assert watch.look() == 0
    watch._poll_at = 0.0
    assert watch.look() == 1
