"""Boards in the records: the same services, a refusal is a message."""

import pytest
from django.urls import reverse

from apps.boards import services
from apps.boards.models import Board, Task


@pytest.fixture
def admin(client, alice):
    alice.is_staff = alice.is_superuser = True
    alice.save()
    client.force_login(alice)
    return client


def test_board_is_made_in_the_records(admin, workspace):
    fields = {"workspace": workspace.id, "slug": "night", "title": "Night"}

    admin.post(reverse("admin:boards_board_add"), fields)

    assert Board.objects.get(slug="night").version == 1


def test_board_is_archived_in_the_records(admin, board):
    url = reverse("admin:boards_board_change", args=[board.id])

    admin.post(url, {"title": "Tasks", "archived": "on", "expected_version": 1})

    board.refresh_from_db()
    assert board.archived_at is not None


def test_task_is_changed_through_the_service(admin, task):
    url = reverse("admin:boards_task_change", args=[task.id])
    assert admin.get(url).status_code == 200

    admin.post(url, {"title": "Water more", "priority": 1, "expected_version": 1})

    task.refresh_from_db()
    assert (task.title, task.version) == ("Water more", 2)


def test_old_version_is_refused_with_its_words(admin, task, bob):
    services.transition_task(
        by=bob.principal, task_id=task.id, status="done", expected_version=1
    )
    url = reverse("admin:boards_task_change", args=[task.id])

    page = admin.post(
        url, {"title": "Mine", "priority": 1, "expected_version": 1}, follow=True
    )

    task.refresh_from_db()
    assert task.title == "Water the plants"
    assert "bob moved it" in page.content.decode()


def test_tasks_are_moved_by_an_action(admin, task):
    admin.post(
        reverse("admin:boards_task_changelist"),
        {
            "action": "move_to_done",
            "reason": "It is done.",
            "_selected_action": [str(task.id)],
        },
    )

    assert Task.objects.get().status == "done"


@pytest.mark.parametrize("name", ["task", "board", "taskevent", "taskcomment"])
def test_lists_open(admin, task, name):
    assert admin.get(reverse(f"admin:boards_{name}_changelist")).status_code == 200
