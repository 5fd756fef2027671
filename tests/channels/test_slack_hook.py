"""Slack's events by HTTP: proved before they are read, kept once, answered at once."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.agents import services as agents
from apps.agents.models import Turn
from apps.audit.models import Event
from apps.channels import services
from apps.channels.engine import webhook
from apps.channels.models import (
    Account,
    ChannelIdentity,
    InboxMessage,
    OutboxMessage,
    PairingRequest,
)
from apps.common import clock
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.runs.errors import QueueFull
from apps.runs.models import Run
from tests.channels.conftest import carry
from tests.fakes import slack_server as fake

EVENTS = int(os.environ.get("POLAR_CHANNEL_EVENTS", "100"))
SECRET = f"{fake.BOT_TOKEN} {fake.APP_TOKEN} {fake.SIGNING_SECRET}"
LetIn = Callable[..., ChannelIdentity]


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.FakeSlack]:
    monkeypatch.setattr("apps.channels.adapters.slack.PACE_SECONDS", 0.0)
    monkeypatch.setattr(webhook, "_refusals", webhook.Refusals())
    with fake.slack_server() as server:
        yield server


@pytest.fixture(autouse=True)
def witness(settings: Any, tmp_path: Path) -> None:
    """What leaves is witnessed first."""
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_WITNESS_DIR.mkdir()


@pytest.fixture
def account(workspace: Workspace, slack: fake.FakeSlack) -> Account:
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    agents.install_default_profiles(workspace=workspace, by=system)
    providers.sync_from_env()
    made = services.save_bot(
        by=system, workspace=workspace, kind="slack", slug="slack", token=SECRET
    )
    reached = {"api_url": slack.api_url, "local": sorted(slack.local)}
    Account.objects.filter(id=made.id).update(settings=reached)
    return Account.objects.select_related("workspace").get(id=made.id)


@pytest.fixture
def let_in(account: Account) -> LetIn:
    def let(user: User, external: str, tier: str = "operator") -> ChannelIdentity:
        return ChannelIdentity.objects.create(
            account=account,
            external_user=external,
            display=user.username,
            principal=access.principal_for_user(user=user),
            tier=tier,
        )

    return let


def post(
    account: Account,
    body: Any,
    headers: dict[str, str] | None = None,
    kind: str = "application/json",
) -> Any:
    """Send as Slack sends."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = fake.signed(raw, at=clock.now().timestamp()) if headers is None else headers
    return Client(enforce_csrf_checks=True).post(
        f"/hooks/slack/{account.id}/", raw, content_type=kind, headers=sent
    )


def form(account: Account, fields: dict[str, str]) -> Any:
    raw = urlencode(fields).encode()
    return post(account, raw, kind="application/x-www-form-urlencoded")


ALICE = f"{fake.TEAM}:U0ALICE"


def test_slack_proves_the_address(account: Account) -> None:
    answer = post(account, {"type": "url_verification", "challenge": "3eZbrw"})

    assert answer.json() == {"challenge": "3eZbrw"}


def test_message_becomes_a_turn_and_its_answer_goes_back(
    account: Account, slack: fake.FakeSlack, alice: User, let_in: LetIn
) -> None:
    let_in(alice, ALICE)

    assert post(account, fake.message("hello")).status_code == 200
    carry()

    assert Turn.objects.get().message_text == "hello"
    assert len(slack.shown("D0ALICE")) == 1


def test_retry_whose_first_was_kept_changes_nothing(
    account: Account, alice: User, let_in: LetIn
) -> None:
    let_in(alice, ALICE)
    post(account, fake.message("hello"))
    raw = json.dumps(fake.message("hello")).encode()
    again = fake.signed(raw) | {"X-Slack-Retry-Num": "1"}

    assert post(account, raw, again).status_code == 200
    assert Turn.objects.count() == 1


