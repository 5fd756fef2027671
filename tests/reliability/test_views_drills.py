"""The drills' pages and API: run one, leave it, find it again."""

from typing import Any

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import Role
from apps.reliability import services
from apps.reliability.models import DrillRun, DrillStep
from tests import people

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(client: Client) -> Client:
    workspace = access.ensure_default_workspace()
    system = access.system_principal()
    new = access.NewUser("mara", "a long enough password", Role.OPERATOR, workspace)
    client.force_login(access.create_user(by=system, new=new))
    return client


def test_page_when_run_is_pressed_then_shows_it_and_finds_it_again(desk: Any) -> None:
    assert "never passed" in desk.get("/drills/").content.decode()

    answer = desk.post("/drills/start/blackout/", follow=True)

    row = DrillRun.objects.get()
    assert answer.redirect_chain[-1][0] == f"/drills/{row.id}/"
    assert "Waiting for a worker" in answer.content.decode()
    assert "Watch it" in desk.get("/drills/").content.decode()


def test_live_when_something_is_told_then_shown_and_else_nothing(desk: Any) -> None:
    row = services.start_drill(by=access.system_principal(), slug="blackout")
    DrillStep.objects.create(
        drill=row, part="main", at_ms=1500, tone="critical", text="Fault: <all> cut"
    )

    shown = desk.get(f"/drills/{row.id}/live/").content.decode()

    assert "Fault: &lt;all&gt; cut" in shown
    seen = shown.split("?seen=")[1].split('"')[0]
    assert desk.get(f"/drills/{row.id}/live/?seen={seen}").status_code == 204


def test_cancel_when_pressed_twice_then_the_second_is_told(desk: Any) -> None:
    row = services.start_drill(by=access.system_principal(), slug="blackout")

    desk.post(f"/drills/{row.id}/cancel/")
    again = desk.post(f"/drills/{row.id}/cancel/", follow=True)

    assert "Not cancelled" in again.content.decode()
    assert DrillRun.objects.get().state == "cancelled"


def test_live_when_it_is_over_then_nothing_is_left_to_cancel(desk: Any) -> None:
    row = services.start_drill(by=access.system_principal(), slug="blackout")
    under_way = desk.get(f"/drills/{row.id}/live/")
    services.cancel_drill(by=access.system_principal(), drill_id=row.id)

    over = desk.get(f"/drills/{row.id}/live/")

    assert "HX-Refresh" not in under_way
    assert over["HX-Refresh"] == "true"
    assert "Cancel the drill" not in desk.get(f"/drills/{row.id}/").content.decode()


def test_page_when_stranger_then_asked_to_sign_in(client: Client) -> None:
    assert client.get("/drills/").status_code == 302


def test_cancel_over_the_api_answers_what_became_of_it(client: Client) -> None:
    ada = people.person("ada", Role.ADMIN, access.ensure_default_workspace())
    client.force_login(ada)
    row = services.start_drill(by=access.system_principal(), slug="blackout")

    answer = client.post(f"/api/v1/drills/{row.id}/cancel")

    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert client.post(f"/api/v1/drills/{row.id}/cancel").status_code == 409
