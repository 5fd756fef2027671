"""What people and vendors do when nobody expects it, and what comes of it."""

import json
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.access import services as access
from apps.agents.models import Turn
from apps.audit.models import Event
from apps.channels import services
from apps.channels.adapters import telegram as adapter
from apps.channels.adapters import telegram_events
from apps.channels.engine import door, outbox
from apps.channels.models import (
    Account,
    InboxMessage,
    OutboxMessage,
    OutboxState,
)
from apps.channels.ports import Attachment, ConversationKey, Outgoing
from apps.common import clock
from apps.common.errors import Conflict
from apps.runs.models import Run
from tests.channels.conftest import carry, update
from tests.fakes.telegram_server import ME, TOKEN, message, press

ME_USER = adapter.User(ME["id"], "Polar", is_bot=True, username=ME["username"])
GROUP = {"id": -5, "type": "supergroup", "is_forum": True, "title": "Team"}
NAME = f"@{ME['username']}"


def read(raw):
    return adapter.read_one(raw, ME_USER)


@pytest.fixture
def take(bot, let_in, alice):
    """Take an update in as Telegram sends it; return its row."""
    let_in(7, alice)

    def go(raw):
        return services.receive(account=bot, update=read(raw)).row

    return go


@pytest.fixture
def listen(bot, monkeypatch):
    """Hear what is there now, so many times."""

    def hear(times=1):
        rounds = iter([False] * times + [True])
        monkeypatch.setattr(
            "apps.channels.services.hearing._until", lambda ctx: lambda: next(rounds)
        )
        services.keep_listening()
        carry(services.LISTEN_KIND, rounds=1)
        Run.objects.filter(kind=services.LISTEN_KIND).delete()

    return hear


@pytest.fixture
def say(bot):
    def queue(text, *, chat="7", key="k"):
        outbox.queue(bot, Outgoing(ConversationKey(chat), text), key=key)
        return OutboxMessage.objects.get(dedupe_key=key)

    return queue


class TestWhatIsSaidWithoutWords:
    STICKER = {
        "file_id": "s",
        "file_unique_id": "s",
        "type": "regular",
        "width": 512,
        "height": 512,
        "is_animated": False,
        "is_video": False,
        "emoji": "🔑",
    }
    PLACE = {"latitude": 52.5, "longitude": 13.4}

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ({"sticker": STICKER}, "[Attached sticker 🔑]"),
            ({"location": PLACE}, "52.5, 13.4"),
            ({"contact": {"phone_number": "+49", "first_name": "Bob"}}, "Bob, +49"),
            ({"dice": {"emoji": "🎲", "value": 6}}, "[Attached dice 🎲]\n6"),
        ],
    )
    def test_it_is_told_to_the_agent_as_nobodys_order(self, take, said, told):
        take(wordless(1, **said))

        turn = Turn.objects.get()
        assert told in turn.message_text
        assert turn.labels == ["untrusted"]

    def test_news_of_the_room_start_nothing(self, take):
        assert take(wordless(1, new_chat_title="Team")).outcome == "nothing"
        assert take(wordless(2, group_chat_created=True)).outcome == "nothing"

        assert not Turn.objects.exists()

    def test_place_that_moves_starts_one_turn(self, take):
        take(wordless(1, location=self.PLACE))
        for number in range(2, 6):
            moved = {"location": self.PLACE, "edit_date": 1_790_000_000 + number}
            take(wordless(number, kind="edited_message", **moved))

        assert Turn.objects.count() == 1


def wordless(number, **said):
    """A message without a text, as Telegram sends it."""
    raw = message(number, "", **said)
    kind = next(name for name in raw if name != "update_id")
    del raw[kind]["text"]
    return raw


