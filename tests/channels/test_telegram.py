"""Telegram's wire, by the vendor's own library against a loopback server."""

import json
import logging

import pytest

from apps.access import services as access
from apps.agents.models import Turn
from apps.audit.models import Event
from apps.channels import services
from apps.channels.adapters import telegram_text
from apps.channels.engine import outbox, progress, replies
from apps.channels.models import Account, InboxMessage, OutboxMessage, OutboxState
from apps.channels.ports import ConversationKey, Outgoing
from apps.common import clock
from apps.common.errors import InvalidTransition
from apps.gateway.models import Call
from apps.runs.models import Run
from tests.channels.conftest import carry
from tests.fakes.telegram_server import ME, TOKEN, message

TALK = ("agents.turn", "channels.deliver", "channels.send")


@pytest.fixture
def operator(alice):
    return access.principal_for_user(user=alice)


@pytest.fixture
def listen(bot, telegram, monkeypatch):
    """Hear what is there now, once."""

    def once():
        rounds = iter([False, True])
        monkeypatch.setattr(
            "apps.channels.services.hearing._until", lambda ctx: lambda: next(rounds)
        )
        services.keep_listening()
        carry(services.LISTEN_KIND, rounds=1)
        Run.objects.filter(kind=services.LISTEN_KIND).delete()

    return once


@pytest.fixture
def say(bot):
    def queue(text, *, chat="7", key="k"):
        message = Outgoing(ConversationKey(chat), text)
        outbox.queue(bot, message, key=key)
        return OutboxMessage.objects.get(dedupe_key=key)

    return queue


