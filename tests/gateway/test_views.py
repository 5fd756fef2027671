"""Stopping and resuming from the page."""

import pytest
from django.urls import reverse

from apps.audit.models import Event
from apps.gateway.models import Halt


@pytest.fixture
def signed_in(client, alice):
    client.force_login(alice)
    return client


def stop(client, **fields):
    return client.post(reverse("gateway:set_halt"), fields)


@pytest.mark.parametrize("name", ["halts", "approvals", "panel"])
def test_pages_ask_strangers_to_sign_in(client, db, name):
    assert client.get(reverse(f"gateway:{name}")).status_code == 302


def test_operator_stops_everything_and_every_page_says_so(signed_in):
    stop(signed_in, kind="all", reason="night shift")

    html = signed_in.get(reverse("gateway:approvals")).content.decode()
    assert "HALTED:" in html and "night shift" in html


def test_stopping_leaves_an_event(signed_in):
    stop(signed_in, kind="agent", name="@primary", reason="odd answers")

    assert Halt.objects.get().scope == "agent:primary"
    assert Event.objects.filter(type="halt.set").count() == 1


def test_stop_without_a_name_or_reason_stops_nothing(signed_in):
    stop(signed_in, kind="lane", name="", reason="why not")
    stop(signed_in, kind="all", reason=" ")

    assert not Halt.objects.exists()


def test_outsider_cannot_stop(client, charlie):
    client.force_login(charlie)

    stop(client, kind="all", reason="mischief")

    assert not Halt.objects.exists()


def test_resuming_lifts_the_halt(signed_in):
    stop(signed_in, kind="all", reason="night shift")

    signed_in.post(reverse("gateway:resume", args=[Halt.objects.get().id]))

    assert not Halt.objects.active().exists()
