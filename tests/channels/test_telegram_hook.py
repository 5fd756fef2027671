"""Telegram calls us: proved by its secret before a byte is parsed, kept once."""

import json
from types import SimpleNamespace

import pytest
from django.test import Client

from apps.agents.models import Turn
from apps.audit.models import Event
from apps.channels import queries, services
from apps.channels.adapters import telegram as adapter
from apps.channels.adapters.telegram_door import secret_of
from apps.channels.engine import webhook
from apps.channels.models import Account, InboxMessage, OutboxMessage
from apps.common import clock
from apps.runs.models import Run
from tests.channels.conftest import carry
from tests.fakes.telegram_server import TOKEN, message, press

URL = "https://polar.example"


@pytest.fixture
def called(bot, telegram, monkeypatch):
    """The bot, heard by webhook."""
    monkeypatch.setattr(webhook, "_refusals", webhook.Refusals())
    Account.objects.filter(id=bot.id).update(
        hears_by="hook",
        bot_name="polar_test_bot",
        settings={**telegram.settings, "public_url": URL},
    )
    return Account.objects.select_related("workspace").get(id=bot.id)


def post(account, body, *, secret=None, raw=b"", **headers):
    """Send as Telegram sends."""
    given = secret_of(TOKEN) if secret is None else secret
    if given:
        headers["X-Telegram-Bot-Api-Secret-Token"] = given
    return Client(enforce_csrf_checks=True).post(
        f"/hooks/telegram/{account.id}/",
        raw or json.dumps(body).encode(),
        content_type="application/json",
        headers=headers,
    )


def test_message_becomes_one_turn_however_often_it_comes(called, let_in, alice):
    let_in(7, alice)

    answers = {post(called, message(1, "hello")).status_code for _ in range(3)}

    assert answers == {200}
    assert Turn.objects.get().message_text == "hello"
    called.refresh_from_db()
    assert queries.receiving(called) == "ok"


def test_replay_of_an_old_message_changes_nothing(called, let_in, alice):
    let_in(7, alice)
    with clock.frozen(clock.now()):
        post(called, message(1, "hello"))
        clock.advance(3600)
        post(called, message(1, "hello"))

    assert Turn.objects.count() == 1


def hostile(account):
    body = message(1, "hello")
    good = secret_of(TOKEN)
    flipped = good[:-1] + ("0" if good[-1] != "0" else "1")
    deep = b'{"update_id":1,"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    yield "no secret", post(account, body, secret="")
    yield "one digit", post(account, body, secret=flipped)
    yield "the token itself", post(account, body, secret=TOKEN)
    yield "upper case", post(account, body, secret=good.upper())
    yield "another bot's", post(account, body, secret=secret_of(TOKEN + "x"))
    yield "origin", post(account, body, Origin="https://evil.example")
    yield "cross site", post(account, body, **{"Sec-Fetch-Site": "cross-site"})
    yield "large", post(account, {"update_id": 1, "a": "x" * 300_000})
    yield "deep", post(account, {}, raw=deep)
    yield "not json", post(account, {}, raw=b"hello")
    yield "list", post(account, {}, raw=b"[]")
    yield "no number", post(account, {"message": {}})


def test_whatever_is_forged_large_deep_or_foreign_is_refused(called, let_in, alice):
    let_in(7, alice)

    said = {name: answer.status_code for name, answer in hostile(called)}

    assert all(400 <= status < 500 for status in said.values()), said
    assert not InboxMessage.objects.exists()
    assert not Run.objects.exists()
    assert Event.objects.filter(type="channel.refused").exists()


def test_forged_large_deep_and_foreign_are_refused_unparsed(called, monkeypatch):
    parsed = []

    def note(raw):
        parsed.append(raw)
        return json.loads(raw)

    reader = SimpleNamespace(loads=note)
    monkeypatch.setattr("apps.channels.engine.door.json", reader)

    refused = []
    for name, answer in hostile(called):
        assert answer.status_code >= 400
        if name not in ("not json", "list", "no number"):
            assert parsed == [], name
            refused.append(name)
        parsed.clear()
    assert len(refused) == 9


