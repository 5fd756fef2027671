"""What goes out: within the vendor's rate, within quiet hours, where it is routed."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from apps.access import services as access
from apps.agents.models import AgentProfile, Delta, Turn
from apps.channels import services
from apps.channels.engine import drafts, outbox
from apps.channels.models import (
    Account,
    InboxMessage,
    OutboxMessage,
    OutboxState,
)
from apps.channels.ports import ConversationKey, Outgoing
from apps.common import clock
from apps.common.errors import Invalid, Unavailable
from apps.extensions import ports as extensions_ports
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.gateway.models import ApprovalRequest
from apps.gateway.ports import EffectClass, Risk
from apps.providers.models import Provider
from apps.reliability import services as reliability
from apps.reliability.models import Notice
from apps.runs import services as runs
from apps.runs.models import Run
from tests import people
from tests.channels.conftest import carry, update

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NIGHT = datetime(2026, 11, 20, 23, tzinfo=UTC)
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def say(bot):
    def queue(text, *, chat="7", key="k", **facts):
        message = Outgoing(ConversationKey(chat), text)
        outbox.queue(bot, message, key=key, **facts)
        return OutboxMessage.objects.get(dedupe_key=key)

    return queue


def reload(row):
    row.refresh_from_db()
    return row


class TestHold:
    def test_one_429_holds_every_chat_and_every_mark(
        self, bot, telegram, say, let_in, alice
    ):
        let_in(9, alice)
        with clock.frozen(clock.now()):
            services.receive(account=bot, update=update(1, "hello", user="9"))
            telegram.next = [429]
            for number in range(5):
                say("hi", chat=str(number), key=str(number))
            carry(services.SEND_KIND, services.FOLLOW_KIND)
            begun = len(telegram.calls)
            clock.advance(29)
            carry(services.SEND_KIND, services.FOLLOW_KIND)
            assert len(telegram.calls) == begun == 1
            clock.advance(32)
            carry(services.SEND_KIND, services.FOLLOW_KIND)

        assert OutboxMessage.objects.filter(state="sent").count() == 5

    def test_storm_of_429_gives_no_message_up_and_sends_none_early(
        self, bot, telegram, say
    ):
        telegram.next = [429] * 12
        with clock.frozen(clock.now()):
            row = say("hi")
            for _ in range(13):
                before = len(telegram.calls)
                carry(services.SEND_KIND)
                clock.advance(15)
                carry(services.SEND_KIND)
                assert len(telegram.calls) - before <= 1
                clock.advance(16)

        assert reload(row).state == OutboxState.SENT

    def test_revoked_token_lets_messages_wait_a_day(self, bot, telegram, say):
        with clock.frozen(clock.now()):
            row = say("hi")
            telegram.next = [401]
            carry(services.SEND_KIND)
            assert (reload(row).state, reload(bot).trouble != "") == ("pending", True)

            clock.advance(25 * 3600)
            telegram.next = [401]
            carry(services.SEND_KIND)

        assert reload(row).state == OutboxState.FAILED


@pytest.fixture
def schedule(bot):
    system = access.system_principal()
    return runs.create_automation(
        by=system,
        workspace=bot.workspace,
        slug="news",
        when=("cron", "0 8 * * *"),
        run_kind="agents.automation",
        payload={
            "profile": "primary",
            "text": "What is new?",
            "deliverTo": "telegram:-5",
        },
    )


class TestUnasked:
    def test_answer_of_a_schedule_goes_to_the_chat_that_it_names(
        self, bot, telegram, schedule
    ):
        with clock.frozen(NOON):
            run = runs.run_now(by=access.system_principal(), schedule_id=schedule.id)
            Run.objects.filter(id=run.id).update(
                payload=schedule.payload | {"schedule_id": str(schedule.id)}
            )
            carry("agents.automation", "agents.turn", "channels.deliver")
            carry(services.SEND_KIND)

        assert [form["chat_id"] for form in telegram.said()] == ["-5"]

    def test_quiet_hours_hold_it_back_and_let_replies_pass(
        self, bot, telegram, say, schedule
    ):
        with clock.frozen(NIGHT):
            unasked = say("news", key="a", schedule_id=schedule.id)
            reply = say("reply", key="b")
            carry(services.SEND_KIND)
            assert reload(unasked).state == "pending"
            assert reload(reply).state == "sent"
            clock.advance(8 * 3600 + 60)
            services.ring_forgotten()
            carry(services.SEND_KIND)

        assert reload(unasked).state == "sent"

    def test_cap_of_the_day_holds_back_the_fourth(self, bot, telegram, say, schedule):
        with clock.frozen(NOON):
            for number in range(4):
                say("news", key=str(number), schedule_id=schedule.id)
            carry(services.SEND_KIND)

        assert len(telegram.said()) == 3
        held = OutboxMessage.objects.get(state="pending")
        assert "daily_cap" in held.error

    def test_chat_that_is_none_is_refused_by_name(self, bot):
        with pytest.raises(Invalid) as refused:
            runs.create_automation(
                by=access.system_principal(),
                workspace=bot.workspace,
                slug="news",
                when=("cron", "0 8 * * *"),
                run_kind="agents.automation",
                payload={"profile": "primary", "text": "x", "deliverTo": "everybody"},
            )

        assert refused.value.fields[0].path == "payload.deliverTo"


class TestRouting:
    def test_alert_is_told_in_the_chat_that_is_named(self, bot, telegram):
        Account.objects.filter(id=bot.id).update(alerts_to="-9")

        reliability.breach(by=access.system_principal())
        reliability.send_due()
        carry(services.SEND_KIND)

        notice = Notice.objects.get(route="channel", event="raised")
        assert notice.state == "sent"
        assert telegram.said()[0]["chat_id"] == "-9"

    def test_without_a_chat_no_news_is_put_on_that_way(self, bot):
        reliability.breach(by=access.system_principal())

        assert not Notice.objects.filter(route="channel").exists()
        with pytest.raises(Unavailable):
            services.tell_operators("down", "1")

    def test_same_news_is_told_once(self, bot):
        Account.objects.filter(id=bot.id).update(alerts_to="-9")

        services.tell_operators("down", "1")
        services.tell_operators("down", "1")

        assert OutboxMessage.objects.count() == 1


SENT = []


@pytest.fixture
def mail(bot):
    """A tool that writes to the outside, which an agent is made to use."""
    SENT.clear()
    tool = extensions_ports.NativeTool(
        capability_id="mail.send",
        title="Send",
        description="Send a mail.",
        input_schema={"type": "object", "properties": {"to": {"type": "string"}}},
        fn=lambda arguments, context: SENT.append(arguments) or {"ok": True},
        risk=Risk("write", side_effects="external"),
        effect_class=EffectClass.NON_REPEATABLE,
    )
    extensions_ports.native_tools.register(tool)
    extensions.sync_shipped_plugin()
    AgentProfile.objects.filter(slug="primary").update(allowed_capabilities=["polar/*"])
    rule = {
        "match": "mail",
        "tool": "polar__mail_send",
        "arguments": {"to": "x@y.example"},
    }
    Provider.objects.filter(kind="scripted").update(settings={"rules": [rule]})
    yield bot
    extensions_ports.native_tools.forget("polar/mail.send")


@pytest.fixture
def asked(mail, let_in, workspace):
    """Somebody asked for a mail; the question stands in their chat."""
    zoe = people.person("zoe", "approver", workspace)
    let_in(7, zoe, tier="approver")
    services.receive(account=mail, update=update(1, "send a mail"))
    carry("agents.turn", services.FOLLOW_KIND, services.SEND_KIND, rounds=6)
    return OutboxMessage.objects.get(approval_id__isnull=False)


def press(number, shown, *, verb="approve", user="7"):
    return update(
        number,
        "",
        user=user,
        chat=shown.chat,
        kind="action",
        action=f"{verb}:{shown.approval_id}",
        answer_to=f"q{number}",
        key=ConversationKey(shown.chat),
    )


def pressed_on(shown, number, **more):
    """The press as it comes: under the message that was sent."""
    found = press(number, shown, **more)
    return replace(found, envelope=replace(found.envelope, message_id=shown.sent_id))


class TestQuestions:
    def test_button_decides_hours_later_and_the_turn_goes_on(
        self, bot, telegram, asked
    ):
        turn = Turn.objects.get()
        assert (turn.state, asked.state, SENT) == ("open", "sent", [])

        with clock.frozen(clock.now()):
            clock.advance(5 * 3600)
            services.hear(bot, pressed_on(asked, 2))
            carry(rounds=20)

        assert reload(turn).state == "answered"
        assert len(SENT) == 1
        assert [f["text"] for n, f in telegram.calls if n == "answerCallbackQuery"] == [
            "Approved by zoe."
        ]
        edited = [f for n, f in telegram.calls if n == "editMessageText"]
        assert "Approved by zoe" in edited[0]["text"]
        assert json.loads(edited[0].get("reply_markup", "{}")) == {}

    def test_dead_button_says_what_was_decided(self, bot, telegram, asked):
        services.hear(bot, pressed_on(asked, 2))
        services.hear(bot, pressed_on(asked, 3, verb="reject"))

        said = [f["text"] for n, f in telegram.calls if n == "answerCallbackQuery"]
        assert said[0] == "Approved by zoe."
        assert "approved" in said[1].lower()
        assert ApprovalRequest.objects.get().state in ("approved", "used")

    def test_stranger_and_operator_press_in_vain(
        self, bot, telegram, asked, alice, let_in
    ):
        let_in(8, alice, tier="operator")

        services.hear(bot, pressed_on(asked, 2, user="8"))
        services.hear(bot, pressed_on(asked, 3, user="666"))

        assert ApprovalRequest.objects.get().state == "pending"
        outcomes = InboxMessage.objects.filter(external_id__in=["2", "3"])
        assert set(outcomes.values_list("outcome", flat=True)) == {"refused", "denied"}

    def test_question_is_asked_though_nobody_follows_the_message(
        self, mail, telegram, let_in, workspace
    ):
        zoe = people.person("zoe", "approver", workspace)
        let_in(7, zoe, tier="approver")
        services.receive(account=mail, update=update(1, "send a mail"))
        carry("agents.turn")

        assert services.route_approvals() == 1
        assert services.route_approvals() == 0
        carry(services.FOLLOW_KIND, services.SEND_KIND, rounds=6)

        asked = OutboxMessage.objects.get(approval_id__isnull=False)
        assert (asked.chat, asked.state) == ("7", "sent")

    def test_arguments_that_a_chat_cannot_show_whole_are_not_approved_there(
        self, mail, telegram, let_in, workspace
    ):
        zoe = people.person("zoe", "approver", workspace)
        let_in(7, zoe, tier="approver")
        sly = {"to": "x" * 5000 + "\u202e"}
        rule = {"match": "mail", "tool": "polar__mail_send", "arguments": sly}
        Provider.objects.filter(kind="scripted").update(settings={"rules": [rule]})
        services.receive(account=mail, update=update(1, "send a mail"))
        carry("agents.turn")
        services.route_approvals()
        carry(services.SEND_KIND)

        asked = OutboxMessage.objects.get(approval_id__isnull=False)
        assert asked.state == "sent"
        assert [label for label, _ in asked.buttons] == ["Reject"]
        assert "This is not all" in asked.text

    def test_mark_that_turns_letters_round_is_written_out(
        self, mail, telegram, let_in, workspace
    ):
        zoe = people.person("zoe", "approver", workspace)
        let_in(7, zoe, tier="approver")
        sly = {"to": "\u202emoc.elpmaxe@bob\u200b"}
        rule = {"match": "mail", "tool": "polar__mail_send", "arguments": sly}
        Provider.objects.filter(kind="scripted").update(settings={"rules": [rule]})
        services.receive(account=mail, update=update(1, "send a mail"))
        carry("agents.turn")
        services.route_approvals()

        text = OutboxMessage.objects.get(approval_id__isnull=False).text
        assert "\\u202emoc" in text
        assert "\u202e" not in text

    def test_question_is_routed_and_closed_when_it_is_decided_elsewhere(
        self, bot, telegram, asked, bob
    ):
        Account.objects.filter(id=bot.id).update(approvals_to="-9")
        assert services.route_approvals() == 1
        assert services.route_approvals() == 0
        carry(services.SEND_KIND)

        gateway.decide_approval(
            by=access.principal_for_user(user=bob),
            approval_id=asked.approval_id,
            approve=False,
            reason="no",
        )
        assert services.route_approvals() == 2
        assert services.route_approvals() == 0
        carry(services.SEND_KIND)

        edited = [f for n, f in telegram.calls if n == "editMessageText"]
        assert {form["chat_id"] for form in edited} == {"7", "-9"}
        assert all("Rejected by bob" in form["text"] for form in edited)


def write(turn, seq, text, kind="text"):
    Delta.objects.create(turn=turn, attempt=1, seq=seq, kind=kind, text=text)


class TestDrafts:
    @pytest.fixture
    def turn(self, bot, let_in, alice):
        let_in(7, alice)
        services.receive(account=bot, update=update(1, "tell me a story"))
        turn = Turn.objects.select_related("run").get()
        Turn.objects.filter(id=turn.id).update(started_at=clock.now())
        return turn

    def show(self, turn):
        row = InboxMessage.objects.select_related("account__workspace").get()
        return drafts.show(row, turn)

    def test_answer_is_shown_as_it_is_written_and_takes_the_drafts_place(
        self, bot, telegram, turn
    ):
        with clock.frozen(clock.now()):
            write(turn, 1, "Once upon a time there was a lighthouse keeper ")
            assert self.show(turn)
            assert not self.show(turn)
            carry(services.SEND_KIND)
            write(turn, 2, "who kept a log.")
            assert not self.show(turn)
            clock.advance(4)
            assert self.show(turn)
            carry(services.SEND_KIND)
            carry("agents.turn", "channels.deliver")
            assert not self.show(turn)
            carry(services.SEND_KIND)

        assert len(telegram.said()) == 1
        edits = [f for n, f in telegram.calls if n == "editMessageText"]
        assert [form["message_id"] for form in edits] == ["101", "101"]
        assert "kept a log" in edits[0]["text"]
        assert "…" not in edits[1]["text"]
        assert reload(turn).state == "answered"

    def test_new_attempt_begins_anew(self, turn):
        write(turn, 1, "wrong")
        write(turn, 2, "", kind="reset")
        write(turn, 3, "right")

        assert drafts.written(turn) == "right"

    def test_draft_that_is_gone_makes_the_answer_a_message_of_its_own(
        self, bot, telegram, turn
    ):
        with clock.frozen(clock.now()):
            write(turn, 1, "Once upon a time there was a lighthouse keeper ")
            self.show(turn)
            carry(services.SEND_KIND)
            carry("agents.turn", "channels.deliver")
            telegram.next = [400]
            carry(services.SEND_KIND)
            clock.advance(1)
            carry(services.SEND_KIND)

        assert len(telegram.said()) == 2
        assert not OutboxMessage.objects.exclude(state="sent").exists()


def test_due_moment_of_what_is_held_back_is_the_morning(bot, schedule, say):
    with clock.frozen(NIGHT):
        row = say("news", schedule_id=schedule.id)
        carry(services.SEND_KIND)

        assert reload(row).due_at - NIGHT == timedelta(hours=8)
