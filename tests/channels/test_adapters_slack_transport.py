"""Slack as a transport: what it sends, what it hears, and what it leaves alone."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from apps.channels.adapters import slack as adapter
from apps.channels.adapters.slack import SlackTransport
from apps.channels.errors import ChannelRefused, DeliveryUnknown
from apps.channels.ports import Button, ConversationKey, Line, Outgoing, SentRef, Update
from apps.common.errors import UpstreamError
from apps.common.redaction import SecretStr
from apps.gateway.ports import Permit
from tests.fakes import slack_server as fake

HERE = ConversationKey("D0ALICE", "", "1699999999.000001")
ROOM = ConversationKey("C0ROOM", "", "1699999999.000001")


class Spent(Permit):
    """A permit that writes down what it was spent on."""

    def __init__(self, key: str = "key-1") -> None:
        self.idempotency_key = key
        self.on: list[dict[str, Any]] = []

    def spend(self, arguments: dict[str, Any], *, waits: bool = True) -> None:
        self.on.append(arguments)


@pytest.fixture
def slack() -> Iterator[fake.FakeSlack]:
    with fake.slack_server() as server:
        yield server


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> SlackTransport:
    monkeypatch.setattr(adapter, "PACE_SECONDS", 0.0)
    return SlackTransport()


def line(slack: fake.FakeSlack, token: str = "") -> Line:
    return Line(
        kind="slack",
        slug="slack",
        token=SecretStr(token or f"{fake.BOT_TOKEN} {fake.APP_TOKEN}"),
        settings={"api_url": slack.api_url, "local": sorted(slack.local)},
    )


def test_message_is_sent_once_its_permit_is_spent(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    permit = Spent()

    ref = transport.send(line(slack), permit, Outgoing(HERE, "**hi** <!channel>"))

    sent = slack.messages["D0ALICE", ref.message_id]
    assert permit.on == [Outgoing(HERE, "**hi** <!channel>").arguments()]
    assert sent["text"] == "*hi* &lt;!channel&gt;"
    assert (sent["unfurl_links"], sent["unfurl_media"]) == (False, False)


def test_permit_that_is_refused_sends_nothing(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    class Refused(Spent):
        def spend(self, arguments: dict[str, Any], *, waits: bool = True) -> None:
            raise ChannelRefused("no")

    with pytest.raises(ChannelRefused):
        transport.send(line(slack), Refused(), Outgoing(HERE, "hi"))

    assert slack.calls == []


@pytest.mark.parametrize(
    ("key", "thread"),
    [
        (HERE, None),
        (ROOM, "1699999999.000001"),
        (ConversationKey("C0ROOM", "5.5", "6.6"), "5.5"),
        (ConversationKey("D0ALICE", "5.5", "6.6"), "5.5"),
    ],
)
def test_answer_goes_into_its_topic_else_under_its_message(
    slack: fake.FakeSlack,
    transport: SlackTransport,
    key: ConversationKey,
    thread: str | None,
) -> None:
    transport.send(line(slack), Spent(), Outgoing(key, "hi"))

    assert slack.sent("chat.postMessage")[0].get("thread_ts") == thread


def test_lost_answer_is_found_again_by_its_key(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    slack.hang_up = ["chat.postMessage"]

    ref = transport.send(line(slack), Spent("key-7"), Outgoing(HERE, "hi"))

    assert list(slack.messages) == [("D0ALICE", ref.message_id)]


def test_message_that_is_not_to_be_seen_is_unknown(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    slack.planned["chat.postMessage"] = [(503, {}, {})]

    with pytest.raises(DeliveryUnknown):
        transport.send(line(slack), Spent(), Outgoing(HERE, "hi"))

    assert len(slack.sent("chat.postMessage")) == 1


def test_buttons_carry_an_id_and_are_taken_away_by_an_edit(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    asked = Outgoing(
        HERE, "May I?", (Button("Approve", "approve:1"), Button("Reject", "reject:1"))
    )
    ref = transport.send(line(slack), Spent(), asked)
    drawn = slack.messages["D0ALICE", ref.message_id]["blocks"][-1]["elements"]
    transport.edit(line(slack), Spent(), ref, Outgoing(HERE, "Approved"))

    assert [each["value"] for each in drawn] == ["approve:1", "reject:1"]
    assert len({each["action_id"] for each in drawn}) == 2
    assert slack.messages["D0ALICE", ref.message_id]["blocks"] == []


def test_marks_follow_one_another_and_are_cleaned_up(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    ref = SentRef("D0ALICE", "1.1")
    for mark in ("👀", "✍", "⏳", "✅", ""):
        transport.react(line(slack), Spent(), ref, mark)

    assert slack.reactions["D0ALICE", "1.1"] == set()
    assert slack.reaction_log[:3] == ["+eyes", "-eyes", "+writing_hand"]


def test_same_mark_twice_is_no_failure(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    ref = SentRef("D0ALICE", "1.1")
    transport.react(line(slack), Spent(), ref, "👀")
    transport.react(line(slack), Spent(), ref, "👀")

    assert slack.reactions["D0ALICE", "1.1"] == {"eyes"}


def test_who_pressed_is_told_alone(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    transport.answer(line(slack), Spent(), "C0ROOM U0ALICE 5.5", "Too late.")

    told = slack.sent("chat.postEphemeral")[0]
    assert (told["channel"], told["user"], told["thread_ts"]) == (
        "C0ROOM",
        "U0ALICE",
        "5.5",
    )


def test_messages_into_one_chat_keep_their_distance_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(adapter.clock, "monotonic", lambda: now)
    pace = adapter.Pace()
    first = [pace.take("slack", chat) for chat in ("C1", "C1", "C2", "C1")]
    now = 101.0
    then = [pace.take("slack", "C1"), pace.take("slack", "C1")]

    assert first == [0.0, 1.0, 0.0, 1.0]
    assert then == [0.0, 1.0]


def listen(
    slack: fake.FakeSlack,
    transport: SlackTransport,
    sink: Any,
    stop: threading.Event,
) -> threading.Thread:
    def go() -> None:
        transport.listen(line(slack), sink, stop.is_set, lambda proof: None)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    until(lambda: bool(slack.sockets))
    return thread


def until(true: Any) -> None:
    for _ in range(200):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not happen")


def test_listening_keeps_an_event_before_it_acknowledges(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    stop, order = threading.Event(), list[tuple[str, int]]()

    def sink(update: Update) -> None:
        order.append((update.envelope.message_text, len(slack.acknowledged)))

    thread = listen(slack, transport, sink, stop)
    slack.push("events_api", fake.message("hi"))
    slack.push("slash_commands", fake.command("status", number=2))
    slack.push("events_api", {"type": "event_callback", "event_id": "broken"})
    until(lambda: len(slack.acknowledged) == 3)
    stop.set()
    thread.join(5)

    assert [text for text, _ in order] == ["hi", "/status"]
    assert all(seen <= place for place, (_, seen) in enumerate(order))


def test_listening_when_nothing_was_kept_then_nothing_is_acknowledged(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    failed = threading.Event()

    def go() -> None:
        def sink(update: Update) -> None:
            raise UpstreamError("the database is away")

        with pytest.raises(UpstreamError):
            transport.listen(line(slack), sink, lambda: False, lambda proof: None)
        failed.set()

    threading.Thread(target=go, daemon=True).start()
    until(lambda: bool(slack.sockets))
    slack.push("events_api", fake.message("hi"))

    assert failed.wait(5)
    assert slack.acknowledged == []


def test_listening_takes_a_new_socket_when_slack_asks(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    stop, kept = threading.Event(), list[str]()
    thread = listen(
        slack, transport, lambda update: kept.append(update.external_id), stop
    )
    slack.sockets[0].send('{"type": "disconnect", "reason": "refresh_requested"}')
    until(lambda: len(slack.sockets) == 2)
    slack.push("events_api", fake.message("after"))
    until(lambda: bool(kept))
    stop.set()
    thread.join(5)

    assert kept == ["event:Ev00000001"]


def test_listening_with_a_revoked_token_says_so(
    slack: fake.FakeSlack, transport: SlackTransport
) -> None:
    slack.revoked = True

    with pytest.raises(ChannelRefused) as caught:
        transport.listen(line(slack), print, lambda: False, lambda proof: None)

    assert caught.value.facts["revoked"]


def test_press_names_its_verb_and_who_to_answer(transport: SlackTransport) -> None:
    body = fake.press("polar.approve:0", "approve:42", message_ts="1.1")

    update = transport.read(body, Line("slack", "slack", SecretStr("")))

    assert update is not None
    assert (update.kind, update.action) == ("action", "approve:42")
    assert update.answer_to == "D0ALICE U0ALICE"


def test_press_of_somebody_elses_button_says_nothing(
    transport: SlackTransport,
) -> None:
    body = fake.press("other.app", "approve:42", message_ts="1.1")

    update = transport.read(body, Line("slack", "slack", SecretStr("")))

    assert update is not None
    assert update.action == ""