class TestCorrections:
    def test_preview_that_is_added_is_no_correction(self, take):
        take(message(1, "see https://a.example"))
        again = {"kind": "edited_message", "message_id": 1001, "edit_date": 1}
        row = take(message(2, "see https://a.example", **again))

        assert row.outcome == "same"
        assert Turn.objects.count() == 1

    def test_old_message_that_is_corrected_is_asked_anew(self, take):
        take(message(1, "what is 1 + 1?"))
        for number, text in ((2, "what is 2 + 2?"), (3, "what is 3 + 3?")):
            fixed = {"kind": "edited_message", "message_id": 1001, "edit_date": number}
            take(message(number, text, **fixed))

        texts = list(Turn.objects.order_by("id").values_list("message_text", flat=True))
        assert texts[1:] == [
            "(Corrected message) what is 2 + 2?",
            "(Corrected message) what is 3 + 3?",
        ]

    def test_correction_into_a_command_is_no_command(self, take):
        take(message(1, "stop"))
        fixed = {"kind": "edited_message", "message_id": 1001, "edit_date": 1}

        assert take(message(2, "/stop", **fixed)).outcome == "started"


class TestReplies:
    def quoted(self, text, user, **more):
        sender = {"id": user, "is_bot": user == ME["id"], "first_name": "X"}
        return {
            "message_id": 5,
            "date": 1_790_000_000,
            "chat": GROUP,
            "from": sender,
            "text": text,
            **more,
        }

    @pytest.mark.parametrize(
        ("author", "labels"), [(ME["id"], []), (7, []), (666, ["untrusted"])]
    )
    def test_what_is_replied_to_is_told_and_a_strangers_words_are_no_orders(
        self, take, author, labels
    ):
        replied = self.quoted("the plan is to sleep", author)
        row = take(message(1, f"{NAME} really?", chat=GROUP, reply_to_message=replied))

        turn = Turn.objects.get()
        assert "the plan is to sleep" in turn.message_text
        assert turn.labels == labels
        assert row.envelope["metadata"]["lane"] == "reply:5"

    def test_reply_topic_and_root_are_lanes_of_one_conversation(self, take):
        topic = {"message_thread_id": 3, "is_topic_message": True}
        opened = self.quoted("", 7, forum_topic_created={"name": "a", "icon_color": 1})
        del opened["text"]
        rows = [
            take(message(1, f"{NAME} a", chat=GROUP)),
            take(message(2, f"{NAME} b", chat=GROUP, reply_to_message=opened, **topic)),
            take(
                message(
                    3, f"{NAME} c", chat=GROUP, reply_to_message=self.quoted("x", 7)
                )
            ),
        ]

        lanes = [row.envelope["metadata"]["lane"] for row in rows]
        assert lanes == ["root", "topic:3", "reply:5"]
        assert len({row.envelope["sessionId"] for row in rows}) == 1


class TestCommands:
    def test_command_that_there_is_not_is_said_and_no_model_is_asked(self, take):
        row = take(message(1, "/aprove 1"))

        assert row.outcome == "refused"
        assert "no command /aprove" in OutboxMessage.objects.get().text
        assert not Turn.objects.exists()

    @pytest.mark.parametrize("text", ["/etc/hosts is broken", "/", "/ halt", "//x"])
    def test_path_is_prose(self, take, text):
        assert take(message(1, text)).outcome == "started"

    def test_command_for_another_bot_is_none_of_ours(self, take):
        replied = TestReplies().quoted("hello", ME["id"])
        row = take(
            message(1, "/halt@other_bot now", chat=GROUP, reply_to_message=replied)
        )

        assert row.outcome == "started"

    def test_command_for_us_by_name_is_ours(self, take):
        assert take(message(1, f"/status{NAME}", chat=GROUP)).outcome == "command"

    def test_argument_may_begin_on_the_next_line(self, take):
        assert take(message(1, "/task\nbuy milk")).outcome == "command"


class TestRate:
    def test_what_was_said_over_hours_and_comes_at_once_is_all_taken(self, take):
        for number in range(40):
            take(message(number, "hello", date=1_790_000_000 + 60 * number))

        assert Turn.objects.count() == 40

    def test_flood_is_told_to_who_floods_once_a_minute(self, take, bot):
        begun = 1_790_000_040
        for number in range(30):
            take(message(number, "again", date=begun))

        assert Turn.objects.count() == 20
        told = OutboxMessage.objects.filter(dedupe_key__startswith="limited:")
        assert "20 messages" in told.get().text

    def test_chatter_of_a_group_does_not_count(self, take):
        for number in range(30):
            take(message(number, "chatter", chat=GROUP))

        assert take(message(40, f"{NAME} there?", chat=GROUP)).outcome == "started"

    def test_stranger_who_floods_is_told_nothing(self, bot):
        for number in range(30):
            each = read(message(number, "hi", user=666))
            services.receive(account=bot, update=each)

        assert OutboxMessage.objects.count() == 1, "the code"


