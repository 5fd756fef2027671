"""The pages of runs: who sees which, paging by key, and acting on them."""

import pytest
from django.urls import reverse

from apps.access import services as access
from apps.audit.models import Event
from apps.runs import services
from apps.runs.models import Run, State


@pytest.fixture
def run(workspace, alice) -> Run:
    return services.enqueue(
        kind="tests.page",
        payload={},
        principal=access.principal_for_user(user=alice),
        workspace=workspace,
        trigger="manual",
    )


@pytest.fixture
def signed_in(client, alice):
    client.force_login(alice)
    return client


@pytest.mark.parametrize("name", ["list", "dead_letters", "panel"])
def test_pages_ask_strangers_to_sign_in(client, db, name):
    assert client.get(reverse(f"runs:{name}")).status_code == 302


def test_list_shows_own_runs_by_state(signed_in, run):
    url = reverse("runs:list")

    assert "tests.page" in signed_in.get(url, {"state": "in-flight"}).content.decode()
    assert "tests.page" not in signed_in.get(url, {"state": "failed"}).content.decode()


def test_runs_of_another_workspace_are_not_shown(client, charlie, run):
    client.force_login(charlie)

    assert "tests.page" not in client.get(reverse("runs:list")).content.decode()
    assert client.get(reverse("runs:detail", args=[run.id])).status_code == 404


def test_cancelling_ends_the_run_and_leaves_an_event(signed_in, run):
    signed_in.post(reverse("runs:cancel", args=[run.id]), {"reason": "not needed"})

    run.refresh_from_db()
    assert run.state == State.CANCELLED
    assert Event.objects.filter(type="run.cancelled").exists()


def test_outsider_cannot_cancel(client, charlie, run):
    client.force_login(charlie)

    client.post(reverse("runs:cancel", args=[run.id]))

    run.refresh_from_db()
    assert run.state == State.QUEUED


def test_panel_is_silent_while_nothing_changes(signed_in, run):
    url = reverse("runs:panel")
    seen = signed_in.get(url).content.decode().partition("?seen=")[2][:12]

    assert signed_in.get(url, {"seen": seen}).status_code == 204