def test_update_that_nobody_can_read_is_kept_as_such(called):
    answer = post(called, {"update_id": 5, "message": {"chat": "what?"}})

    assert answer.status_code == 200
    assert InboxMessage.objects.get().outcome == "unreadable"
    assert Event.objects.filter(type="channel.unreadable").count() == 1


def test_press_is_carried_by_a_run_and_a_strangers_changes_nothing(called, telegram):
    answer = post(called, press(1, 666, "approve:1", 5))
    carry(services.HEAR_KIND)

    assert answer.status_code == 200
    assert InboxMessage.objects.get().outcome == "denied"


class TestListening:
    @pytest.fixture
    def listen(self, monkeypatch):
        def once():
            rounds = iter([False, True, True])
            monkeypatch.setattr(
                "apps.channels.services.hearing._until",
                lambda ctx: lambda: next(rounds),
            )
            services.keep_listening()
            carry(services.LISTEN_KIND, rounds=1)
            Run.objects.filter(kind=services.LISTEN_KIND).delete()

        return once

    def test_telegram_is_told_where_to_call_and_the_secret(
        self, called, telegram, listen
    ):
        listen()

        assert telegram.hook["url"] == f"{URL}/hooks/telegram/{called.id}/"
        assert telegram.hook["secret_token"] == secret_of(TOKEN)
        called.refresh_from_db()
        assert queries.receiving(called) == "ok"

    def test_webhook_that_fails_is_trouble(self, called, telegram, listen):
        telegram.updates = [message(1, "waits")]
        telegram.hook_trouble = {
            "last_error_date": int(clock.now().timestamp()) - 5,
            "last_error_message": "Connection refused",
        }

        listen()

        called.refresh_from_db()
        assert "Connection refused" in called.trouble
        assert queries.receiving(called) != "ok"

    def test_unreadable_update_does_not_hold_up_the_others(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        telegram.updates = [
            message(1, "one"),
            {"update_id": 2, "message": {"chat": "what?"}},
            message(3, "nul \0 and half \ud800"),
            {"update_id": 4, "callback_query": {"id": 7}},
            message(5, "two"),
        ]

        listen()

        texts = list(Turn.objects.order_by("id").values_list("message_text", flat=True))
        assert texts == ["one", "nul  and half ?", "two"]
        bot.refresh_from_db()
        assert bot.cursor == 6
        kept = InboxMessage.objects.filter(outcome="unreadable")
        assert set(kept.values_list("external_id", flat=True)) == {"2", "4"}

    def test_event_that_cannot_be_kept_is_set_aside(
        self, bot, telegram, listen, let_in, alice, monkeypatch
    ):
        let_in(7, alice)
        real = services.hearing.intake.receive

        def picky(account, update):
            if update.external_id == "1":
                raise ValueError("a shape of ours")
            return real(account, update)

        monkeypatch.setattr(services.hearing.intake, "receive", picky)
        telegram.updates = [message(1, "one"), message(2, "two")]

        listen()

        assert Turn.objects.get().message_text == "two"
        assert InboxMessage.objects.get(external_id="1").outcome == "unreadable"

    def test_webhook_is_taken_off_before_we_ask(self, bot, telegram, listen):
        telegram.hook = {"url": "https://somebody.example"}

        listen()

        assert telegram.hook == {}

    def test_no_secret_stands_in_any_row(self, called, telegram, listen):
        listen()

        rows = [*Event.objects.values(), *Account.objects.values()]
        rows += [*OutboxMessage.objects.values()]
        assert secret_of(TOKEN) not in str(rows)


def test_draft_rate_is_within_what_telegram_takes():
    assert adapter.TelegramTransport.draft_seconds >= 1.0
