"""Accounts on the desk and over the API: health, people, what goes out."""

import json
from datetime import timedelta

import pytest
from django.urls import reverse

from apps.access import services as access
from apps.audit.models import Event
from apps.channels import queries, services
from apps.channels.models import (
    Account,
    ChannelIdentity,
    OutboxMessage,
    OutboxState,
    PairingRequest,
)
from apps.common import clock
from apps.common.errors import Denied, Invalid, NotFound
from apps.vault.models import Secret
from tests import people
from tests.channels.conftest import update
from tests.fakes.telegram_server import TOKEN

OTHER = "87654321:another-token-of-a-fake-bot-000000000"


@pytest.fixture
def ada(workspace):
    return people.person("ada", "admin", workspace)


@pytest.fixture
def admin(client, ada):
    client.force_login(ada)
    return client


@pytest.fixture
def by(ada):
    return access.principal_for_user(user=ada)


def act(client, action, **fields):
    return client.post(reverse("channels:act", args=[action]), fields, follow=True)


def test_bot_is_added_on_the_desk_and_its_token_is_nowhere_to_be_seen(admin, workspace):
    page = act(admin, "add", kind="telegram", slug="support", token=TOKEN)

    account = Account.objects.get(slug="support")
    assert page.redirect_chain[-1][0] == reverse("channels:account", args=[account.id])
    assert TOKEN not in page.content.decode()
    assert Secret.objects.filter(id=account.secret_id).exists()
    opened = Event.objects.filter(type="channel.opened")
    assert TOKEN not in json.dumps(list(opened.values("body")), default=str)


@pytest.mark.parametrize(
    ("kind", "slug", "token"),
    [
        ("telegram", "support", "not a token"),
        ("telegram", "Support!", TOKEN),
        ("telegram", "web", TOKEN),
        ("slack", "slack", "xoxb-only"),
        ("pigeon", "support", TOKEN),
    ],
)
def test_bot_that_cannot_be_is_refused_and_nothing_is_stored(
    admin, workspace, kind, slug, token
):
    page = act(admin, "add", kind=kind, slug=slug, token=token)

    assert "Not done" in page.content.decode()
    assert not Account.objects.exists()
    assert not Secret.objects.exists()


def test_operator_adds_and_changes_no_account(client, alice, bot):
    client.force_login(alice)

    refused = act(client, "add", kind="telegram", slug="mine", token=TOKEN)
    act(client, "change", account=bot.id, per_minute="5")

    assert "Not done" in refused.content.decode()
    bot.refresh_from_db()
    assert (bot.per_minute, Account.objects.count()) == (20, 1)


def test_new_token_is_taken_and_hearing_is_awaited_anew(bot, by, workspace):
    with clock.frozen(clock.now()):
        Account.objects.filter(id=bot.id).update(refused_at=clock.now(), trouble="no")
        assert queries.receiving(Account.objects.get(id=bot.id)) == "down"

        saved = services.save_bot(
            by=by, workspace=workspace, kind="telegram", slug="telegram", token=OTHER
        )

        assert queries.receiving(saved) == "unknown"
        assert Event.objects.filter(type="channel.changed").count() == 1


def test_page_shows_health_and_who_waits_in_few_queries(
    admin, bot, django_assert_max_num_queries
):
    services.receive(account=bot, update=update(1, "hi", display="Mallory"))

    with django_assert_max_num_queries(20):
        page = admin.get(reverse("channels:accounts")).content.decode()

    assert "Mallory" in page
    assert PairingRequest.objects.get().code not in page


def test_stranger_is_let_in_by_the_code_and_turned_down_without(admin, bot, ada):
    services.receive(account=bot, update=update(1, "hi", user="7"))
    services.receive(account=bot, update=update(2, "hi", user="8"))
    code = PairingRequest.objects.get(external_user="7").code
    other = PairingRequest.objects.get(external_user="8")

    act(admin, "let-in", code=code, tier="operator", username="ada")
    act(admin, "refuse", pairing=other.id)

    assert ChannelIdentity.objects.get().external_user == "7"
    other.refresh_from_db()
    assert other.state == "rejected"
    assert Event.objects.filter(type="channel.pairing_decided").count() == 2