def test_retry_whose_first_was_lost_is_taken(
    account: Account, alice: User, let_in: LetIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in(alice, ALICE)

    def full(**kwargs: Any) -> None:
        raise QueueFull()

    with monkeypatch.context() as patch:
        patch.setattr("apps.channels.engine.intake.agents.start_turn", full)
        first = post(account, fake.message("hello"))
    raw = json.dumps(fake.message("hello")).encode()
    again = fake.signed(raw) | {"X-Slack-Retry-Num": "1"}

    assert first.status_code >= 500 or first.status_code == 429
    assert post(account, raw, again).status_code == 200
    assert Turn.objects.count() == 1


def test_storm_of_repeats_out_of_order_makes_each_turn_once(
    account: Account, alice: User, let_in: LetIn
) -> None:
    senders = [f"U0S{number:04d}" for number in range(EVENTS // 10 + 1)]
    for sender in senders:
        let_in(alice, f"{fake.TEAM}:{sender}")
    draw = random.Random(7)  # noqa: S311 (an order, not a secret)
    storm = [
        fake.message(f"hello {number}", number=number, user=senders[number // 10])
        for number in range(EVENTS)
        for _ in range(draw.randint(1, 4))
    ]
    draw.shuffle(storm)

    answers = {post(account, each).status_code for each in storm}

    assert answers == {200}
    assert Turn.objects.count() == EVENTS


def hostile(account: Account) -> Iterator[tuple[str, Any]]:
    body = json.dumps(fake.message("hello")).encode()
    now = clock.now().timestamp()
    good = fake.signed(body, at=now)
    signature = good["X-Slack-Signature"]
    deep = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    large = b'{"a":"' + b"x" * 300_000 + b'"}'
    flipped = body[:40] + bytes([body[40] ^ 1]) + body[41:]
    yield "unsigned", post(account, body, {})
    yield "other secret", post(account, body, fake.signed(body, secret="x", at=now))
    yield "old", post(account, body, fake.signed(body, at=now - 301))
    yield "future", post(account, body, fake.signed(body, at=now + 360))
    yield "one bit", post(account, flipped, good)
    yield "no stamp", post(account, body, {"X-Slack-Signature": signature})
    yield (
        "later stamp",
        post(account, body, good | {"X-Slack-Request-Timestamp": str(int(now) + 1)}),
    )
    yield "deep", post(account, deep)
    yield "large", post(account, large)
    yield "origin", post(account, body, good | {"Origin": "https://evil.example"})
    yield "cross site", post(account, body, good | {"Sec-Fetch-Site": "cross-site"})
    yield "list", post(account, b"[]")
    yield "not json", post(account, b"hello")
    yield "no event", post(account, {"type": "event_callback"})
    yield "strange type", post(account, {"type": ["x"]})
    yield "no payload", form(account, {"payload": "{"})


def test_whatever_is_forged_old_changed_large_or_deep_is_refused(
    account: Account, alice: User, let_in: LetIn
) -> None:
    let_in(alice, ALICE)

    said = {name: answer.status_code for name, answer in hostile(account)}

    assert all(400 <= status < 500 for status in said.values()), said
    assert not InboxMessage.objects.exists()
    assert not Run.objects.exists()


#: What only parsing can tell.
TOLD_BY_PARSING = {"list", "not json", "no event", "strange type", "no payload"}


def test_forged_old_changed_large_deep_and_foreign_are_refused_unparsed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def note(raw: bytes) -> Any:
        parsed.append(raw)
        return json.loads(raw)

    reader = SimpleNamespace(loads=note)
    monkeypatch.setattr("apps.channels.engine.door.json", reader)

    refused = []
    for name, answer in hostile(account):
        assert answer.status_code >= 400
        if name not in TOLD_BY_PARSING:
            assert parsed == [], name
            refused.append(name)
        parsed.clear()
    assert len(refused) == 11


def test_flood_of_forgeries_leaves_one_event(account: Account) -> None:
    for _ in range(20):
        post(account, b"{}", fake.signed(b"{ }"))

    assert Event.objects.filter(type="channel.refused").count() == 1


def test_unknown_account_and_wrong_vendor_look_alike(account: Account) -> None:
    client = Client()
    wrong = client.post(f"/hooks/telegram/{account.id}/", b"{}", "application/json")
    nobody = client.post(
        "/hooks/slack/00000000-0000-7000-8000-000000000000/", b"{}", "application/json"
    )

    assert (wrong.status_code, wrong.content) == (404, nobody.content)


def ways_in() -> list[tuple[str, dict[str, Any]]]:
    """What an outsider may try, as an event or as a form."""
    room = {"channel_type": "channel", "channel": "C0ROOM"}
    words = "help status agents agent stop halt usage memory automations incident"
    more = ["approve 1", "reject 1", "pair ABCDEFGH", "start", "new", "task 1", "lane"]
    tries: list[dict[str, Any]] = [fake.message(f"/{each}") for each in words.split()]
    tries += [fake.message(f"/{each}") for each in more]
    tries += [
        fake.message("hello"),
        _odd("I am alice", username="alice", user_profile={"name": "alice"}),
        _odd("hello", user_name="alice"),
        fake.message("/approve@polar 1"),
        fake.message(" /halt"),
        fake.mention("hello"),
        fake.mention("/halt"),
        fake.message(f"<@{fake.BOT_USER}> hi", **room),
        fake.message("hi", thread_ts="1.1"),
        _odd("a file", subtype="file_share", files=[{"id": "F1"}]),
        fake.message("bot", bot_id="B0EVIL"),
        fake.message("from elsewhere", team="T0OTHER"),
        fake.message("alice's id, another team", team="T0EVIL", user="U0ALICE"),
    ]
    found = [
        ("event", each if "T0EVIL" in str(each) else _as_outsider(each))
        for each in tries
    ]
    pressed = fake.press(
        "polar.approve:0", "approve:1", message_ts="1.1", user="U0EVIL"
    )
    found.append(("press", pressed))
    found.append(("command", fake.command("halt", user="U0EVIL")))
    return found


def _odd(text: str, **changes: Any) -> dict[str, Any]:
    return fake.odd(fake.message(text)["event"] | changes)


def _as_outsider(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"event": body["event"] | {"user": "U0EVIL", "channel": "D0EVIL"}}


@pytest.mark.parametrize("number", range(len(ways_in())))
def test_outsider_gets_nowhere_and_leaves_an_event(
    account: Account, alice: User, let_in: LetIn, number: int
) -> None:
    let_in(alice, ALICE, tier="operator")
    kind, body = ways_in()[number]
    before = ChannelIdentity.objects.count()

    if kind == "event":
        post(account, body)
    elif kind == "press":
        form(account, {"payload": json.dumps(body)})
    else:
        form(account, body)
    carry(services.HEAR_KIND)

    assert not Turn.objects.exists()
    assert ChannelIdentity.objects.count() == before
    assert not Event.objects.filter(type__startswith="halt").exists()
    heard = InboxMessage.objects.exclude(outcome="denied")
    assert not heard.exists()
    denied = Event.objects.filter(type="channel.denied").count()
    assert denied == InboxMessage.objects.count()


def test_there_are_thirty_ways_or_more() -> None:
    assert len(ways_in()) >= 30


def test_first_message_after_an_install_makes_nobody_anything(account: Account) -> None:
    post(account, fake.message("/start"))

    assert not ChannelIdentity.objects.exists()
    assert PairingRequest.objects.get().external_user == ALICE


def test_slash_command_and_message_do_the_same(
    account: Account, alice: User, let_in: LetIn
) -> None:
    let_in(alice, ALICE)
    form(account, fake.command("status"))
    post(account, fake.message("/status"))

    said = set(OutboxMessage.objects.values_list("text", flat=True))
    assert len(said) == 1


def test_file_of_a_known_sender_is_read_and_anothers_is_not_fetched(
    account: Account, slack: fake.FakeSlack, alice: User, let_in: LetIn
) -> None:
    let_in(alice, ALICE)
    slack.files["/files/notes.txt"] = b"the plan"
    file = fake.file("notes.txt", f"{slack.root}/files/notes.txt", 8)
    foreign = file | {"url_private_download": "https://evil.example/x"}

    post(account, fake.message("read", subtype="file_share", files=[file, foreign]))
    carry(services.HEAR_KIND)

    text = Turn.objects.get().message_text
    assert "the plan" in text
    assert "does not lie with Slack" in text