class TestFiles:
    def file(self, name, mimetype, text="", **more):
        return Attachment("document", name, mimetype, 5, text=text, **more)

    @pytest.mark.parametrize(
        ("name", "mimetype", "raw", "told"),
        [
            ("plan.txt", "text/plain", b"plan", "plan"),
            ("conf.toml", "application/octet-stream", b"a = 1", "a = 1"),
            ("a.json", "application/json; charset=utf-8", b"{}", "{}"),
            ("bom.csv", "text/csv", b"\xef\xbb\xbfa,b", "a,b"),
            ("latin.txt", "text/plain", b"caf\xe9", "caf\ufffd"),
            ("notes.pdf", "application/pdf", b"%PDF", "was not read"),
            ("lie.txt", "text/plain", b"\x7fELF\0\0", "it is no text"),
            ("run.exe", "application/octet-stream", b"MZ", "was not read"),
        ],
    )
    def test_what_is_text_is_read_and_nothing_else(
        self, bot, telegram, let_in, alice, listen, name, mimetype, raw, told
    ):
        let_in(7, alice)
        telegram.files["f"] = raw
        document = {
            "file_id": "f",
            "file_unique_id": "f",
            "file_name": name,
            "mime_type": mimetype,
            "file_size": len(raw),
        }
        telegram.updates = [wordless(1, document=document)]

        listen()

        assert told in Turn.objects.get().message_text

    def test_file_that_is_too_long_for_a_turn_is_cut_and_says_so(
        self, bot, let_in, alice
    ):
        let_in(7, alice)
        whole = self.file("a.txt", "text/plain", text="x" * 240_000)
        services.receive(account=bot, update=update(1, "", attachments=(whole, whole)))

        text = Turn.objects.get().message_text
        assert "90000 characters more were left out" in text
        assert "240000 characters more were left out" in text
        assert len(text) < 200_000


class TestNames:
    def test_name_that_turns_round_is_shown_plainly(self, bot):
        sly = replace(update(1, "hi", user="666"), display="alice\u202e\n(admin)\u200b")
        services.receive(account=bot, update=sly)

        assert bot.pairings.get().display == "alice(admin)"


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["id", "date", "chat", "from", "text", "type", "photo"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(["message", "edited_message", "callback_query"]),
)
def test_no_update_of_any_shape_stops_the_reader(body, kind):
    found = read({"update_id": 1, kind: body})

    assert found.external_id == "1"


@pytest.mark.parametrize("date", [10**12, -(10**12), 10**30])
def test_moment_that_is_none_is_unreadable(date):
    raw = message(1, "hi")
    raw["message"]["date"] = date

    assert read(raw).kind == "unreadable"


