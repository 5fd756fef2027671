"""The web chat's pages, and an answer on its way."""

import asyncio
import re
from unittest.mock import patch

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import Conversation, Delta, Turn
from apps.audit.models import Event
from apps.boards.models import Task
from apps.channels import services, views
from apps.channels.engine import replies
from apps.channels.engine.stream import News, Piece
from apps.channels.models import InboxMessage
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


class TestOnce:
    def test_message_sent_twice_by_one_form_is_one_turn(self, signed_in, conversation):
        url = reverse("channels:send", args=[conversation.id])

        pages = [
            signed_in.post(url, {"text": "And now?", "once": "a"}, headers=HTMX)
            for _ in range(2)
        ]

        assert conversation.turns.count() == 2
        turn = conversation.turns.order_by("-id").first()
        assert all(f"turn-{turn.id}" in page.content.decode() for page in pages)

    def test_next_message_of_the_same_page_is_another(self, signed_in, conversation):
        url = reverse("channels:send", args=[conversation.id])

        page = signed_in.post(url, {"text": "yes", "once": "a"}, headers=HTMX)
        fresh = re.search(
            r'name="once" id="once" value="([^"]+)"', page.content.decode()
        )
        signed_in.post(url, {"text": "yes", "once": fresh[1]}, headers=HTMX)

        assert conversation.turns.count() == 3

    def test_conversation_begun_by_a_double_click_is_one(self, signed_in):
        said = {"agent": "primary", "text": "What time is it?", "once": "a"}
        pages = {
            signed_in.post(reverse("channels:start"), said)["Location"]
            for _ in range(2)
        }

        assert len(pages) == Turn.objects.count() == Conversation.objects.count() == 1

    def test_form_sent_with_other_words_after_going_back_is_another(self, signed_in):
        for text in ("What time is it?", "And in Rome?"):
            signed_in.post(
                reverse("channels:start"),
                {"agent": "primary", "text": text, "once": "a"},
            )

        assert Turn.objects.count() == 2

    def test_page_carries_a_form_of_its_own(self, signed_in, conversation):
        url = reverse("channels:conversation", args=[conversation.id])
        found = {
            re.search(r'name="once"[^>]*value="([^"]+)"', page.content.decode())[1]
            for page in (signed_in.get(url), signed_in.get(url))
        }

        assert len(found) == 2

    def test_message_is_kept_in_the_same_envelope_as_others(
        self, signed_in, conversation
    ):
        signed_in.post(
            reverse("channels:send", args=[conversation.id]), {"text": "nul \0 now?"}
        )

        row = InboxMessage.objects.order_by("-id").first()
        assert row.envelope["messageText"] == "nul  now?"
        assert row.envelope["sessionId"] == str(conversation.id)
        assert row.envelope["channel"] == "web"


class TestCommands:
    @pytest.fixture
    def say(self, signed_in, conversation):
        def post(text, **fields):
            url = reverse("channels:send", args=[conversation.id])
            page = signed_in.post(url, {"text": text, **fields}, headers=HTMX)
            return page, page.content.decode()

        return post

    def test_command_is_answered_in_place_and_starts_no_turn(self, say, conversation):
        _, html = say("/status")

        assert "Running." in html
        assert "<html" not in html
        assert conversation.turns.count() == 1

    def test_command_without_script_is_told_on_the_page(self, signed_in, conversation):
        url = reverse("channels:send", args=[conversation.id])

        page = signed_in.post(url, {"text": "/agents"}, follow=True)

        assert "@primary" in page.content.decode()

    def test_command_above_ones_role_is_refused(self, say):
        page, html = say("/pair ABCDEFGH")

        assert "Not sent." in html
        assert "tier" in html

    def test_command_that_there_is_not_is_said(self, say, conversation):
        _, html = say("/hlep")

        assert "no command /hlep" in html
        assert conversation.turns.count() == 1

    def test_command_sent_twice_by_one_form_is_done_once(self, say):
        say("/task call the bank", once="a")
        say("/task call the bank", once="a")

        assert Task.objects.count() == 1

    def test_agent_that_is_chosen_answers_next(self, say, conversation):
        say("/agent @coder")
        say("hello")

        assert conversation.turns.order_by("-id").first().profile.slug == "coder"

    def test_new_leads_to_a_new_conversation(self, say):
        page, _ = say("/new")

        assert page["HX-Redirect"] == reverse("channels:list")

    def test_what_was_said_is_escaped(self, say):
        _, html = say("/tasks <script>alert(1)</script>")

        assert "<script>" not in html

    def test_conversation_may_begin_with_a_command(self, signed_in):
        page = signed_in.post(
            reverse("channels:start"),
            {"agent": "coder", "text": "/lane", "once": "a"},
            follow=True,
        )

        assert "@coder asks the" in page.content.decode()
        assert not Turn.objects.exists()
        assert Conversation.objects.get().title == ""

    def test_conversation_begun_with_a_command_that_there_is_not_is_none(
        self, signed_in
    ):
        signed_in.post(reverse("channels:start"), {"agent": "primary", "text": "/x"})

        assert not Conversation.objects.exists()


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
