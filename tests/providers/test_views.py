"""Lanes and routes on their page."""

import pytest
from django.urls import reverse


@pytest.mark.parametrize("name", ["list", "panel"])
def test_pages_ask_strangers_to_sign_in(client, db, name):
    assert client.get(reverse(f"providers:{name}")).status_code == 302


def test_every_lane_is_shown_even_without_a_route(client, alice):
    client.force_login(alice)

    html = client.get(reverse("providers:list")).content.decode()

    assert html.count("no route") == 3
