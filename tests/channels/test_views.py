"""The web chat's pages, and an answer on its way."""

import asyncio
from unittest.mock import patch

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import Conversation, Delta, Turn
from apps.audit.models import Event
from apps.channels import services, views
from apps.channels.engine import replies
from apps.channels.engine.stream import News, Piece
from apps.common import clock

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def profiles(workspace):
    return agents.install_default_profiles(
        workspace=workspace, by=access.system_principal()
    )


@pytest.fixture
def signed_in(client: Client, alice) -> Client:
    client.force_login(alice)
    return client


@pytest.fixture
def conversation(alice, profiles) -> Conversation:
    primary = next(each for each in profiles if each.slug == "primary")
    return services.start_conversation(
        by=access.principal_for_user(user=alice), profile=primary, text="Good evening"
    )


def test_chat_sends_strangers_to_the_sign_in_page(client, db):
    response = client.get(reverse("channels:list"))

    assert response.status_code == 302
    assert response["Location"].startswith(reverse("access:login"))


def test_first_message_starts_a_conversation_and_a_turn(signed_in):
    response = signed_in.post(
        reverse("channels:start"), {"agent": "primary", "text": "What time is it?"}
    )

    turn = Turn.objects.get()
    assert response["Location"] == reverse(
        "channels:conversation", args=[turn.conversation_id]
    )
    assert turn.message_text == "What time is it?"


UNCONFINED = "a tool ran without isolation"


@pytest.mark.parametrize("header", [{}, {"isolation": "degraded"}])
def test_every_channel_says_that_a_tool_ran_without_isolation(
    signed_in, conversation, header
):
    """The web chat in the turn's header, the others at the end of the reply."""
    ended = {"state": "answered", "finished_at": clock.now()}
    Turn.objects.update(answer_text="Noon.", header=header, **ended)
    url = reverse("channels:conversation", args=[conversation.id])

    page = signed_in.get(url).content.decode()

    reply = replies.text_of(Turn.objects.get())
    assert (UNCONFINED in page) is bool(header)
    assert (UNCONFINED in reply.lower()) is bool(header)


def test_message_with_htmx_answers_the_exchange_alone(signed_in, conversation):
    url = reverse("channels:send", args=[conversation.id])

    response = signed_in.post(url, {"text": "And now?"}, headers=HTMX)

    html = response.content.decode()
    assert "data-stream=" in html
    assert "<html" not in html


def test_message_without_script_reloads_the_conversation(signed_in, conversation):
    url = reverse("channels:send", args=[conversation.id])

    response = signed_in.post(url, {"text": "And now?"})

    assert response.status_code == 302
    assert conversation.turns.count() == 2


def test_message_leaves_an_event_in_the_same_trace(signed_in, conversation):
    signed_in.post(
        reverse("channels:send", args=[conversation.id]), {"text": "And now?"}
    )

    turn = Turn.objects.order_by("-id").first()
    assert Event.objects.filter(type="turn.started", trace_id=turn.trace_id).exists()


def test_empty_message_is_refused_and_keeps_the_page(signed_in, conversation):
    url = reverse("channels:send", args=[conversation.id])

    response = signed_in.post(url, {"text": "  "}, headers=HTMX)

    assert "Not sent." in response.content.decode()
    assert response["X-Polar-Kept"] == "text"


def test_conversation_of_another_workspace_is_not_found(client, charlie, conversation):
    client.force_login(charlie)

    response = client.get(reverse("channels:conversation", args=[conversation.id]))

    assert response.status_code == 404


def test_message_into_another_workspace_is_refused(client, charlie, conversation):
    client.force_login(charlie)

    response = client.post(
        reverse("channels:send", args=[conversation.id]), {"text": "let me in"}
    )

    assert response.status_code == 404
    assert conversation.turns.count() == 1


def test_page_carries_no_inline_script_or_style(signed_in, conversation):
    html = signed_in.get(
        reverse("channels:conversation", args=[conversation.id])
    ).content.decode()

    assert "<style" not in html
    assert ' style="' not in html and " onclick=" not in html


def test_messages_are_escaped(signed_in, conversation):
    url = reverse("channels:send", args=[conversation.id])

    response = signed_in.post(url, {"text": "<script>alert(1)</script>"}, headers=HTMX)

    assert "<script>" not in response.content.decode()


def test_stream_yields_deltas_states_and_the_end(conversation, monkeypatch):
    turn = conversation.turns.get()

    async def follow(turn_id, seq):
        yield News((Piece(1, "text", "It is "),), "open", "running")
        yield News((Piece(2, "text", "noon."),), "answered", "succeeded")

    async def collect() -> str:
        return "".join([event async for event in views.chat._events(turn, 0)])

    monkeypatch.setattr(views.chat.streams, "follow", follow)
    with patch.object(views.chat.agents, "watch_turn"):
        text = asyncio.run(collect())

    assert 'id: 1\nevent: delta\ndata: {"text": "It is "}' in text
    assert text.endswith('event: done\ndata: {"state": "answered"}\n\n')


@pytest.mark.django_db(transaction=True)
def test_stream_of_another_workspace_is_not_found(charlie, conversation):
    client = AsyncClient()
    client.force_login(charlie)
    turn = conversation.turns.get()

    async def ask() -> int:
        response = await client.get(reverse("channels:stream", args=[turn.id]))
        return response.status_code

    assert asyncio.run(ask()) == 404
    assert not Delta.objects.exists()