def test_depth_is_found_in_one_pass():
    hostile = b'\\"' * (door.LARGEST_BODY // 2)
    began = time.process_time()

    door.depth_of(hostile)
    door.depth_of(b'["' * (door.LARGEST_BODY // 2))

    assert time.process_time() - began < 5


@pytest.mark.django_db(transaction=True)
class TestTheVendorsWays:
    def test_numbering_that_begins_anew_is_followed(
        self, bot, telegram, listen, let_in, alice
    ):
        let_in(7, alice)
        Account.objects.filter(id=bot.id).update(cursor=900_000)
        telegram.forgets = True
        telegram.updates = [message(5, "after a week")]

        listen(times=3)

        assert Turn.objects.get().message_text == "after a week"
        offsets = [int(f["offset"]) for f in telegram.asked("getUpdates")]
        assert offsets == [900_000, 6, 6]

    def test_text_that_is_no_html_to_telegram_goes_out_plain(
        self, bot, telegram, say, monkeypatch
    ):
        monkeypatch.setattr(adapter.telegram_text, "render", lambda text: f"<b>{text}")

        row = say("**hello**")
        carry(services.SEND_KIND)

        row.refresh_from_db()
        assert row.state == OutboxState.SENT
        assert telegram.said()[-1]["text"] == "**hello**"
        assert "parse_mode" not in telegram.said()[-1]

    @pytest.mark.parametrize("text", ["```\n```", "\u200b", "``` ```", "\ue000"])
    def test_answer_without_anything_to_see_arrives(self, bot, telegram, say, text):
        row = say(text)
        carry(services.SEND_KIND)

        row.refresh_from_db()
        assert row.state == OutboxState.SENT

    def test_group_that_got_another_id_is_followed(self, bot, telegram, say):
        Account.objects.filter(id=bot.id).update(
            alerts_to="-5", approvals_to="-9", allowed_chats=["-5", "-9"]
        )
        telegram.moved = {"-5": -1005}
        first, second = say("one", chat="-5", key="a"), say("two", chat="-5", key="b")

        carry(services.SEND_KIND)

        for row in (first, second):
            row.refresh_from_db()
            assert (row.state, row.chat) == (OutboxState.SENT, "-1005")
        bot.refresh_from_db()
        assert (bot.alerts_to, bot.approvals_to) == ("-1005", "-9")
        assert bot.allowed_chats == ["-1005", "-9"]
        assert Event.objects.filter(type="channel.changed").count() == 1

    def test_token_of_another_account_is_refused(self, bot):
        with pytest.raises(Conflict):
            services.save_bot(
                by=access.system_principal(),
                workspace=bot.workspace,
                kind="telegram",
                slug="second",
                token=TOKEN,
            )

        assert Account.objects.filter(kind="telegram").count() == 1

    def test_turn_that_is_a_dead_letter_is_not_looked_at_each_second(
        self, bot, telegram, let_in, alice
    ):
        let_in(7, alice)
        with clock.frozen(clock.now()):
            services.receive(account=bot, update=update(1, "hello"))
            turn = Turn.objects.get()
            Run.objects.filter(id=turn.run_id).update(state="dead_letter")
            carry(services.FOLLOW_KIND, rounds=1)
            follow = Run.objects.get(kind=services.FOLLOW_KIND)
            assert follow.due_at - clock.now() == timedelta(seconds=5)
            InboxMessage.objects.update(created_at=clock.now() - timedelta(hours=1))
            clock.advance(5)
            carry(services.FOLLOW_KIND, rounds=1)
            follow.refresh_from_db()
            assert follow.due_at - clock.now() == timedelta(seconds=20)


def test_press_under_a_message_that_is_gone_changes_nothing(take):
    pressed = press(1, 7, "approve:1", 5)
    pressed["callback_query"]["message"] = {
        "chat": {"id": 7, "type": "private"},
        "message_id": 5,
        "date": 0,
    }

    assert take(pressed).outcome == "refused"


def test_button_of_an_inline_message_is_nobodys(take):
    pressed = press(1, 7, "approve:1", 5)
    del pressed["callback_query"]["message"]
    pressed["callback_query"]["inline_message_id"] = "x"

    assert take(pressed).outcome == "nothing"


def test_channel_post_and_anonymous_admin_say_nothing(take):
    anonymous = message(1, f"{NAME} hi", chat=GROUP, sender_chat=GROUP)
    assert take(anonymous).outcome == "nothing"
    post = {"update_id": 2, "channel_post": message(2, "hi")["message"]}
    assert take(post).outcome == "nothing"


def test_envelope_has_the_names_that_every_channel_has(take):
    row = take(message(1, "hello"))

    names = "sessionId userId channel messageId messageText timestamp locale threadId"
    assert set(row.envelope) == {*names.split(), "attachments", "metadata"}
    json.dumps(row.envelope)


def test_no_name_of_the_bot_hides_in_other_words():
    found = telegram_events.read(
        adapter.VendorUpdate.de_json(message(1, f"{NAME}x hi", chat=GROUP), None),
        ME_USER,
    )

    assert not found.is_addressed