def test_tier_is_given_only_as_far_as_both_roles_bear_it(bot, by, alice, let_in):
    identity = let_in(7, alice, tier="public")

    services.set_tier(by=by, identity_id=identity.id, tier="operator")
    with pytest.raises(Invalid):
        services.set_tier(by=by, identity_id=identity.id, tier="approver")
    with pytest.raises(Denied):
        services.set_tier(
            by=access.principal_for_user(user=alice),
            identity_id=identity.id,
            tier="admin",
        )

    identity.refresh_from_db()
    assert identity.tier == "operator"
    assert Event.objects.filter(type="channel.identity_changed").count() == 1


def test_outsider_sees_nothing_of_it(client, charlie, bot, let_in, alice):
    identity = let_in(7, alice)
    client.force_login(charlie)
    outside = access.principal_for_user(user=charlie)

    page = client.get(reverse("channels:accounts")).content.decode()
    missing = client.get(reverse("channels:account", args=[bot.id]))

    assert str(bot.id) not in page
    assert missing.status_code == 404
    with pytest.raises(NotFound):
        services.set_tier(by=outside, identity_id=identity.id, tier="public")


@pytest.fixture
def failed(bot):
    return OutboxMessage.objects.create(
        account=bot,
        chat="7",
        text="the secret words",
        dedupe_key="k",
        state=OutboxState.UNKNOWN,
    )


def test_unknown_message_goes_out_again_by_a_click(admin, failed):
    page = admin.get(reverse("channels:outbox"), {"state": "trouble"})
    assert "the secret words" not in page.content.decode()

    act(admin, "resend", message=failed.id, back="outbox")

    failed.refresh_from_db()
    assert (failed.state, failed.resent) == ("pending", 1)
    assert Event.objects.filter(type="channel.resent").count() == 1


class TestAllowLists:
    def change(self, by, bot, **changes):
        wanted = services.Changes(**changes)
        services.change_account(by=by, account=bot, changes=wanted)
        return Account.objects.select_related("workspace").get(id=bot.id)

    def test_only_listed_senders_are_heard_and_others_get_no_code(
        self, bot, by, alice, let_in
    ):
        let_in(7, alice)
        let_in(8, alice)
        bot = self.change(by, bot, allowed_senders=["7"])

        outcomes = [
            services.receive(account=bot, update=update(n, "hi", user=user)).row.outcome
            for n, user in enumerate(["7", "8", "9"])
        ]

        assert outcomes == ["started", "denied", "denied"]
        assert not PairingRequest.objects.exists()
        assert Event.objects.filter(type="channel.denied").count() == 2

    def test_only_listed_groups_are_heard(self, bot, by, alice, let_in):
        let_in(7, alice)
        bot = self.change(by, bot, allowed_chats=["-5"])
        group = {"is_direct": False, "is_addressed": True}

        outcomes = [
            services.receive(
                account=bot, update=update(n, "hi", chat=chat, **group)
            ).row.outcome
            for n, chat in enumerate(["-5", "-6"])
        ]

        assert outcomes == ["started", "denied"]

    def test_rate_is_the_accounts_own(self, bot, by, alice, let_in):
        let_in(7, alice)
        bot = self.change(by, bot, per_minute=2)

        outcomes = [
            services.receive(account=bot, update=update(n, "hi")).row.outcome
            for n in range(3)
        ]

        assert outcomes == ["started", "started", "limited"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"per_minute": 0},
            {"alerts_to": "general"},
            {"hears_by": "pigeon"},
            {"hears_by": "hook"},
            {"public_url": "http://polar.example"},
            {"allowed_senders": ["x" * 81]},
        ],
    )
    def test_what_cannot_be_is_refused_by_name(self, bot, by, changes):
        with pytest.raises(Invalid) as refused:
            self.change(by, bot, **changes)

        assert refused.value.fields
        assert not Event.objects.filter(type="channel.changed").exists()


