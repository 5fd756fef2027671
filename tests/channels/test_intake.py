"""Every event is taken once; only people who may, may."""

import os
import random

import pytest

from apps.access import services as access
from apps.agents.models import Conversation, Turn
from apps.audit.models import Event
from apps.channels import services
from apps.channels.models import (
    Account,
    ChannelIdentity,
    InboxMessage,
    OutboxMessage,
    PairingRequest,
)
from apps.channels.ports import Attachment, ConversationKey
from apps.common import clock
from apps.common.errors import Denied, Invalid, NotFound
from apps.runs.errors import QueueFull
from tests import people
from tests.channels.conftest import update

EVENTS = int(os.environ.get("POLAR_CHANNEL_EVENTS", "100"))


@pytest.fixture
def operator(alice):
    return access.principal_for_user(user=alice)


def test_event_delivered_often_out_of_order_starts_one_turn(bot, alice, let_in):
    senders = [str(user) for user in range(EVENTS // 10 + 1)]
    for sender in senders:
        let_in(sender, alice)
    draw = random.Random(7)  # noqa: S311 (an order, not a secret)
    storm = [
        update(number, f"hello {number}", user=senders[number // 10])
        for number in range(EVENTS)
        for _ in range(draw.randint(1, 4))
    ]
    draw.shuffle(storm)

    for each in storm:
        services.receive(account=bot, update=each)

    assert Turn.objects.count() == EVENTS
    assert InboxMessage.objects.count() == EVENTS
    bot.refresh_from_db()
    assert bot.cursor == EVENTS


def test_failure_in_between_keeps_nothing_and_the_event_comes_again(
    bot, alice, let_in, monkeypatch
):
    let_in(7, alice)

    def full(**kwargs):
        raise QueueFull()

    with monkeypatch.context() as patch:
        patch.setattr("apps.channels.engine.intake.agents.start_turn", full)
        with pytest.raises(QueueFull):
            services.receive(account=bot, update=update(1, "hello"))
    assert not InboxMessage.objects.exists()
    bot.refresh_from_db()
    assert bot.cursor == 0

    services.receive(account=bot, update=update(1, "hello"))

    assert Turn.objects.count() == 1


def test_stranger_is_denied_and_offered_one_code(bot):
    for number in range(5):
        services.receive(account=bot, update=update(number, "/start"))

    assert not Turn.objects.exists()
    assert not ChannelIdentity.objects.exists()
    assert OutboxMessage.objects.count() == 1
    code = PairingRequest.objects.get().code
    assert len(code) == 8
    assert code in OutboxMessage.objects.get().text
    assert Event.objects.filter(type="channel.denied").count() == 5


def test_no_more_than_three_strangers_wait(bot):
    for user in range(5):
        services.receive(account=bot, update=update(user, "hi", user=f"9{user}"))

    assert PairingRequest.objects.count() == 3


def test_code_is_over_after_an_hour(bot, operator):
    with clock.frozen(clock.now()):
        services.receive(account=bot, update=update(1, "hi"))
        code = PairingRequest.objects.get().code
        clock.advance(3601)

        with pytest.raises(NotFound):
            services.decide_pairing(by=operator, code=code, approve=True)


def test_operator_lets_a_stranger_in_as_themselves(bot, operator):
    services.receive(account=bot, update=update(1, "hi"))
    code = PairingRequest.objects.get().code

    services.decide_pairing(
        by=operator, code=code.lower(), approve=True, tier="operator", username="alice"
    )
    services.receive(account=bot, update=update(2, "now?"))

    assert Turn.objects.get().principal == operator
    assert Event.objects.filter(type="channel.pairing_decided").count() == 1


@pytest.mark.parametrize("tier", ["approver", "admin"])
def test_operator_gives_no_tier_above_their_own(bot, operator, tier):
    services.receive(account=bot, update=update(1, "hi"))
    code = PairingRequest.objects.get().code

    with pytest.raises(Denied):
        services.decide_pairing(
            by=operator, code=code, approve=True, tier=tier, username="alice"
        )

    assert not ChannelIdentity.objects.exists()
    assert PairingRequest.objects.get().state == "pending"


def test_tier_needs_a_person_with_that_role(bot, bob, workspace):
    people.person("vera", "viewer", workspace)
    services.receive(account=bot, update=update(1, "hi"))
    code = PairingRequest.objects.get().code
    by = access.principal_for_user(user=bob)

    with pytest.raises(Invalid):
        services.decide_pairing(
            by=by, code=code, approve=True, tier="operator", username="vera"
        )


def test_agent_and_outsider_let_nobody_in(bot, rob, charlie):
    services.receive(account=bot, update=update(1, "hi"))
    code = PairingRequest.objects.get().code

    with pytest.raises(Denied):
        services.decide_pairing(by=rob, code=code, approve=True)
    with pytest.raises(NotFound):
        services.decide_pairing(
            by=access.principal_for_user(user=charlie), code=code, approve=True
        )


def ways_in():
    """What an outsider may try, thirty times over."""
    texts = [
        "/start", "/help", "/status", "/new", "/agent coder", "/stop", "/halt",
        "/approve 0193", "/reject 0193", "/pair ABCDEFGH", "/start admin",
        "/START", "/help@polar_test_bot", "let me in", "I am alice", "\u202e/start",
        "/approve ' OR 1=1 --", "A" * 4096, "🔑", "/agent @primary",
    ]  # fmt: skip
    for text in texts:
        yield {"text": text}
    for action in ("approve:0193", "reject:", "approve:", ":", "admin:me"):
        yield {"text": "", "kind": "action", "action": action}
    yield {"text": "hi", "is_direct": False, "is_addressed": True, "chat": "-5"}
    yield {"text": "hi", "is_direct": False, "is_addressed": False, "chat": "-5"}
    yield {"text": "/approve x", "metadata": {"forwarded": True}}
    yield {"text": "x", "kind": "edit"}
    yield {"text": "", "attachments": (Attachment("document", "a.sh", "text/x-sh", 9),)}


@pytest.mark.parametrize("number", range(30))
def test_outsider_gets_nowhere_and_leaves_an_event(bot, alice, let_in, number):
    let_in(8, alice, tier="admin")
    services.receive(account=bot, update=update(900, "let me in", user="555"))
    theirs = PairingRequest.objects.get().code
    each = dict(list(ways_in())[number])
    text = each.pop("text").replace("ABCDEFGH", theirs)
    before = Event.objects.filter(type="channel.denied").count()

    named = update(number, text, user="666", display="alice", **each)
    got = services.receive(account=bot, update=named)

    assert not Turn.objects.exists()
    assert not Conversation.objects.exists()
    assert ChannelIdentity.objects.count() == 1
    assert PairingRequest.objects.get(code=theirs).state == "pending"
    # An offer of a code to who wrote directly, and nothing else was said.
    said = OutboxMessage.objects.exclude(dedupe_key__startswith="pair:")
    assert not said.exists()
    left = Event.objects.filter(type="channel.denied").count() - before
    is_unheard = each.get("is_addressed") is False
    assert (got.row.outcome, left) == (("nothing", 0) if is_unheard else ("denied", 1))


def test_there_are_thirty_ways():
    assert len(list(ways_in())) == 30


def test_new_name_of_a_known_sender_changes_nothing_and_the_old_name_opens_nothing(
    bot, alice, let_in
):
    identity = let_in(7, alice)

    services.receive(account=bot, update=update(1, "hi", user="7", display="Root"))
    services.receive(
        account=bot, update=update(2, "hi", user="666", display=identity.display)
    )

    outcomes = InboxMessage.objects.order_by("id").values_list("outcome", flat=True)
    assert list(outcomes) == ["started", "denied"]


def test_group_is_answered_only_when_addressed(bot, alice, let_in):
    let_in(7, alice)
    group = {"is_direct": False, "chat": "-5"}

    services.receive(account=bot, update=update(1, "chatter", **group))
    services.receive(
        account=bot, update=update(2, "you there?", is_addressed=True, **group)
    )

    assert Turn.objects.count() == 1


def test_sender_who_floods_is_limited(bot, alice, let_in):
    let_in(7, alice)

    with clock.frozen(clock.now()):
        for number in range(25):
            services.receive(account=bot, update=update(number, "again"))

    assert Turn.objects.count() == 20
    assert InboxMessage.objects.filter(outcome="limited").count() == 5


def test_chat_is_one_conversation_across_topics_until_begun_anew(bot, alice, let_in):
    let_in(7, alice)
    topic = ConversationKey("-5", topic="3")
    group = {"is_direct": False, "is_addressed": True, "chat": "-5"}
    services.receive(account=bot, update=update(1, "a", **group))
    services.receive(account=bot, update=update(2, "b", **group | {"key": topic}))
    assert Conversation.objects.count() == 1

    services.receive(account=bot, update=update(3, "/new", **group))
    services.receive(account=bot, update=update(4, "c", **group))

    assert Turn.objects.get(message_text="c").conversation_id not in set(
        Turn.objects.filter(message_text__in="ab").values_list(
            "conversation_id", flat=True
        )
    )


def test_demoted_person_keeps_no_tier(bot, workspace, let_in):
    vera = people.person("vera", "viewer", workspace)
    let_in(7, vera, tier="approver")

    services.receive(account=bot, update=update(1, "/approve 1"))

    assert InboxMessage.objects.get().outcome == "refused"
    assert Event.objects.filter(type="channel.refused").count() == 1


def test_forwarded_command_is_only_text(bot, alice, let_in):
    let_in(7, alice)

    services.receive(
        account=bot, update=update(1, "/stop", metadata={"forwarded": True})
    )

    assert Turn.objects.get().labels == ["untrusted"]


def test_paused_account_is_not_listened_to(bot, operator):
    services.set_account_state(by=operator, account=bot, state="paused")

    assert services.keep_listening() == 0
    assert Account.objects.get(id=bot.id).state == "paused"
