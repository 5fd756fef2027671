"""The search box leads to whatever somebody remembers of a thing."""

import pytest
from django.urls import reverse

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import Turn
from apps.boards import services as boards

pytestmark = pytest.mark.django_db

URL = reverse("reliability:search")
HTMX = {"HX-Request": "true"}


@pytest.fixture
def turn(workspace, alice) -> Turn:
    principal = access.principal_for_user(user=alice)
    agents.install_default_profiles(workspace=workspace, by=access.system_principal())
    conversation = agents.start_conversation(principal=principal, workspace=workspace)
    return agents.start_turn(
        conversation=conversation,
        principal=principal,
        text="How far is the walrus colony?",
        trigger="message",
    )


def test_an_id_leads_straight_to_the_thing(client, alice, turn):
    client.force_login(alice)
    trace = client.get(URL, {"q": turn.trace_id})
    run = client.get(URL, {"q": str(turn.run_id)})
    tail = client.get(URL, {"q": turn.run_id.hex[-6:]})

    assert trace["Location"] == reverse("agents:trace", args=[turn.trace_id])
    assert run["Location"] == reverse("runs:detail", args=[turn.run_id])
    assert tail["Location"] == run["Location"]


def test_words_of_a_message_find_its_trace(client, alice, turn):
    client.force_login(alice)

    answer = client.get(URL, {"q": "walrus"})

    assert answer["Location"] == reverse("agents:trace", args=[turn.trace_id])


def test_several_hits_are_listed_with_their_kind(client, alice, turn, workspace):
    board = boards.create_board(
        by=access.system_principal(), workspace=workspace, slug="b", title="B"
    )
    draft = boards.TaskDraft(title="Count the walrus")
    boards.upsert_task(by=access.system_principal(), board=board, draft=draft)
    client.force_login(alice)

    html = client.get(URL, {"q": "walrus"}).content.decode()

    assert "Count the walrus" in html
    assert reverse("agents:trace", args=[turn.trace_id]) in html


def test_a_fragment_offers_pages_while_typing(client, alice):
    client.force_login(alice)
    html = client.get(URL, {"q": "dea"}, headers=HTMX).content.decode()

    assert reverse("runs:dead_letters") in html
    assert "<html" not in html


def test_outsiders_find_nothing_of_others(client, charlie, turn, workspace):
    client.force_login(charlie)
    for text in ("walrus", turn.trace_id, str(turn.run_id), turn.run_id.hex[-6:]):
        answer = client.get(URL, {"q": text})
        assert answer.status_code == 200
        assert "Nothing found" in answer.content.decode()


@pytest.mark.parametrize("text", ["", "x", "%" * 500, "<script>", "' or 1"])
def test_odd_words_find_nothing_and_break_nothing(client, alice, text):
    client.force_login(alice)
    answer = client.get(URL, {"q": text})

    assert answer.status_code == 200
    assert "<script>" not in answer.content.decode().replace("<script src", "")


def test_a_search_costs_few_queries(client, alice, turn, django_assert_max_num_queries):
    client.force_login(alice)
    with django_assert_max_num_queries(30):
        client.get(URL, {"q": "a walrus nobody mentioned"})


def test_a_pages_name_leads_to_the_page(client, alice, turn):
    client.force_login(alice)

    assert client.get(URL, {"q": "usage"})["Location"] == reverse("agents:usage")
    assert client.get(URL, {"q": ""}).status_code == 200
