"""Slack as it is used: canaries, drafts within its rate, corrections, 429 storms."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import User
from apps.agents.models import Delta, Turn
from apps.channels import queries, services
from apps.channels.adapters.slack import SlackTransport
from apps.channels.engine import drafts, outbox
from apps.channels.models import Account, InboxMessage, OutboxMessage
from apps.channels.ports import ConversationKey, Outgoing
from apps.channels.services import Changes
from apps.common import clock
from apps.common.errors import Invalid
from tests.channels.conftest import carry
from tests.channels.test_slack_hook import (
    ALICE,
    LetIn,
    account,
    let_in,
    post,
    slack,
    witness,
)
from tests.fakes import slack_server as fake

pytestmark = pytest.mark.django_db(transaction=True)
#: Used by name.
FIXTURES = (account, let_in, slack, witness)
ROOM = "C0CANARY"


@pytest.fixture
def still() -> Iterator[None]:
    with clock.frozen(clock.now()):
        yield


def reload(row: Any) -> Any:
    row.refresh_from_db()
    return row


class TestCanary:
    @pytest.fixture
    def canary(self, account: Account, still: None) -> Account:
        return services.change_account(
            by=access.system_principal(),
            account=account,
            changes=Changes(canary_chat=ROOM),
        )

    def sing(self, slack: fake.FakeSlack) -> dict[str, Any]:
        """Let a word be posted; return it as Slack brings it back."""
        services.sing()
        carry(services.CANARY_KIND)
        said = slack.sent("chat.postMessage")[-1]
        return fake.callback(
            {
                "type": "message",
                "channel_type": "channel",
                "channel": said["channel"],
                "user": fake.BOT_USER,
                "bot_id": fake.BOT_ID,
                "text": said["text"],
                "ts": "1700000000.000001",
                "event_ts": "1700000000.000001",
            },
            number=len(slack.calls),
        )

    def test_word_that_comes_back_proves_hearing_and_is_not_kept(
        self, canary: Account, slack: fake.FakeSlack
    ) -> None:
        assert queries.receiving(canary) == "unknown"

        heard = self.sing(slack)
        assert reload(canary).canary_waits_since is not None
        assert post(canary, heard).status_code == 200

        assert queries.receiving(reload(canary)) == "ok"
        assert canary.canary_waits_since is None
        assert not InboxMessage.objects.exists()
        assert services.sing() == 0, "the next word is not due"

    def test_word_that_does_not_come_back_is_deafness_within_two_minutes(
        self, canary: Account, slack: fake.FakeSlack
    ) -> None:
        post(canary, self.sing(slack))
        clock.advance(41)
        late = self.sing(slack)
        clock.advance(41)
        Account.objects.filter(id=canary.id).update(heard_at=clock.now())  # a pong
        assert queries.receiving(reload(canary)) == "down"

        again = self.sing(slack)
        assert again["event"]["text"] == late["event"]["text"]
        assert queries.receiving(reload(canary)) == "down", "it is one silence"
        post(canary, late)
        assert queries.receiving(reload(canary)) == "ok"

    @pytest.mark.parametrize(
        "changes",
        [
            {"user": "U0EVIL", "bot_id": None},
            {"user": "U0EVIL"},
            {"channel": "C0OTHER"},
            {"text": "Canary " + "0" * 32},
            {"text": "Canary "},
        ],
    )
    def test_word_of_somebody_else_proves_nothing(
        self, canary: Account, slack: fake.FakeSlack, changes: dict[str, Any]
    ) -> None:
        heard = self.sing(slack)

        post(canary, {**heard, "event": heard["event"] | changes})

        assert reload(canary).canary_waits_since is not None

    def test_word_that_cannot_be_posted_is_unknown_and_says_why(
        self, canary: Account, slack: fake.FakeSlack
    ) -> None:
        refused = (200, {}, {"ok": False, "error": "not_in_channel"})
        slack.planned["chat.postMessage"] = [refused]
        services.sing()
        carry(services.CANARY_KIND)

        assert "not_in_channel" in reload(canary).canary_trouble
        assert queries.receiving(canary) == "unknown"
        clock.advance(41)
        post(canary, self.sing(slack))
        assert queries.receiving(reload(canary)) == "ok"

    def test_paused_channel_awaits_no_word(
        self, canary: Account, slack: fake.FakeSlack
    ) -> None:
        self.sing(slack)
        system = access.system_principal()
        services.set_account_state(by=system, account=canary, state="paused")
        assert services.sing() == 0
        clock.advance(600)
        services.set_account_state(by=system, account=canary, state="active")

        assert queries.receiving(reload(canary)) == "unknown"

    def test_telegram_has_no_canary(self, account: Account) -> None:
        account.kind = "telegram"
        with pytest.raises(Invalid) as refused:
            services.change_account(
                by=access.system_principal(),
                account=account,
                changes=Changes(canary_chat="-100"),
            )

        assert refused.value.fields[0].path == "canary_chat"


class TestDrafts:
    def test_answer_is_shown_as_it_is_written_and_takes_the_drafts_place(
        self,
        account: Account,
        slack: fake.FakeSlack,
        alice: User,
        let_in: LetIn,
        still: None,
    ) -> None:
        let_in(alice, ALICE)
        post(account, fake.message("tell me a story"))
        turn = Turn.objects.get()
        row = InboxMessage.objects.select_related("account").get()
        text = "Once upon a time there was a lighthouse keeper "
        Delta.objects.create(turn=turn, attempt=1, seq=1, kind="text", text=text)
        assert drafts.show(row, turn)
        carry(services.SEND_KIND)
        assert slack.shown("D0ALICE")[0].endswith("keeper …")

        carry("agents.turn", "channels.deliver", services.SEND_KIND)

        assert len(slack.sent("chat.postMessage")) == 1
        assert [text.endswith("…") for text in slack.shown("D0ALICE")] == [False]

    def test_drafts_of_all_chats_keep_within_slacks_rate(
        self, account: Account, alice: User, let_in: LetIn, still: None
    ) -> None:
        let_in(alice, ALICE)
        post(account, fake.message("tell me a story"))
        turn, row = Turn.objects.get(), InboxMessage.objects.get()
        Delta.objects.create(turn=turn, attempt=1, seq=1, kind="text", text="x" * 60)
        for number in range(SlackTransport.drafts_a_minute):
            message = Outgoing(ConversationKey(f"D{number}"), "a draft")
            outbox.queue(account, message, key=f"draft:other:{number}")

        assert not drafts.show(row, turn)
        clock.advance(61)
        assert drafts.show(row, turn)


def test_correction_in_a_room_is_a_turn_that_says_so(
    account: Account, alice: User, let_in: LetIn
) -> None:
    let_in(alice, ALICE)
    asked = fake.mention("what is 1 + 1?")["event"]
    ours = f"<@{fake.BOT_USER}> what is 2 + 2?"

    post(account, fake.changed(asked, ours, number=7))
    post(account, fake.changed(asked, "never mind", number=8))

    assert Turn.objects.get().message_text == "(Corrected message) what is 2 + 2?"


def test_storm_of_429_gives_no_message_up_and_sends_none_early(
    account: Account, slack: fake.FakeSlack, still: None
) -> None:
    wait = (429, {"Retry-After": "30"}, {"ok": False, "error": "ratelimited"})
    slack.planned["chat.postMessage"] = [wait] * 12
    for number in range(4):
        message = Outgoing(ConversationKey(f"D{number}"), "hi")
        outbox.queue(account, message, key=str(number))

    for _ in range(13):
        before = len(slack.sent("chat.postMessage"))
        carry(services.SEND_KIND)
        clock.advance(15)
        carry(services.SEND_KIND)
        sent = len(slack.sent("chat.postMessage")) - before
        held = OutboxMessage.objects.exclude(state="sent").exists()
        assert sent <= 1 or not held, "sent before Slack agreed"
        clock.advance(16)

    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {"sent"}


def test_event_that_was_kept_waits_for_nobody_who_writes(
    account: Account, alice: User, let_in: LetIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in(alice, ALICE)
    post(account, fake.message("hello"))

    def never(*given: Any) -> None:
        raise AssertionError("it was taken in again")

    monkeypatch.setattr("apps.channels.engine.intake.receive", never)

    assert post(account, fake.message("hello")).status_code == 200
    assert json.loads(post(account, fake.message("hello")).content or b"{}") == {}
