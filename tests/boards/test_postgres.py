"""What only a server database shows: two moves, two clicks, two tellers at once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from apps.access import services as access
from apps.agents.engine import ending
from apps.agents.models import Turn, TurnState
from apps.boards import services
from apps.boards.errors import VersionConflict
from apps.boards.models import Task, TaskComment, TaskEvent

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
        try:
            results[place] = jobs[place]()
        except VersionConflict as refused:
            results[place] = refused
        connection.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_one_card_moved_by_four_at_once_moves_once(task, alice, bob):
    def move(by, status):
        return lambda: services.transition_task(
            by=by.principal, task_id=task.id, status=status, expected_version=1
        )

    ends = at_once(*(move(by, to) for by in (alice, bob) for to in ("done", "blocked")))

    refused = [each for each in ends if isinstance(each, VersionConflict)]
    assert len(refused) == 3
    assert all(each.facts["changes"] for each in refused)
    assert TaskEvent.objects.filter(task_id=task.id).count() == 2


def test_same_key_sent_eight_times_at_once_makes_one_task(board, alice):
    def add():
        draft = services.TaskDraft(title="Once")
        return services.upsert_task(
            by=alice.principal, board=board, draft=draft, request_key="k"
        )

    made = at_once(*[add] * 8)

    assert len({task.id for task in made}) == 1
    assert Task.objects.count() == 1


def test_result_told_by_eight_at_once_moves_once(board, alice, writer):
    draft = services.TaskDraft(
        title="Greet", assignee_kind="agent_profile", assignee_profile_id=writer.id
    )
    task = services.upsert_task(by=alice.principal, board=board, draft=draft)
    rows = Turn.objects.select_related("run", "profile", "conversation__workspace")
    turn = rows.get(id=task.turn_id)
    with transaction.atomic():
        ending.close_turn(turn, [], ending.Close(TurnState.ANSWERED, text="Hello."))
    access.system_principal()

    told = at_once(*[lambda: services.settle_turn(turn_id=turn.id)] * 8)

    assert sum(told) == 1
    assert TaskComment.objects.count() == 1
