"""The same ten conversations on the web, Telegram and Slack give the same turns."""

import pytest

from apps.access import services as access
from apps.agents.models import AgentProfile, Conversation, Turn
from apps.channels import services
from apps.channels.adapters import slack, telegram, telegram_events
from apps.channels.models import Account, ChannelIdentity, OutboxMessage
from apps.common.errors import PolarError
from tests.channels.conftest import carry
from tests.fakes import slack_server, telegram_server

CONVERSATIONS = [
    ["hello"],
    ["what time is it?"],
    ["12 * 7"],
    ["what is 2 + 2?", "and 3 * 3?"],
    ["remember the blue door", "search for blue door"],
    ["<b>bold</b> & `code`"],
    ["una pregunta: ¿qué hora es? 🔑"],
    ["line one\nline two"],
    ["a" * 3000],
    ["what time is it in Berlin?", "thanks", "7 - 9"],
]
SAME = ("message_text", "state", "labels", "requested_lane", "degraded", "depth")


@pytest.fixture
def slack_account(bot):
    system = access.system_principal()
    return services.save_bot(
        by=system,
        workspace=bot.workspace,
        kind="slack",
        slug="slack",
        token=f"{slack_server.BOT_TOKEN} {slack_server.SIGNING_SECRET}",
    )


def as_telegram(number, text, place):
    raw = telegram_server.message(number, text, chat={"id": place, "type": "private"})
    me = telegram.User(99, "Polar", is_bot=True, username="polar_test_bot")
    return telegram_events.read(telegram.VendorUpdate.de_json(raw, None), me)


def as_slack(number, text, place):
    written = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    said = slack_server.message(written, number=number, channel=f"D{place}")
    return slack.SlackTransport().read(said, None)


def test_ten_conversations_give_the_same_turns_everywhere(
    bot, slack_account, let_in, alice
):
    let_in(7, alice)
    person = access.principal_for_user(user=alice)
    ChannelIdentity.objects.create(
        account=slack_account,
        external_user=f"{slack_server.TEAM}:U0ALICE",
        principal=person,
        tier="operator",
    )
    Account.objects.update(per_minute=600)
    accounts = {each.kind: each for each in Account.objects.select_related("workspace")}

    number = 0
    for place, texts in enumerate(CONVERSATIONS, start=100):
        on_the_web = None
        for text in texts:
            number += 1
            on_the_web = say_on_the_web(person, bot, on_the_web, text)
            for kind, read in (("telegram", as_telegram), ("slack", as_slack)):
                update = read(number, text, place)
                got = services.receive(account=accounts[kind], update=update)
                assert got.row.outcome == "started", (kind, text)
    carry("agents.turn")

    turns = {kind: described(kind) for kind in ("web", "telegram", "slack")}
    assert len(turns["web"]) == 10
    assert turns["telegram"] == turns["web"]
    assert turns["slack"] == turns["web"]


#: What answers the same wherever it is asked; a chat's own things are its own.
COMMANDS = [
    "/help", "/agents", "/agent @coder", "/lane", "/tasks", "/usage", "/memory tea",
    "/automations", "/incident", "/approve 1", "/pair ABCDEFGH", "/lane nowhere",
    "/nothing", "/stop", "/task", "/status",
]  # fmt: skip


def test_every_command_answers_the_same_everywhere(bot, slack_account, let_in, alice):
    let_in(7, alice)
    person = access.principal_for_user(user=alice)
    ChannelIdentity.objects.create(
        account=slack_account,
        external_user=f"{slack_server.TEAM}:U0ALICE",
        principal=person,
        tier="operator",
    )
    conversation = say_on_the_web(person, bot, None, "hello")
    carry("agents.turn")

    for number, text in enumerate(COMMANDS):
        web = on_the_web(person, conversation, text)
        for account, update in (
            (bot, as_telegram(100 + number, text, 7)),
            (slack_account, as_slack(100 + number, text, 700)),
        ):
            row = services.receive(account=account, update=update).row
            said = OutboxMessage.objects.get(dedupe_key=f"said:{row.id}").text
            assert said == web, (account.kind, text)


def on_the_web(person, conversation, text):
    try:
        taken = services.take_message(by=person, conversation=conversation, text=text)
    except PolarError as error:
        return error.detail
    return taken.said


def say_on_the_web(person, bot, conversation, text):
    if conversation is None:
        profile = agent_of(bot)
        return services.start_conversation(by=person, profile=profile, text=text)
    services.send_message(by=person, conversation=conversation, text=text)
    return conversation


def agent_of(bot):
    return AgentProfile.objects.get(workspace=bot.workspace, slug="primary")


def described(kind):
    """Shape: per conversation, per turn, what it was and which steps it took."""
    found = Conversation.objects.filter(channel=kind).order_by("id")
    return [
        [
            {name: getattr(turn, name) for name in SAME}
            | {"steps": list(turn.steps.order_by("seq").values_list("kind", "state"))}
            for turn in Turn.objects.filter(conversation=each).order_by("id")
        ]
        for each in found
    ]
