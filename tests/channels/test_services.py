"""Accounts, and the way of a web message to an agent."""

import pytest

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.access.models import Role
from apps.agents import services as agents
from apps.agents.models import Conversation
from apps.audit.models import Event
from apps.channels import queries, services
from apps.channels.errors import AccountPaused
from apps.channels.models import ACCOUNT, Account, AccountState
from apps.channels.services import chatting
from apps.common.errors import Invalid, InvalidTransition
from tests import people


@pytest.fixture
def operator(alice):
    return access.principal_for_user(user=alice)


@pytest.fixture
def primary(workspace):
    made = agents.install_default_profiles(
        workspace=workspace, by=access.system_principal()
    )
    return next(each for each in made if each.slug == "primary")


@pytest.fixture
def coder(workspace, primary):
    return primary.__class__.objects.get(workspace=workspace, slug="coder")


def test_web_account_is_opened_once_and_recorded(workspace, operator):
    first = services.open_web_account(by=operator, workspace=workspace)
    again = services.open_web_account(by=operator, workspace=workspace)

    assert first.id == again.id
    assert Event.objects.filter(type="channel.opened").count() == 1


def test_paused_account_takes_no_message(workspace, operator, primary):
    account = services.open_web_account(by=operator, workspace=workspace)
    services.set_account_state(by=operator, account=account, state="paused")

    with pytest.raises(AccountPaused):
        services.start_conversation(by=operator, profile=primary, text="hello")

    assert not Conversation.objects.exists()


def test_pausing_leaves_an_event(workspace, operator):
    account = services.open_web_account(by=operator, workspace=workspace)

    services.set_account_state(by=operator, account=account, state="paused")

    assert Event.objects.filter(type="channel.paused").count() == 1


def test_viewer_may_not_write(workspace, primary):
    viewer = people.person("vera", Role.VIEWER, workspace)

    with pytest.raises(RoleRequired):
        services.start_conversation(
            by=access.principal_for_user(user=viewer), profile=primary, text="hello"
        )


def test_overlong_message_is_refused(operator, primary):
    text = "x" * (chatting.LONGEST_MESSAGE + 1)

    with pytest.raises(Invalid):
        services.start_conversation(by=operator, profile=primary, text=text)


def test_conversation_with_another_agent_stays_with_it(operator, coder):
    begun = services.start_conversation(by=operator, profile=coder, text="a patch")

    turn = services.send_message(by=operator, conversation=begun, text="and a test")

    assert turn.profile_id == coder.id


@pytest.mark.parametrize("from_", AccountState.values)
@pytest.mark.parametrize("to", AccountState.values)
def test_account_moves_only_as_its_table_says(workspace, operator, from_, to):
    account = services.open_web_account(by=operator, workspace=workspace)
    Account.objects.filter(id=account.id).update(state=from_)
    account.refresh_from_db()

    if ACCOUNT.allows(from_, to):
        services.set_account_state(by=operator, account=account, state=to)
        assert queries.find_web_account(workspace=workspace).state == to
    else:
        with pytest.raises(InvalidTransition):
            services.set_account_state(by=operator, account=account, state=to)


def test_accounts_of_other_workspaces_are_not_listed(workspace, operator, charlie):
    services.open_web_account(by=operator, workspace=workspace)
    outsider = access.principal_for_user(user=charlie)

    assert queries.accounts(visible_to=operator).count() == 1
    assert not queries.accounts(visible_to=outsider).exists()
