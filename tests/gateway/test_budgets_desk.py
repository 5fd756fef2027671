"""Budgets on the desk, over the API and from a shell: one service behind all."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from apps.access import services as access
from apps.audit.models import Event
from apps.gateway import services
from apps.gateway.models import Budget

pytestmark = pytest.mark.django_db

TYPED = {
    "scope": "profile",
    "key": "@writer",
    "unit": "micros",
    "limit": "$2.50",
    "window": "day",
    "timezone": "Europe/Zurich",
    "on_exceed": "block",
}


@pytest.fixture
def signed_in(client, bob):
    client.force_login(bob)
    return client


def made(bob, **fields) -> Budget:
    wanted = {"scope": "workspace", "limit": 1_000_000} | fields
    by = access.principal_for_user(user=bob)
    return services.save_budget(by=by, wanted=services.BudgetWanted(**wanted))


def test_a_budget_is_set_on_the_page_and_seen_on_the_list_and_home(signed_in):
    signed_in.post(reverse("gateway:budget_new"), TYPED)

    row = Budget.objects.get()
    assert (row.scope_key, row.limit) == ("writer", 2_500_000)
    for page in ("gateway:budgets", "agents:spend"):
        html = signed_in.get(reverse(page)).content.decode()
        assert "profile writer" in html and "$2.50" in html


@pytest.mark.parametrize("limit", ["much", "0.0000001", "NaN", "1e999", "-1"])
def test_what_is_no_limit_is_refused_and_kept_in_the_form(signed_in, limit):
    html = signed_in.post(
        reverse("gateway:budget_new"), TYPED | {"limit": limit}
    ).content.decode()

    assert "POLAR_CONTRACT_VALIDATION_ERROR" in html and "@writer" in html
    assert not Budget.objects.exists()


def test_who_only_operates_may_look_and_not_change(client, alice, bob):
    client.force_login(alice)
    row = made(bob)
    client.post(reverse("gateway:budget", args=[row.id]), TYPED | {"version": "1"})
    client.post(reverse("gateway:end_budget", args=[row.id]), {"version": "1"})

    row.refresh_from_db()
    assert (row.limit, row.is_active, row.version) == (1_000_000, True, 1)
    assert "$1.00" in client.get(reverse("gateway:budgets")).content.decode()


def test_an_outsider_sees_no_workspace_budget(client, charlie, bob):
    row = made(bob)
    client.force_login(charlie)

    assert client.get(reverse("gateway:budget", args=[row.id])).status_code == 404
    assert "$1.00" not in client.get(reverse("gateway:budgets")).content.decode()


def test_an_old_version_is_told_and_nothing_changes(signed_in, bob):
    row = made(bob)
    page = reverse("gateway:budget", args=[row.id])
    signed_in.post(page, TYPED | {"version": "1"})
    html = signed_in.post(page, TYPED | {"version": "1", "limit": "9"}).content.decode()

    row.refresh_from_db()
    assert "at version 2" in html and row.limit == 2_500_000


def test_archived_and_unblocked_from_the_page(signed_in, bob):
    row = made(bob)
    Budget.objects.update(blocked_at=row.created_at)
    end = reverse("gateway:end_budget", args=[row.id])
    signed_in.post(end, {"do": "unblock", "reason": "told them"})
    signed_in.post(end, {"version": "1"})

    row.refresh_from_db()
    assert row.blocked_at is None and not row.is_active
    said = Event.objects.filter(type__startswith="budget.").order_by("id")
    assert [event.type for event in said] == [
        "budget.set",
        "budget.unblocked",
        "budget.archived",
    ]


def test_the_list_asks_the_database_a_fixed_number_of_times(
    signed_in, bob, django_assert_max_num_queries
):
    for limit in range(12):
        made(bob, limit=limit + 1)
    with django_assert_max_num_queries(18):
        signed_in.get(reverse("gateway:budgets"))


def run(*words: str) -> str:
    out = StringIO()
    call_command("budgets", *words, stdout=out)
    return out.getvalue()


def test_the_command_sets_lists_and_archives(db, workspace):
    words = ["--scope", "profile", "--key", "@writer", "--limit", "2.50"]
    (put,) = json.loads(run("set", *words, "--json"))
    assert (put["key"], put["limit"], put["state"]) == ("writer", 2_500_000, "ok")
    assert "$0.00 of $2.50 per day" in run("list")

    run("archive", put["id"], "--version", "1")
    assert run("list") == ""
    with pytest.raises(CommandError, match="archived"):
        run("archive", put["id"], "--version", "2")