@pytest.mark.django_db(transaction=True)
class TestTheWire:
    def test_message_is_answered_once_in_its_chat(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        telegram.updates = [message(1, "hello"), message(1, "hello")]

        listen()
        listen()
        carry(*TALK)

        turn = Turn.objects.get()
        assert turn.state == "answered"
        assert [form["chat_id"] for form in telegram.said()] == ["7"]
        reply = json.loads(telegram.said()[0]["reply_parameters"])
        assert reply["message_id"] == 1001
        bot.refresh_from_db()
        assert (bot.cursor, bot.trouble) == (2, "")
        assert bot.heard_at is not None
        assert bot.sent_at is not None

    def test_web_and_telegram_come_to_the_same_turn(
        self, bot, telegram, listen, let_in, alice, operator
    ):
        let_in(7, alice)
        telegram.updates = [message(1, "what time is it?")]
        listen()
        profile = Turn.objects.get().profile
        services.start_conversation(
            by=operator, profile=profile, text="what time is it?"
        )
        carry(*TALK)

        first, second = Turn.objects.order_by("id")
        for name in ("message_text", "answer_text", "state", "served_by", "labels"):
            assert getattr(first, name) == getattr(second, name)

    def test_group_hears_only_its_name_and_answers_in_the_topic(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        group = {"chat": {"id": -5, "type": "supergroup", "is_forum": True}}
        topic = {"message_thread_id": 3, "is_topic_message": True}
        telegram.updates = [
            message(1, "chatter", **group),
            message(2, f"@{ME['username']} hello", **group, **topic),
        ]

        listen()
        carry(*TALK)

        assert Turn.objects.get().message_text == "hello"
        said = telegram.said()
        assert [(each["chat_id"], each["message_thread_id"]) for each in said] == [
            ("-5", "3")
        ]

    def test_small_text_file_of_a_known_sender_is_read(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        telegram.files["f1"] = b"ship on Friday"
        file = {
            "file_id": "f1",
            "file_unique_id": "u",
            "file_name": "plan.txt",
            "mime_type": "text/plain",
            "file_size": 14,
        }
        telegram.updates = [message(1, "", document=file, caption="read this")]
        telegram.updates += [message(2, "", document=file, user=666)]

        listen()

        turn = Turn.objects.get()
        assert "ship on Friday" in turn.message_text
        assert turn.labels == ["untrusted"]
        assert [name for name, _ in telegram.calls].count("getFile") == 1

    def test_corrected_message_is_a_turn_that_says_so(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        edit = message(2, "hallo", kind="edited_message", edit_date=1_790_000_100)
        telegram.updates = [edit]

        listen()

        assert Turn.objects.get().message_text == "(Corrected message) hallo"

    def test_nothing_goes_out_before_the_vendor_allows(self, bot, telegram, say):
        telegram.next = [429]
        with clock.frozen(clock.now()):
            first, other = say("one", key="a"), say("two", chat="8", key="b")
            carry(services.SEND_KIND)
            tries = len(telegram.said())
            clock.advance(29)
            carry(services.SEND_KIND)
            assert len(telegram.said()) == tries == 1
            clock.advance(2)
            carry(services.SEND_KIND)

        for row in (first, other):
            row.refresh_from_db()
            assert row.state == OutboxState.SENT

    def test_message_that_may_have_arrived_is_unknown_and_not_repeated(
        self, bot, telegram, say, operator
    ):
        telegram.next = ["cut"]
        row = say("transfer done")

        carry(services.SEND_KIND)
        services.ring_forgotten()
        carry(services.SEND_KIND)

        row.refresh_from_db()
        assert row.state == OutboxState.UNKNOWN
        assert len(telegram.said()) == 1
        assert Event.objects.filter(type="channel.undelivered").count() == 1

        services.resend(by=operator, message_id=row.id)
        carry(services.SEND_KIND)

        row.refresh_from_db()
        assert row.state == OutboxState.SENT
        assert Event.objects.filter(type="channel.resent").count() == 1

    def test_what_was_sent_is_not_put_back(self, bot, telegram, say, operator):
        row = say("once")
        carry(services.SEND_KIND)

        with pytest.raises(InvalidTransition):
            services.resend(by=operator, message_id=row.id)

    def test_worker_killed_while_sending_leaves_no_second_message(
        self, bot, telegram, say, monkeypatch
    ):
        row = say("hello")

        class Killed(BaseException):
            pass

        def killed(*args, **kwargs):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("apps.gateway.engine.ledger.succeed", killed)
            with pytest.raises(Killed):
                carry(services.SEND_KIND)
        Run.objects.filter(kind=services.SEND_KIND).update(
            state="queued", lease_until=None, fence=9
        )
        with clock.frozen(clock.now()):
            carry(services.SEND_KIND)

        row.refresh_from_db()
        assert row.state == OutboxState.UNKNOWN
        assert len(telegram.said()) == 1

    def test_refused_message_lets_the_next_one_pass(self, bot, telegram, say):
        telegram.next = [400]
        bad, good = say("bad", key="a"), say("good", key="b")

        carry(services.SEND_KIND)

        bad.refresh_from_db()
        good.refresh_from_db()
        assert (bad.state, good.state) == (OutboxState.FAILED, OutboxState.SENT)

    def test_unknown_token_is_said_and_holds_no_worker(
        self, bot, telegram, listen, operator
    ):
        services.save_bot(
            by=access.system_principal(),
            workspace=bot.workspace,
            kind="telegram",
            slug="telegram",
            token=TOKEN[:-1] + "x",
        )

        listen()

        bot.refresh_from_db()
        assert "token" in bot.trouble
        assert bot.heard_at is None

    def test_token_stands_in_no_log_no_call_and_no_event(
        self, bot, telegram, say, listen, caplog
    ):
        telegram.next = [500, "cut", 400]
        with caplog.at_level(logging.DEBUG):
            for number in range(3):
                say("x", key=str(number), chat=str(number))
            carry(services.SEND_KIND)
            listen()

        secret = TOKEN.split(":")[1]
        assert secret not in caplog.text
        rows = [*Call.objects.values(), *Event.objects.values()]
        rows += [*OutboxMessage.objects.values(), *Account.objects.values()]
        assert secret not in str(rows)

    def test_marks_follow_the_turn_in_order(self, bot, telegram, listen, let_in, alice):
        let_in(7, alice)
        telegram.updates = [message(1, "hello")]
        listen()
        carry(services.FOLLOW_KIND, rounds=1)
        carry(*TALK)
        with clock.frozen(clock.now()):
            clock.advance(5)
            carry(services.FOLLOW_KIND)

        marks = [f["reaction"] for n, f in telegram.calls if n == "setMessageReaction"]
        assert [json.loads(each)[0]["emoji"] for each in marks] == ["👀", "👍"]
        assert InboxMessage.objects.get().mark == progress.DONE

    def test_answer_delivered_twice_is_queued_once(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        telegram.updates = [message(1, "hello")]
        listen()
        carry("agents.turn")
        turn = Turn.objects.get()

        assert replies.deliver(turn.id) == 1
        assert replies.deliver(turn.id) == 0


class TestText:
    @pytest.mark.parametrize(
        ("markdown", "rendered"),
        [
            ("a < b & c", "a &lt; b &amp; c"),
            ("**bold** and `x<y`", "<b>bold</b> and <code>x&lt;y</code>"),
            ("```py\nx = '<'\n```", "<pre>x = &#x27;&lt;&#x27;\n</pre>"),
            ("[a](https://b.example)", '<a href="https://b.example">a</a>'),
            ("[a](javascript:x)", "[a](javascript:x)"),
            ("<b>no</b>", "&lt;b&gt;no&lt;/b&gt;"),
            ("# Head", "<b>Head</b>"),
        ],
    )
    def test_markdown_becomes_safe_html(self, markdown, rendered):
        assert telegram_text.render(markdown) == rendered

    def test_long_text_is_cut_on_paragraphs_and_loses_nothing(self):
        text = "\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(60))

        pieces = telegram_text.split(text)

        assert all(telegram_text.units(each) <= 4096 for each in pieces)
        assert " ".join(pieces).split() == text.split()
        assert all(each.startswith("Paragraph") for each in pieces)

    def test_cut_code_is_closed_and_opened_again(self):
        pieces = telegram_text.split("```\n" + "line of code\n" * 900 + "```")

        assert len(pieces) > 1
        assert all(each.count("```") % 2 == 0 for each in pieces)

    def test_astral_letters_count_twice(self):
        pieces = telegram_text.split("🔑" * 5000)

        assert all(telegram_text.units(each) <= 4096 for each in pieces)
