"""Slash commands: each with its tier, the same in every channel."""

import pytest

from apps.access import services as access
from apps.agents.models import AgentProfile, Memory
from apps.boards.models import Task
from apps.channels import services
from apps.channels.adapters.slack import SlackTransport
from apps.channels.engine import commands
from apps.channels.models import (
    ChannelIdentity,
    InboxMessage,
    OutboxMessage,
    PairingRequest,
)
from apps.gateway.models import Halt
from apps.reliability.models import Incident
from tests import people
from tests.channels.conftest import carry, update
from tests.fakes import slack_server as fake

NAMES = (
    "help status agents agent lane tasks task approve reject stop halt usage memory "
    "automations pair incident"
)


@pytest.fixture
def ada(workspace):
    return people.person("ada", "admin", workspace)


@pytest.fixture
def says(bot):
    """Write a line as a sender; return what is answered."""
    numbers = iter(range(1, 100))

    def say(text, user="7", **more):
        number = next(numbers)
        services.receive(account=bot, update=update(number, text, user=user, **more))
        row = InboxMessage.objects.get(external_id=str(number))
        said = OutboxMessage.objects.filter(dedupe_key=f"said:{row.id}").first()
        return said.text if said else ""

    return say


def test_every_command_is_there_and_says_what_it_does():
    known = commands.everything()

    assert set(NAMES.split()) <= set(known)
    assert all(each.help for each in known.values())


def test_public_sender_is_offered_only_what_they_may(says, bot):
    ChannelIdentity.objects.create(
        account=bot,
        external_user="7",
        principal=access.principal_for_automation(
            key="sender:x", label="x", workspace=bot.workspace
        ),
        tier="public",
    )

    assert "/halt" not in says("/help")
    assert "tier" in says("/halt everything")
    assert not Halt.objects.exists()


def test_operator_halts_from_the_chat(says, let_in, alice):
    let_in(7, alice)

    assert "Stopped: all" in says("/halt agents run wild")

    assert Halt.objects.get().reason == "agents run wild"


def test_lane_is_shown_and_switched_for_the_agent(says, let_in, alice, bob):
    let_in(7, alice)

    assert "worker" in says("/lane")
    assert "local" in says("/lane local")
    assert AgentProfile.objects.get(slug="primary").lane == "local"
    says("/lane nowhere")
    assert AgentProfile.objects.get(slug="primary").lane == "local"


def test_task_is_added_listed_and_shown(says, let_in, alice):
    let_in(7, alice)

    says("/task call the bank\nbefore noon")
    task = Task.objects.get()

    assert "call the bank" in says("/tasks")
    assert "before noon" in says(f"/task {task.id}")


def test_memory_in_a_group_keeps_to_what_is_everybodys(says, let_in, alice, bot):
    let_in(7, alice)
    person = access.principal_for_user(user=alice)
    for scope, key, text in (
        ("user", str(person.id), "alice likes tea"),
        ("workspace", str(bot.workspace_id), "the office is in Bonn"),
    ):
        Memory.objects.create(
            workspace=bot.workspace,
            scope=scope,
            key=key,
            text=text,
            digest=text,
            by_label="x",
        )

    direct = says("/memory")
    group = says("/memory", is_direct=False, is_addressed=True, chat="-5")

    assert "tea" in direct
    assert "tea" not in group
    assert "Bonn" in group


def test_usage_automations_and_agents_are_told(says, let_in, alice):
    let_in(7, alice)

    assert "0 model calls" in says("/usage")
    assert says("/automations")
    assert "@primary" in says("/agents")


def test_incident_is_opened_and_listed(says, let_in, alice):
    let_in(7, alice)

    assert "open as S2" in says("/incident S2 mail is down")
    assert "mail is down" in says("/incident")
    says("/incident the unknown")

    severities = Incident.objects.order_by("id").values_list("severity", flat=True)
    assert list(severities) == ["S2", "S1"]


class TestPairingInTheChannel:
    @pytest.fixture
    def code(self, says):
        says("hello", user="555")
        return PairingRequest.objects.get().code

    def test_admin_lets_a_stranger_in(self, says, let_in, ada, alice, code):
        let_in(7, ada, tier="admin")

        says(f"/pair {code} operator @alice")

        found = ChannelIdentity.objects.get(external_user="555")
        assert (found.tier, found.principal.label) == ("operator", "alice")

    def test_admin_turns_a_stranger_down(self, says, let_in, ada, code):
        let_in(7, ada, tier="admin")

        assert says(f"/pair {code} reject") == "Turned down."
        assert not ChannelIdentity.objects.filter(external_user="555").exists()

    def test_operator_and_forwarded_word_let_nobody_in(
        self, says, let_in, ada, alice, code
    ):
        let_in(7, ada, tier="admin")
        let_in(8, alice, tier="operator")

        says(f"/pair {code}", user="8")
        says(f"/pair {code}", metadata={"forwarded": True})

        assert PairingRequest.objects.get().state == "pending"


@pytest.mark.django_db(transaction=True)
class TestHomeTab:
    @pytest.fixture
    def slack(self, bot, settings):
        with fake.slack_server() as server:
            account = services.save_bot(
                by=access.system_principal(),
                workspace=bot.workspace,
                kind="slack",
                slug="slack",
                token=f"{fake.BOT_TOKEN} {fake.SIGNING_SECRET}",
            )
            account.settings = {"api_url": server.api_url, "local": [*server.local]}
            account.save(update_fields=["settings"])
            yield server, account

    def opened(self, account, user):
        event = {"type": "app_home_opened", "tab": "home", "user": user}
        raw = fake.callback(event | {"channel": "D0ALICE", "event_ts": "1.000001"})
        services.receive(account=account, update=SlackTransport().read(raw, None))
        carry(services.HOME_KIND)

    def test_known_person_sees_how_things_stand(self, slack, alice):
        server, account = slack
        ChannelIdentity.objects.create(
            account=account,
            external_user=f"{fake.TEAM}:U0ALICE",
            principal=access.principal_for_user(user=alice),
            tier="operator",
        )

        self.opened(account, "U0ALICE")

        assert "Running" in str(server.homes["U0ALICE"])

    def test_stranger_sees_nothing_and_gets_no_code(self, slack):
        server, account = slack

        self.opened(account, "U0EVIL")

        assert server.homes == {}
        assert not PairingRequest.objects.exists()
        assert InboxMessage.objects.get().outcome == "denied"
