"""Lanes and routes on their page."""

import pytest
from django.contrib.messages import get_messages
from django.urls import reverse

from apps.access import services as access
from apps.access.models import Role
from apps.providers import services as providers
from apps.providers.models import KeyStage, Provider, Route
from apps.vault.models import Secret
from tests import people
from tests.fakes.openai_server import openai_server
from tests.providers import builders


@pytest.fixture
def admin(client, workspace):
    builders.ready(workspace)
    user = people.person("ada", Role.ADMIN, workspace)
    client.force_login(user)
    return access.principal_for_user(user=user)


def said(answer):
    return " ".join(str(each) for each in get_messages(answer.wsgi_request))


@pytest.mark.parametrize("name", ["list", "panel"])
def test_pages_ask_strangers_to_sign_in(client, db, name):
    assert client.get(reverse(f"providers:{name}")).status_code == 302


def test_every_lane_is_shown_even_without_a_route(client, alice):
    client.force_login(alice)

    html = client.get(reverse("providers:list")).content.decode()

    assert html.count("no route of its own") == 3


def test_an_administrator_adds_a_provider_and_tests_it(client, admin):
    with openai_server() as server:
        form = {
            "slug": "near",
            "kind": "openai_compatible",
            "base_url": server.url,
            "enabled": "on",
            "key": "sk-canary-0000000001",
            "model": "fake-1",
            "lane": "worker",
        }
        added = client.post(reverse("providers:add"), form)
        page = client.get(added.url).content.decode()
        tested = client.post(reverse("providers:test", args=["near"]))

    assert Route.objects.get().lane == "worker"
    assert "sk-canary" not in page
    assert "answered" in said(tested)


def test_a_wrong_form_keeps_nothing_and_says_why(client, admin):
    form = {"slug": "near", "kind": "openai_compatible", "model": "m", "lane": "x"}
    answer = client.post(reverse("providers:add"), form)

    assert answer.status_code == 422
    assert "127.0.0.1:8080" in answer.content.decode()
    assert not Provider.objects.exists()


def test_an_unknown_lane_leaves_no_half_provider(client, admin):
    form = {"slug": "v", "kind": "openai", "key": "sk-canary-2", "model": "m"}
    answer = client.post(reverse("providers:add"), form | {"lane": "x"})

    assert answer.status_code == 422
    assert (Provider.objects.count(), Secret.objects.count()) == (0, 0)


def test_operators_look_and_do_not_change(client, alice, workspace):
    builders.ready(workspace)
    with openai_server() as server:
        builders.route("brain", url=server.url, key="sk-canary-old-000001")
        client.force_login(alice)
        page = client.get(reverse("providers:provider", args=["fake"]))
        staged = client.post(
            reverse("providers:key", args=["fake"]),
            {"action": "stage", "key": "sk-canary-new-000002"},
        )

    assert "Stage it" not in page.content.decode()
    assert staged.status_code == 403
    assert Provider.objects.get().key_stage == KeyStage.SETTLED
    assert client.get(reverse("providers:add")).status_code == 403


def test_a_key_is_changed_from_the_page(client, admin, workspace):
    url = reverse("providers:key", args=["fake"])
    with openai_server() as server:
        builders.route("brain", url=server.url, key="sk-canary-old-000001")
        client.post(url, {"action": "stage", "key": "sk-canary-new-000002"})
        for action in ("test", "shadow", "promote"):
            client.post(url, {"action": action})
        page = client.get(reverse("providers:provider", args=["fake"]))

    assert Provider.objects.get().key_stage == KeyStage.PROMOTED
    assert "Delete the old key" in page.content.decode()
    assert "sk-canary" not in page.content.decode()


def test_a_route_is_put_first_and_switched(client, admin, workspace):
    with openai_server() as server:
        builders.route("brain", "one", server.url)
        second = builders.route("brain", "two", server.url)
    url = reverse("providers:route", args=[second.pk])
    client.post(url, {"action": "first"})
    client.post(url, {"action": "disable"})

    second.refresh_from_db()
    assert (second.position, second.enabled) == (1, False)


def test_removing_asks_for_the_name(client, admin, workspace):
    with openai_server() as server:
        builders.route("brain", url=server.url)
    url = reverse("providers:change", args=["fake"])
    client.post(url, {"action": "remove", "confirm": "other"})
    assert Provider.objects.exists()
    client.post(url, {"action": "remove", "confirm": "fake"})

    assert not Provider.objects.exists()


def test_the_pages_cost_few_queries(
    client, admin, workspace, django_assert_max_num_queries
):
    with openai_server() as server:
        for number in range(12):
            builders.route("brain", f"p{number}", server.url)
    providers.sync_from_env()
    with django_assert_max_num_queries(30):
        client.get(reverse("providers:list"))
    with django_assert_max_num_queries(30):
        client.get(reverse("providers:provider", args=["p3"]))
