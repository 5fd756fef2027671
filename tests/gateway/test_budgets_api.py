"""Budgets over the API: set, listed, changed, archived, and put back to serve."""

from typing import Any

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.common import clock
from apps.gateway.models import Budget

pytestmark = pytest.mark.django_db
JSON = "application/json"
WANTED = {"scope": "profile", "key": "writer", "limit": 2_500_000, "window": "month"}


def client_of(user: User, *scopes: str) -> Client:
    principal = access.principal_for_user(user=user)
    _, raw = access.issue_token(
        by=principal,
        principal=principal,
        name="t",
        scopes=list(scopes),
        held=frozenset({"*"}),
    )
    return Client(headers={"Authorization": f"Bearer {raw}"})


@pytest.fixture
def api(bob: User, workspace: Workspace) -> Client:
    return client_of(bob, "budgets:read", "budgets:write")


def put(api: Client, **changes: Any) -> Any:
    return api.post("/api/v1/budgets", WANTED | changes, JSON)


def test_a_budget_is_set_listed_and_changed(api: Client) -> None:
    made = put(api)
    said = made.json()
    changed = put(
        api, limit=9, budgetId=said["id"], expectedVersion=said["version"]
    ).json()
    listed = api.get("/api/v1/budgets").json()["items"]

    assert made.status_code == 200, said
    assert (said["scope"], said["key"], said["limit"]) == ("profile", "writer", 2500000)
    assert (changed["limit"], changed["version"]) == (9, said["version"] + 1)
    assert [row["id"] for row in listed] == [said["id"]]


def test_an_old_version_changes_nothing(api: Client) -> None:
    said = put(api).json()
    late = put(api, limit=9, budgetId=said["id"], expectedVersion=99)

    assert late.status_code == 409
    assert Budget.objects.get().limit == 2_500_000


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"scope": "galaxy"}, "scope"),
        ({"limit": -1}, "limit"),
        ({"window": "aeon"}, "window"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"unit": "hopes"}, "unit"),
    ],
)
def test_what_is_no_budget_names_its_field(
    api: Client, changes: dict[str, Any], path: str
) -> None:
    answer = put(api, **changes)

    assert answer.status_code == 422
    assert any(path in field["path"] for field in answer.json()["fields"])
    assert not Budget.objects.exists()


def test_archived_it_is_listed_only_when_asked_for(api: Client) -> None:
    said = put(api).json()
    url = f"/api/v1/budgets/{said['id']}?expected_version={said['version']}"
    gone = api.delete(url)

    assert gone.status_code == 204, gone.content
    assert api.get("/api/v1/budgets").json()["items"] == []
    assert len(api.get("/api/v1/budgets?archived=true").json()["items"]) == 1


def test_an_overrun_is_let_go_with_a_reason(api: Client) -> None:
    said = put(api).json()
    Budget.objects.update(blocked_at=clock.now(), overrun=7)
    url = f"/api/v1/budgets/{said['id']}/unblock"
    mute = api.post(url, {"reason": ""}, JSON)
    let_go = api.post(url, {"reason": "the vendor paid it back"}, JSON)

    assert (mute.status_code, let_go.status_code) == (422, 200)
    assert Budget.objects.get().blocked_at is None


def test_a_reading_token_and_an_outsider_change_nothing(
    api: Client, bob: User, charlie: User
) -> None:
    said = put(api).json()
    reader = put(client_of(bob, "budgets:read"))
    outsider = client_of(charlie, "*")
    refused = put(outsider, budgetId=said["id"], limit=1, expectedVersion=1)

    assert reader.status_code == 403
    assert refused.status_code in (403, 404)
    assert Budget.objects.get().limit == 2_500_000
