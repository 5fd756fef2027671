"""The first five minutes on the home page, and the page of parts."""

import pytest
from django.urls import reverse

from apps.access import services as access
from apps.common import look
from apps.gateway import services as gateway
from apps.reliability import services

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(client, alice):
    client.force_login(alice)
    return client


def page(desk) -> str:
    return desk.get(reverse("home")).content.decode()


def test_somebody_new_is_shown_what_to_press(desk):
    html = page(desk)

    assert "The first five minutes" in html
    assert reverse("reliability:start_drill", args=["blackout"]) in html


def test_a_step_that_was_taken_is_marked_and_leads_on(desk, alice):
    by = access.principal_for_user(user=alice)
    gateway.halt(by=by, scope="agent:rob", reason="to see it once")
    drill = services.start_drill(by=by, slug="blackout")

    html = page(desk)

    assert html.count("to do</span>") == 3
    assert reverse("reliability:drill", args=[drill.id]) in html


def test_who_hides_it_sees_it_no_more(desk):
    desk.post(reverse("reliability:hide_tour"))

    assert "The first five minutes" not in page(desk)


def test_parts_draw_every_state(desk):
    html = desk.get(reverse("reliability:parts")).content.decode()

    for _tone, states in look.states_by_tone():
        for state in states:
            assert look.badge(state) in html
