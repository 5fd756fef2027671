"""Boards through the API: the same services, the same words."""

import pytest

from apps.boards.models import Task, TaskComment


@pytest.fixture
def api(signed_in):
    def call(path, body=None, **headers):
        url = f"/api/v1/{path}"
        if body is None:
            return signed_in.get(url, headers=headers)
        return signed_in.post(
            url, body, content_type="application/json", headers=headers
        )

    return call


def test_board_is_made_renamed_and_archived(api, workspace):
    made = api("boards", {"slug": "night", "title": "Night shift"}).json()
    path = f"boards/{made['id']}"
    api(path, {"expectedVersion": 1, "title": "Night", "archived": True})

    assert api("boards").json()["items"] == []
    shown = api("boards?archived=true").json()["items"][0]
    assert (shown["title"], shown["version"]) == ("Night", 2)


def test_archived_board_takes_no_task(api, workspace):
    made = api("boards", {"slug": "night", "title": "Night shift"}).json()
    api(f"boards/{made['id']}", {"expectedVersion": 1, "archived": True})

    refused = api("tasks", {"board": "night", "title": "x"})

    assert refused.status_code == 409
    assert "archived" in refused.json()["detail"]


def test_same_idempotency_key_makes_one_task(api, board):
    key = {"Idempotency-Key": "abc"}
    first = api("tasks", {"title": "Once"}, **key).json()
    second = api("tasks", {"title": "Once"}, **key).json()

    assert first["id"] == second["id"]
    assert Task.objects.count() == 1


def test_conflict_names_who_changed_what(api, task):
    path = f"tasks/{task.id}/transition"
    api(path, {"status": "blocked", "expectedVersion": 1})

    refused = api(path, {"status": "done", "expectedVersion": 1})

    problem = refused.json()
    assert (refused.status_code, problem["version"]) == (409, 2)
    assert problem["changes"][0]["by"] == "alice"


def test_comment_is_said_once_and_listed(api, task):
    path = f"tasks/{task.id}/comments"
    key = {"Idempotency-Key": "c1"}
    api(path, {"text": "Looks dry."}, **key)
    api(path, {"text": "Looks dry."}, **key)

    assert [each["text"] for each in api(path).json()["items"]] == ["Looks dry."]
    assert TaskComment.objects.count() == 1


def test_filters_and_pages(api, board):
    for number in range(3):
        api("tasks", {"title": f"Task {number}", "priority": number})

    first = api("tasks?limit=2").json()
    rest = api(f"tasks?limit=2&cursor={first['cursor']}").json()

    assert [len(first["items"]), len(rest["items"]), rest["cursor"]] == [2, 1, ""]
    assert len(api("tasks?urgent=true").json()["items"]) == 2
    assert len(api("tasks?text=task 1").json()["items"]) == 1


def test_mark_shows_the_next_step_and_is_checked_again(api, task):
    body = {"mark": "stale", "reason": "restored at 01:10"}
    marked = api(f"tasks/{task.id}/mark", body).json()
    assert (marked["status"], marked["column"]) == ("stale", "todo")
    assert "Check it again" in marked["nextStep"]

    back = api(f"tasks/{task.id}/revalidate", {"expectedVersion": 2, "reason": "ok"})

    assert back.json()["status"] == "todo"


def test_stranger_sees_no_task(client, charlie, task):
    client.force_login(charlie)

    assert client.get(f"/api/v1/tasks/{task.id}").status_code in (403, 404)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "ftp://x/", "//x", "http://"])
def test_link_that_is_no_web_address_is_refused(api, board, url):
    refused = api("tasks", {"title": "x", "url": url})

    assert refused.status_code == 422
    assert refused.json()["fields"][0]["path"] == "url"


@pytest.mark.parametrize(
    "query", ["text=%F0%9F", "board=%20", "status=none", "who=@%20"]
)
def test_filter_that_no_database_holds_finds_nothing(api, task, query):
    answer = api(f"tasks?{query}")

    assert (answer.status_code, answer.json()["items"]) == (200, [])
