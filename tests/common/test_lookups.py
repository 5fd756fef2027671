"""Conditions that keep SQLite to the index that is meant."""

import pytest
from django.db import connection

from apps.access.models import User
from apps.boards.models import MARKS, Task
from apps.common import clock
from apps.gateway.models import Call, CallState
from apps.runs.models import Run, Slot


def test_among_when_on_sqlite_then_the_partial_index_serves(db: None) -> None:
    wanted = Call.objects.unfinished(CallState.EXECUTING).order_by("-id")

    plan = wanted.explain()

    if connection.vendor == "sqlite":
        assert "call_unfinished" in plan


def test_among_when_a_word_is_no_choice_then_refused(db: None) -> None:
    with pytest.raises(ValueError, match="words of a choice"):
        Call.objects.filter(state__among=["x' OR 1=1 --"]).exists()


def test_unindexed_when_runs_are_listed_then_they_are_not_sorted(
    alice: User,
) -> None:
    newest = Run.objects.visible_to(alice.principal).order_by("-id")[:50]

    plan = newest.explain()

    if connection.vendor == "sqlite":
        assert "TEMP B-TREE" not in plan
        assert "workspace_id" not in plan
    assert list(newest) == []


def test_among_when_missed_slots_are_counted_then_all_slots_are_not(db: None) -> None:
    plan = Slot.objects.filter(
        state__among=["missed"], created_at__gte=clock.now()
    ).explain()

    if connection.vendor == "sqlite":
        assert "slot_missed (created_at>?)" in plan


def test_among_when_marked_tasks_are_shown_then_the_others_are_not_read(
    alice: User,
) -> None:
    marked = Task.objects.visible_to(alice.principal).filter(status__among=MARKS)

    plan = marked.order_by("position", "id")[:5].explain()

    if connection.vendor == "sqlite":
        assert "task_marked" in plan
