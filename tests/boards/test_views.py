"""Boards for people: cards that live, moves that are refused with a reason."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.access import services as access
from apps.agents.models import Turn
from apps.boards import queries, services
from apps.boards.models import Task, TaskComment
from apps.gateway import services as gateway
from apps.runs.models import Run

HTMX = {"HX-Request": "true"}


def many(board, count: int) -> None:
    """Fill the first column, past the services: only reading is tried on these."""
    Task.objects.bulk_create(
        Task(workspace=board.workspace, board=board, title=f"Task {n}", position=n)
        for n in range(count)
    )


def text(response) -> str:
    return response.content.decode()


def form_of(task: Task, **changed) -> dict:
    shown = {"title": task.title, "priority": 1, "expected_version": task.version}
    return shown | changed


@pytest.mark.parametrize("name", ["list", "panel"])
def test_strangers_are_sent_to_the_sign_in_page(client, db, name):
    assert client.get(reverse(f"boards:{name}")).status_code == 302


def test_outsider_finds_no_board_and_no_task(client, charlie, board, task):
    client.force_login(charlie)

    assert client.get(reverse("boards:board", args=[board.id])).status_code == 404
    assert client.get(reverse("boards:task", args=[task.id])).status_code == 404


def test_list_says_what_to_do_when_empty(signed_in):
    assert "No boards yet" in text(signed_in.get(reverse("boards:list")))


def test_board_is_made_from_the_list(signed_in, workspace):
    said = {"title": "Night shift", "slug": "night"}

    response = signed_in.post(reverse("boards:new_board"), said, follow=True)

    assert "Night shift" in text(response)


def test_ten_thousand_tasks_are_not_loaded_whole(signed_in, board):
    many(board, 10_000)
    signed_in.get(reverse("boards:list"))

    with CaptureQueriesContext(
        connection,
    ) as asked:
        page = text(signed_in.get(reverse("boards:board", args=[board.id])))

    assert len(asked) <= 30
    assert page.count("data-card") == queries.COLUMN_SIZE
    assert "10000" in page


def test_column_pages_by_key_without_gap(signed_in, board):
    many(board, 60)
    url = reverse("boards:board", args=[board.id])
    seen, cursor = [], ""
    for _ in range(3):
        column = signed_in.get(f"{url}?todo={cursor}").context["columns"][0]
        seen += [card.task.title for card in column["cards"]]
        cursor = dict([column["next"].split("=")])["todo"] if column["has_next"] else ""

    assert seen == [f"Task {n}" for n in range(60)]
    assert cursor == ""


@pytest.mark.parametrize("cursor", ["x", "1.2", f"{'9' * 40}.{'0' * 32}", ".", "0."])
def test_broken_cursor_shows_the_first_page(signed_in, board, task, cursor):
    url = reverse("boards:board", args=[board.id])

    assert task.title in text(signed_in.get(f"{url}?todo={cursor}"))


def test_live_region_is_quiet_while_nothing_changes(signed_in, board, task):
    url = reverse("boards:live", args=[board.id])
    first = text(signed_in.get(url, headers=HTMX))
    seen = first.split("seen=")[1].split('"')[0]
    assert signed_in.get(f"{url}?seen={seen}", headers=HTMX).status_code == 204

    services.transition_task(
        by=task_mover(signed_in), task_id=task.id, status="done", expected_version=1
    )

    assert signed_in.get(f"{url}?seen={seen}", headers=HTMX).status_code == 200


def task_mover(client):
    from apps.access.models import Principal

    return Principal.objects.get(user_id=client.session["_auth_user_id"])


def test_move_on_the_board_answers_the_cards_and_a_word(signed_in, task):
    url = reverse("boards:move", args=[task.id])

    page = signed_in.post(url, {"status": "done", "expected_version": 1}, headers=HTMX)

    assert 'id="board-live"' in text(page)
    assert "Moved “Water the plants” to Done." in text(page)


def test_second_operator_is_told_who_moved_the_card(signed_in, task, bob):
    services.transition_task(
        by=bob.principal, task_id=task.id, status="blocked", expected_version=1
    )

    page = signed_in.post(
        reverse("boards:move", args=[task.id]),
        {"status": "done", "expected_version": 1},
        headers=HTMX,
    )

    assert page.status_code == 409
    assert "bob moved it from todo to blocked" in text(page)
    assert Task.objects.get().status == "blocked"


def test_conflict_on_a_form_keeps_the_text_and_shows_both(signed_in, task, bob, board):
    services.upsert_task(
        by=bob.principal,
        board=board,
        draft=services.TaskDraft(title="Bob's words"),
        task_id=task.id,
        expected_version=1,
    )
    url = reverse("boards:edit_task", args=[task.id])

    page = signed_in.post(url, form_of(task, title="My words", body="A long story"))

    shown = text(page)
    assert page.status_code == 409
    assert "My words" in shown and "A long story" in shown
    assert "Bob&#x27;s words" in shown and "bob changed the title" in shown
    assert page.context["values"]["expected_version"] == "2"


def test_second_click_makes_no_second_task(signed_in, board):
    url = reverse("boards:new_task", args=[board.id])
    typed = {"title": "Once", "priority": 2, "request_key": "k1"}

    signed_in.post(url, typed)
    signed_in.post(url, typed)

    assert Task.objects.count() == 1


def test_agent_chosen_in_the_form_starts(signed_in, board, writer):
    typed = {"title": "Greet", "priority": 2, "assignee": f"profile:{writer.id}"}

    page = signed_in.post(
        reverse("boards:new_task", args=[board.id]), typed, follow=True
    )

    assert Turn.objects.count() == 1
    assert "@writer works on it" in text(page)


def test_bad_field_is_named_and_the_text_is_kept(signed_in, board):
    typed = {"title": "Kept", "priority": 2, "url": "javascript:alert(1)"}

    page = signed_in.post(reverse("boards:new_task", args=[board.id]), typed)

    assert page.status_code == 422
    assert "Kept" in text(page) and "not a web address" in text(page)


def test_link_from_a_run_fills_the_form(signed_in, board, task):
    url = reverse("boards:new_task_anywhere")

    page = signed_in.get(f"{url}?title=Look&run_id={task.id}&evil=1", follow=True)

    assert f'value="{task.id}"' in text(page)
    assert "evil" not in text(page)


def test_link_without_a_board_says_to_make_one(signed_in):
    page = signed_in.get(reverse("boards:new_task_anywhere"), follow=True)

    assert "Make a board first" in text(page)


def test_comment_is_said_once_and_shown(signed_in, task):
    url = reverse("boards:comment", args=[task.id])
    for _ in range(2):
        page = signed_in.post(url, {"text": "<b>dry</b>", "key": "k"}, follow=True)

    assert TaskComment.objects.count() == 1
    assert "&lt;b&gt;dry&lt;/b&gt;" in text(page)


def test_empty_comment_is_refused_with_its_reason(signed_in, task):
    page = signed_in.post(reverse("boards:comment", args=[task.id]), {"text": " "})

    assert page.status_code == 422
    assert "Not said" in text(page)


def test_marked_card_says_why_and_what_next(signed_in, task, board, alice):
    services.mark_task(
        by=alice.principal, task_id=task.id, mark="stale", reason="Restored at 01:10"
    )

    card = text(signed_in.get(reverse("boards:board", args=[board.id])))
    assert "Restored at 01:10" in card and "Check it again" in card
    assert 'draggable="true"' not in card

    signed_in.post(
        reverse("boards:revalidate", args=[task.id]),
        {"expected_version": 2, "reason": "still wet"},
    )
    assert Task.objects.get().status == "todo"


def test_archived_board_offers_no_move(signed_in, task, board, alice):
    services.update_board(
        by=alice.principal, board_id=board.id, expected_version=1, archived=True
    )

    page = text(signed_in.get(reverse("boards:board", args=[board.id])))

    assert "This board rests" in page
    assert "data-mover" not in page and "New task" not in page


@pytest.mark.parametrize("name", ["task", "task_live", "edit_task"])
def test_task_pages_ask_little(signed_in, task, name):
    url = reverse(f"boards:{name}", args=[task.id])
    signed_in.get(url)

    with CaptureQueriesContext(connection) as asked:
        assert signed_in.get(url).status_code == 200

    assert len(asked) <= 30


def test_panel_names_my_tasks_and_the_marked(signed_in, board, alice, task):
    draft = services.TaskDraft(
        title="Mine", assignee_kind="user", assignee_user_id=alice.id
    )
    services.upsert_task(by=alice.principal, board=board, draft=draft)
    services.mark_task(by=alice.principal, task_id=task.id, mark="stale", reason="old")

    with CaptureQueriesContext(connection) as asked:
        page = text(signed_in.get(reverse("boards:panel")))

    assert "Mine" in page and "Stale: old" in page
    assert len(asked) <= 30


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("who=mine", {"mine"}),
        ("who=nobody", {"urgent", "overdue"}),
        ("urgent=1", {"urgent"}),
        ("due=overdue", {"overdue"}),
        ("q=URG", {"urgent"}),
        ("who=robots", set()),
    ],
)
def test_filters_live_in_the_address(signed_in, board, alice, asked, shown):
    from datetime import date

    by, draft = alice.principal, services.TaskDraft
    for each in (
        draft(
            title="mine", priority=2, assignee_kind="user", assignee_user_id=alice.id
        ),
        draft(title="urgent", priority=0),
        draft(title="overdue", priority=2, due_date=date(2020, 1, 1)),
    ):
        services.upsert_task(by=by, board=board, draft=each)

    page = signed_in.get(reverse("boards:board", args=[board.id]) + "?" + asked)

    titles = {card.task.title for card in page.context["columns"][0]["cards"]}
    assert titles == shown


def test_board_answers_and_moves_while_everything_is_halted(
    signed_in, board, task, writer
):
    gateway.halt(by=access.system_principal(), scope="all", reason="S1")
    url = reverse("boards:board", args=[board.id])

    moved = signed_in.post(
        reverse("boards:move", args=[task.id]),
        {"status": "done", "expected_version": 1},
        headers=HTMX,
    )
    typed = {"title": "Greet", "priority": 2, "assignee": f"profile:{writer.id}"}
    signed_in.post(reverse("boards:new_task", args=[board.id]), typed)

    assert (moved.status_code, signed_in.get(url).status_code) == (200, 200)
    assert Run.objects.get(kind="agents.turn").state == "queued"


def test_run_page_and_answer_offer_a_task(signed_in, board, writer, alice):
    draft = services.TaskDraft(
        title="Greet",
        assignee_kind="agent_profile",
        assignee_profile_id=writer.id,
    )
    made = services.upsert_task(by=alice.principal, board=board, draft=draft)

    page = text(signed_in.get(reverse("runs:detail", args=[made.run_id])))

    assert f"{reverse('boards:new_task_anywhere')}?run_id={made.run_id}" in page


def test_title_that_tries_to_be_html_stays_text(signed_in, board, alice):
    evil = '"><script>alert(1)</script>'
    services.upsert_task(
        by=alice.principal, board=board, draft=services.TaskDraft(title=evil)
    )

    page = text(signed_in.get(reverse("boards:board", args=[board.id])))

    assert "<script>alert" not in page
