"""The fake Slack passes for Slack with Slack's own libraries."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from slack_bolt import App, BoltRequest
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier

from tests.fakes import slack_server as fake


@pytest.fixture
def slack() -> Iterator[fake.FakeSlack]:
    with fake.slack_server() as server:
        yield server


def client(slack: fake.FakeSlack, token: str = fake.BOT_TOKEN) -> WebClient:
    return WebClient(token=token, base_url=slack.api_url)


def app(slack: fake.FakeSlack, heard: list[Any]) -> App:
    bolt = App(client=client(slack), signing_secret=fake.SIGNING_SECRET)
    bolt.event("message")(lambda event: heard.append(event["text"]))
    return bolt


def test_sdk_posts_and_edits_a_message(slack: fake.FakeSlack) -> None:
    posted = client(slack).chat_postMessage(channel="D0ALICE", text="one")
    client(slack).chat_update(channel="D0ALICE", ts=posted["ts"], text="two")

    assert slack.shown("D0ALICE") == ["two"]


def test_sdk_with_a_wrong_token_is_refused(slack: fake.FakeSlack) -> None:
    with pytest.raises(SlackApiError) as caught:
        client(slack, "xoxb-wrong").auth_test()

    assert caught.value.response["error"] == "invalid_auth"


def test_sdk_takes_429_as_being_limited(slack: fake.FakeSlack) -> None:
    slack.planned["auth.test"] = [(429, {"Retry-After": "3"}, {"ok": False})]

    with pytest.raises(SlackApiError) as caught:
        client(slack).auth_test()

    assert caught.value.response.headers["Retry-After"] == "3"


def test_bolt_believes_our_signature_and_no_other(slack: fake.FakeSlack) -> None:
    heard: list[Any] = []
    body = json.dumps(fake.message("hello"))
    bolt = app(slack, heard)

    genuine = bolt.dispatch(BoltRequest(body=body, headers=fake.signed(body.encode())))
    forged = bolt.dispatch(
        BoltRequest(body=body, headers=fake.signed(body.encode(), secret="wrong"))
    )

    assert (genuine.status, forged.status, heard) == (200, 401, ["hello"])


def test_sdk_verifies_our_signature(slack: fake.FakeSlack) -> None:
    headers = fake.signed(b"payload")

    assert SignatureVerifier(fake.SIGNING_SECRET).is_valid_request(b"payload", headers)


def test_bolt_hears_and_acknowledges_over_the_socket(slack: fake.FakeSlack) -> None:
    arrived = threading.Event()
    bolt = App(client=client(slack), signing_secret=fake.SIGNING_SECRET)
    bolt.event("message")(lambda event: arrived.set())
    handler = SocketModeHandler(
        bolt, fake.APP_TOKEN, web_client=client(slack), ping_interval=1
    )
    handler.connect()
    try:
        envelope = slack.push("events_api", fake.message("hello"))

        assert arrived.wait(5)
        for _ in range(50):
            if slack.acknowledged:
                break
            threading.Event().wait(0.05)
        assert slack.acknowledged[0]["envelope_id"] == envelope
    finally:
        handler.close()