class TestHealth:
    def test_deaf_channel_is_down_within_two_minutes_and_heard_again(self, bot):
        with clock.frozen(clock.now()):
            Account.objects.filter(id=bot.id).update(heard_at=clock.now())
            assert queries.receiving(Account.objects.get(id=bot.id)) == "ok"
            clock.advance(61)
            assert queries.receiving(Account.objects.get(id=bot.id)) == "down"
            Account.objects.filter(id=bot.id).update(heard_at=clock.now())
            assert queries.receiving(Account.objects.get(id=bot.id)) == "ok"

    def test_resumed_channel_gets_its_time(self, bot, by):
        with clock.frozen(clock.now()):
            Account.objects.filter(id=bot.id).update(heard_at=clock.now())
            services.set_account_state(by=by, account=bot, state="paused")
            clock.advance(600)
            assert queries.receiving(bot) == "paused"
            services.set_account_state(by=by, account=bot, state="active")
            bot.refresh_from_db()
            assert queries.receiving(bot) == "unknown"

    def test_silence_of_events_by_http_proves_nothing(self, bot):
        Account.objects.filter(id=bot.id).update(
            kind="slack",
            hears_by="hook",
            awaited_since=clock.now() - timedelta(hours=1),
        )
        account = Account.objects.get(id=bot.id)
        assert queries.receiving(account) == "unknown"

        account.trouble = "Slack cannot be reached"
        assert queries.receiving(account) == "down"


class TestApi:
    def call(self, client, method, path, body=None):
        answer = client.generic(
            method,
            f"/api/v1{path}",
            json.dumps(body or {}),
            content_type="application/json",
        )
        return answer.status_code, (answer.json() if answer.content else {})

    def test_what_the_desk_can_do_the_api_can(self, admin, bot, ada, failed):
        services.receive(account=bot, update=update(1, "hi", user="7"))
        code = PairingRequest.objects.get().code

        status, listed = self.call(admin, "GET", "/channels")
        assert (status, listed["items"][0]["receiving"]) == (200, "unknown")
        assert (
            self.call(
                admin, "POST", f"/channels/{bot.id}", {"perMinute": 7, "alertsTo": "-5"}
            )[1]["perMinute"]
            == 7
        )
        status, waiting = self.call(admin, "GET", "/channels/pairings")
        assert "code" not in waiting["items"][0]
        assert (
            self.call(
                admin,
                "POST",
                "/channels/pairings",
                {"code": code, "tier": "operator", "username": "ada"},
            )[0]
            == 200
        )
        status, who = self.call(admin, "GET", "/channels/identities")
        identity = who["items"][0]["id"]
        assert (
            self.call(
                admin, "POST", f"/channels/identities/{identity}", {"blocked": True}
            )[1]["state"]
            == "blocked"
        )
        status, out = self.call(admin, "GET", "/channels/outbox?state=trouble")
        assert [row["id"] for row in out["items"]] == [str(failed.id)]
        assert "text" not in out["items"][0]
        assert (
            self.call(admin, "POST", f"/channels/outbox/{failed.id}/resend")[0] == 200
        )
        assert (
            self.call(admin, "POST", f"/channels/{bot.id}/state", {"state": "paused"})[
                1
            ]["state"]
            == "paused"
        )
        status, saved = self.call(
            admin,
            "POST",
            "/channels",
            {"kind": "telegram", "slug": "second", "token": OTHER},
        )
        assert status == 200
        assert OTHER not in json.dumps(saved)

    def test_viewer_reads_and_changes_nothing(self, client, bot, workspace, failed):
        client.force_login(people.person("vera", "viewer", workspace))

        assert self.call(client, "GET", "/channels")[0] == 200
        assert (
            self.call(client, "POST", f"/channels/outbox/{failed.id}/resend")[0] == 403
        )
        assert (
            self.call(client, "POST", f"/channels/{bot.id}/state", {"state": "paused"})[
                0
            ]
            == 403
        )
        failed.refresh_from_db()
        assert failed.state == "unknown"
