"""The fakes are the vendors': by what the vendors publish, and by their libraries."""

from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from telegram import Update

from apps.channels.adapters import slack_text, telegram_text
from apps.channels.adapters.telegram import MARKS
from apps.channels.engine import progress
from tests.fakes import shapes, slack_server, telegram_server
from tests.fakes.telegram_html import problem_of

ROOT = Path(__file__).resolve().parents[2]
SAID = [progress.RECEIVED, progress.THINKING, progress.WAITS, progress.DONE]
SAID += [progress.FAILED]


def unknown_fields(value):
    """What python-telegram-bot found in an object and has no name for."""
    kept = getattr(value, "api_kwargs", {})
    found = list(kept)
    for name in getattr(value, "__slots__", ()):
        child = getattr(value, name, None)
        if hasattr(child, "api_kwargs"):
            found += unknown_fields(child)
    return found


class TestTelegram:
    @pytest.mark.parametrize(
        "update",
        [
            telegram_server.message(1, "hello"),
            telegram_server.message(2, "hello", kind="edited_message", edit_date=1),
            telegram_server.press(3, 7, "approve:1", 5),
        ],
    )
    def test_library_knows_every_field_of_what_the_fake_sends(self, update):
        found = Update.de_json(update, None)

        assert unknown_fields(found) == []

    @pytest.mark.parametrize(
        "changes",
        [{"date": "now"}, {"chat": {"id": 7}}, {"colour": "red"}, {"caption": 7}],
    )
    def test_update_of_another_shape_cannot_be_built(self, changes):
        with pytest.raises(AssertionError):
            telegram_server.message(1, "hello", **changes)

    @pytest.mark.parametrize(
        ("method", "form", "said"),
        [
            ("sendMessage", {"chat_id": "7", "text": "<b>x"}, "can't find end tag"),
            ("sendMessage", {"chat_id": "7", "text": "<x>y</x>"}, "unsupported"),
            ("sendMessage", {"chat_id": "7", "text": "<b>a</i>"}, "unmatched end"),
            ("sendMessage", {"chat_id": "7", "text": "<b> </b>"}, "text is empty"),
            ("sendMessage", {"chat_id": "7", "text": "x" * 4097}, "too long"),
            (
                "editMessageText",
                {"chat_id": "7", "message_id": "5", "text": "x"},
                "not found",
            ),
        ],
    )
    def test_what_telegram_refuses_is_refused(self, method, form, said):
        with telegram_server.telegram_server() as server:
            answer = asked(server, method, {**form, "parse_mode": "HTML"})

        assert said in answer["description"]

    def test_request_of_another_shape_fails_the_test_that_sent_it(self):
        with (
            pytest.raises(AssertionError, match="colour"),
            telegram_server.telegram_server() as server,
        ):
            asked(server, "sendMessage", {"chat_id": "7", "text": "x", "colour": "red"})

    def test_every_mark_is_on_telegrams_list_and_the_manual_says_which(self):
        shown = [MARKS.get(mark, mark) for mark in SAID]
        manual = (ROOT / "docs/how-to/connect-telegram.md").read_text()

        assert len(set(shown)) == len(SAID)
        assert set(shown) <= telegram_server.REACTIONS
        for mark in shown:
            assert mark in manual


def asked(server, method, form):
    url = f"{server.url}/bot{telegram_server.TOKEN}/{method}"
    return httpx.post(url, data=form).json()


PIECES = ["```", "`", "**", "[a](https://b.example/?x=1&y=2)", "# ", "\n", "<b>"]
PIECES += ["&amp;", " ", "x", "~~", "](", "_", "__", "[**b**](https://e.x)", "\t"]
PIECES += ["\ue000" + "0\ue001", "🔑" * 50, "word " * 200, "\n\n", "\u200b", "> q"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_telegram_takes_whatever_markdown_an_agent_wrote(text):
    for piece in telegram_text.split(text):
        if telegram_text.is_seen(piece):
            assert problem_of(telegram_text.render(piece), "HTML") == ""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_slack_takes_whatever_markdown_an_agent_wrote(text):
    for piece in slack_text.cut(text):
        assert len(slack_text.render(piece)) <= slack_server.LONGEST_UPDATE


class TestSlack:
    @pytest.fixture
    def slack(self):
        with slack_server.slack_server() as server:
            yield server

    def client(self, server):
        return WebClient(token=slack_server.BOT_TOKEN, base_url=server.api_url)

    def test_every_event_of_the_fake_is_published(self):
        asked = slack_server.mention("hi")["event"]
        file = slack_server.file("a.txt", "https://files.slack.com/a", 3)

        assert slack_server.message("hi")
        assert slack_server.changed(asked, "hello")
        assert slack_server.message("", subtype="file_share", files=[file])
        assert slack_server.press("polar.x", "y", message_ts="1.1")
        assert slack_server.command("help")

    @pytest.mark.parametrize(
        "changes", [{"ts": 5}, {"colour": "red"}, {"channel_type": "street"}]
    )
    def test_event_of_another_shape_cannot_be_built(self, changes):
        with pytest.raises(AssertionError):
            slack_server.message("hi", **changes)

    def test_what_only_reads_overlooks_json(self, slack):
        client = self.client(slack)
        client.chat_postMessage(channel="D1", text="hi")

        by_library = client.conversations_history(channel="D1")
        with pytest.raises(SlackApiError) as by_json:
            client.api_call("conversations.history", json={"channel": "D1"})

        assert [row["text"] for row in by_library["messages"]] == ["hi"]
        assert by_json.value.response["error"] == "channel_not_found"
        assert slack.misfits
        slack.misfits.clear()

    @pytest.mark.parametrize(
        ("method", "said", "error"),
        [
            ("chat.postMessage", {"text": " "}, "no_text"),
            ("chat.postMessage", {"text": "x" * 40_001}, "msg_too_long"),
            ("chat.update", {"text": "x" * 4_001, "ts": "1.1"}, "msg_too_long"),
            ("chat.update", {"text": "x", "ts": "1.1"}, "message_not_found"),
        ],
    )
    def test_what_slack_refuses_is_refused(self, slack, method, said, error):
        with pytest.raises(SlackApiError) as refused:
            self.client(slack).api_call(method, json={"channel": "D1", **said})

        assert refused.value.response["error"] == error

    @pytest.mark.parametrize(
        "said",
        [
            {"colour": "red"},
            {"blocks": [{"type": "poster"}]},
            {"blocks": [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}]},
            {
                "blocks": [
                    {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}
                ]
            },
        ],
    )
    def test_request_of_another_shape_fails_the_test_that_sent_it(self, said):
        with (
            pytest.raises(AssertionError),
            slack_server.slack_server() as server,
        ):
            self.client(server).api_call(
                "chat.postMessage", json={"channel": "D1", "text": "x", **said}
            )


@pytest.mark.parametrize("vendor", ["telegram", "slack"])
def test_published_shapes_say_where_they_come_from(vendor):
    assert (
        "Slack" in (said := shapes.published(vendor)["source"]) or "core.tele" in said
    )
