"""Slack's edges: the wall, the wire, the words. No database."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.channels.adapters import slack_blocks, slack_events, slack_text, slack_web
from apps.channels.adapters.slack_socket import Socket
from apps.channels.errors import ChannelRefused, DeliveryUnknown
from apps.common.egress import EgressRefused
from apps.common.errors import UpstreamError
from tests.fakes import slack_server as fake


@pytest.fixture
def slack() -> Iterator[fake.FakeSlack]:
    with fake.slack_server() as server:
        yield server


def guarded(
    slack: fake.FakeSlack, *, local: frozenset[str] | None = None
) -> slack_web.GuardedWebClient:
    return slack_web.GuardedWebClient(
        fake.BOT_TOKEN,
        base_url=slack.api_url,
        local=slack.local if local is None else local,
    )


# The wall


def test_client_posts_through_the_wall(slack: fake.FakeSlack) -> None:
    slack_web.ask(guarded(slack), "chat.postMessage", channel="D1", text="hi")

    assert slack.shown("D1") == ["hi"]


def test_client_when_the_address_is_inside_then_nothing_leaves(
    slack: fake.FakeSlack,
) -> None:
    with pytest.raises(EgressRefused):
        slack_web.ask(guarded(slack, local=frozenset()), "auth.test")

    assert slack.calls == []


def test_client_ignores_a_proxy_of_the_environment(
    slack: fake.FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    assert slack_web.ask(guarded(slack), "auth.test")["user_id"] == fake.BOT_USER


def test_client_when_limited_then_says_when_to_come_again(
    slack: fake.FakeSlack,
) -> None:
    slack.planned["chat.postMessage"] = [
        (429, {"Retry-After": "17"}, {"ok": False, "error": "ratelimited"})
    ]

    with pytest.raises(UpstreamError) as caught:
        slack_web.ask(guarded(slack), "chat.postMessage", channel="D1", text="hi")

    assert (caught.value.retry_after, caught.value.permanent) == (17.0, False)
    assert len(slack.calls) == 1


def test_client_when_refused_then_names_the_reason(slack: fake.FakeSlack) -> None:
    with pytest.raises(ChannelRefused) as caught:
        slack_web.ask(
            guarded(slack), "chat.update", channel="D1", ts="1700000000.9", text="hi"
        )

    assert caught.value.facts["reason"] == "message_not_found"


def test_client_when_revoked_then_says_so(slack: fake.FakeSlack) -> None:
    slack.revoked = True

    with pytest.raises(ChannelRefused) as caught:
        slack_web.ask(guarded(slack), "auth.test")

    assert caught.value.facts["revoked"]


def test_client_when_slack_hangs_up_after_taking_it_then_unknown(
    slack: fake.FakeSlack,
) -> None:
    slack.hang_up = ["chat.postMessage"]

    with pytest.raises(DeliveryUnknown):
        slack_web.ask(guarded(slack), "chat.postMessage", channel="D1", text="hi")

    assert slack.shown("D1") == ["hi"]


def test_client_when_answered_with_garbage_then_nothing_is_believed(
    slack: fake.FakeSlack,
) -> None:
    slack.planned["auth.test"] = [(200, {}, "<html>maintenance")]

    with pytest.raises(ChannelRefused):
        slack_web.ask(guarded(slack), "auth.test")


# The socket


def open_socket(slack: fake.FakeSlack) -> Socket:
    found = slack_web.ask(guarded(slack), "apps.connections.open", token=fake.APP_TOKEN)
    return Socket(found["url"], local=slack.local)


def test_socket_hears_an_envelope_and_acknowledges_it(slack: fake.FakeSlack) -> None:
    socket = open_socket(slack)
    hello = socket.next(5)
    envelope = slack.push("events_api", fake.message("hi"))
    heard = socket.next(5)
    socket.acknowledge(envelope)
    socket.close()

    assert hello is not None
    assert heard is not None
    assert (hello["type"], heard["envelope_id"]) == ("hello", envelope)


def test_socket_when_the_far_side_closes_then_says_so(slack: fake.FakeSlack) -> None:
    socket = open_socket(slack)
    socket.next(5)
    slack.sockets[0].close()

    with pytest.raises(UpstreamError):
        socket.next(5)


def test_socket_when_the_address_is_inside_then_refused(slack: fake.FakeSlack) -> None:
    with pytest.raises(EgressRefused):
        Socket(f"ws://127.0.0.1:{slack.socket_port}/", local=frozenset())


# What Slack says


def test_direct_message_is_heard_with_its_ids() -> None:
    heard = slack_events.read_event(
        fake.message("a &lt;b&gt; <https://x.org|x>"), bot_user=fake.BOT_USER
    )

    assert (heard.kind, heard.sender, heard.chat) == (
        "message",
        "T0TEAM:U0ALICE",
        "D0ALICE",
    )
    assert heard.text == "a <b> https://x.org"


def test_mention_loses_the_bots_own_name_and_keeps_others() -> None:
    heard = slack_events.read_event(
        fake.mention("ask <@U0BOB|bob>"), bot_user=fake.BOT_USER
    )

    assert heard.text == "ask @U0BOB"


@pytest.mark.parametrize(
    "changes",
    [
        {"channel_type": "channel", "channel": "C0ROOM"},
        {"channel_type": "group", "channel": "G0ROOM"},
        {"bot_id": "B0OTHER"},
        {"user": fake.BOT_USER},
        {"subtype": "channel_join"},
        {"subtype": "bot_message"},
    ],
)
def test_what_is_not_addressed_to_the_bot_is_not_heard(changes: dict[str, str]) -> None:
    heard = slack_events.read_event(
        fake.message("hello", **changes), bot_user=fake.BOT_USER
    )

    assert heard == slack_events.NOTHING


def test_deleted_message_says_nothing() -> None:
    gone = fake.message("hello")["event"]
    event = {
        "type": "message",
        "subtype": "message_deleted",
        "hidden": True,
        "channel": gone["channel"],
        "channel_type": "im",
        "ts": "1699999999.000009",
        "event_ts": "1699999999.000009",
        "deleted_ts": gone["ts"],
        "previous_message": gone,
    }

    heard = slack_events.read_event(fake.callback(event), bot_user=fake.BOT_USER)

    assert heard == slack_events.NOTHING


def test_edit_is_heard_as_an_edit_and_a_preview_is_not() -> None:
    asked = fake.message("old")["event"]
    corrected = fake.changed(asked, "new")
    with_a_preview = fake.changed(asked, "old")

    edited = slack_events.read_event(corrected, bot_user=fake.BOT_USER)
    previewed = slack_events.read_event(with_a_preview, bot_user=fake.BOT_USER)

    assert (edited.kind, edited.text, previewed.kind) == ("edit", "new", "nothing")


def test_same_press_delivered_again_has_the_same_key() -> None:
    body = fake.press("polar.approve", "x", message_ts="1.1")
    again = slack_events.read_interaction(json.loads(json.dumps(body)))

    assert slack_events.read_interaction(body).key == again.key


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"event": []},
        {"event_id": "E", "event": {"type": "app_mention"}},
        fake.mention("x", channel="../../etc"),
        fake.odd(fake.mention("x")["event"] | {"user": ["U1"]}),
    ],
)
def test_unknown_shapes_are_refused_whole(body: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"missing|no id"):
        slack_events.read_event(body, bot_user=fake.BOT_USER)


# What we say


@pytest.mark.parametrize(
    ("markdown", "mrkdwn"),
    [
        ("**bold** and *soft*", "*bold* and _soft_"),
        ("# Title\n- one\n- two", "*Title*\n• one\n• two"),
        ("~~gone~~ `a*b*c`", "~gone~ `a*b*c`"),
        ("[docs](https://x.org/a_b)", "<https://x.org/a_b|docs>"),
        ("```python\na < b\n```", "```\na &lt; b\n```"),
        ("2 * 3 * 4", "2 * 3 * 4"),
    ],
)
def test_markdown_is_rendered(markdown: str, mrkdwn: str) -> None:
    assert slack_text.render(markdown) == mrkdwn


@pytest.mark.parametrize(
    "text",
    [
        "<!channel> <!here> <!everyone>",
        "<@U0BOSS> look",
        "`<!channel>`",
        "```\n<!channel>\n```",
        "[x](https://x.org|<!channel>)",
        "[<!channel>](https://x.org)",
        "[<@U1>](javascript:alert)",
    ],
)
def test_no_text_becomes_a_mention_or_a_broadcast(text: str) -> None:
    rendered = slack_text.render(text)

    assert "<!" not in rendered
    assert "<@" not in rendered


def test_link_that_lies_says_where_it_leads() -> None:
    rendered = slack_text.render("[bank.example](https://evil.example/x)")

    assert rendered == "<https://evil.example/x|bank.example (evil.example)>"


def test_long_answer_is_cut_between_paragraphs() -> None:
    parts = slack_text.split("\n\n".join(["word " * 120] * 20))

    assert len(parts) > 1
    assert all(part.strip().endswith("word") for part in parts)


def test_fence_that_is_cut_is_closed_and_opened_again() -> None:
    parts = slack_text.split("```\n" + "x = 1\n" * 1500 + "```")

    assert len(parts) > 1
    assert all(part.count("```") == 2 for part in parts)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab <>&!@|*_~`#-[]()\n.:/", max_size=9000))
def test_every_piece_fits_and_mentions_nobody(text: str) -> None:
    parts = slack_text.split(text)

    assert all(len(part) <= slack_text.LONGEST_TEXT for part in parts)
    assert not any("<!" in part or "<@" in part for part in parts)


def test_code_box_closes_however_long_and_hostile_its_text() -> None:
    box = slack_blocks.code("```&<!channel>" * 900)

    assert len(box) <= slack_blocks.SECTION
    assert box.count("```") == 2
    assert "<!" not in box
