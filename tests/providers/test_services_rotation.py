"""A provider's key changes while it serves; no turn fails for it."""

from collections.abc import Iterator
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal, Workspace
from apps.audit.models import Event
from apps.common.errors import Conflict, Denied, Invalid, InvalidTransition
from apps.providers import services as providers
from apps.providers.models import Attempt, KeyStage, KeyState, Provider
from apps.vault.models import Secret
from tests.fakes.openai_server import REPLY, FakeOpenAI, openai_server
from tests.providers import builders

OLD, NEW = "sk-canary-old-000001", "sk-canary-new-000002"

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(workspace: Workspace) -> Iterator[FakeOpenAI]:
    builders.ready(workspace)
    with openai_server() as server:
        server.accepted_keys = {OLD, NEW}
        builders.route("brain", url=server.url, key=OLD)
        yield server


@pytest.fixture
def admin() -> Principal:
    return access.system_principal()


def ask(workspace: Workspace) -> Any:
    return providers.generate(request=builders.request(workspace))


def used(server: FakeOpenAI) -> str:
    return server.headers_seen[-1]["authorization"].removeprefix("Bearer ")


def to_shadow(admin: Principal) -> None:
    providers.stage_key(by=admin, slug="fake", key=NEW)
    assert providers.test_key(by=admin, slug="fake").ok
    providers.shadow_key(by=admin, slug="fake")


def test_the_whole_way(
    server: FakeOpenAI, admin: Principal, workspace: Workspace
) -> None:
    providers.stage_key(by=admin, slug="fake", key=NEW)
    ask(workspace)
    assert used(server) == OLD
    assert providers.test_key(by=admin, slug="fake").ok
    assert used(server) == NEW
    providers.shadow_key(by=admin, slug="fake")
    ask(workspace)
    assert used(server) == NEW
    promoted = providers.promote_key(by=admin, slug="fake")
    assert promoted.key_stage == KeyStage.PROMOTED
    server.accepted_keys = {NEW}
    assert ask(workspace).text == REPLY
    providers.revoke_old_key(by=admin, slug="fake")

    assert Secret.objects.count() == 1
    assert ask(workspace).text == REPLY
    kinds = Event.objects.filter(type__startswith="provider.key_").order_by("id")
    assert [event.type.removeprefix("provider.key_") for event in kinds] == [
        "staged",
        "tested",
        "shadowed",
        "promoted",
        "revoked",
    ]
    assert kinds[3].body.count('"shadow_answers":"1"') or '"shadow_answers":1' in (
        kinds[3].body
    )


def test_a_refusal_on_trial_costs_no_turn(
    server: FakeOpenAI, admin: Principal, workspace: Workspace
) -> None:
    to_shadow(admin)
    server.accepted_keys = {OLD}
    found = ask(workspace)

    row = Provider.objects.get()
    assert (found.text, used(server)) == (REPLY, OLD)
    assert (row.key_stage, row.state) == (KeyStage.REFUSED, KeyState.OK)
    assert [each.error_class for each in Attempt.objects.order_by("id")] == ["auth", ""]
    assert Event.objects.filter(type="provider.key_refused").count() == 1
    with pytest.raises(InvalidTransition):
        providers.promote_key(by=admin, slug="fake")


def test_a_wrong_key_is_named_when_tested(server: FakeOpenAI, admin: Principal) -> None:
    server.accepted_keys = {OLD}
    providers.stage_key(by=admin, slug="fake", key=NEW)
    report = providers.test_key(by=admin, slug="fake")

    row = Provider.objects.get()
    assert (report.ok, report.error_class) == (False, "auth")
    assert (row.key_stage, row.state) == (KeyStage.REFUSED, KeyState.OK)
    assert NEW not in row.key_detail + report.detail


def test_dropping_leaves_the_key_in_use(
    server: FakeOpenAI, admin: Principal, workspace: Workspace
) -> None:
    to_shadow(admin)
    providers.drop_new_key(by=admin, slug="fake")
    ask(workspace)

    assert used(server) == OLD
    assert Secret.objects.count() == 1


def test_steps_cannot_be_left_out(server: FakeOpenAI, admin: Principal) -> None:
    providers.stage_key(by=admin, slug="fake", key=NEW)
    for step in (providers.shadow_key, providers.promote_key):
        with pytest.raises(InvalidTransition):
            step(by=admin, slug="fake")
    with pytest.raises(Conflict):
        providers.revoke_old_key(by=admin, slug="fake")


def test_the_same_key_and_no_key_are_refused(
    server: FakeOpenAI, admin: Principal
) -> None:
    with pytest.raises(Conflict):
        providers.stage_key(by=admin, slug="fake", key=OLD)
    with pytest.raises(Invalid):
        providers.stage_key(by=admin, slug="fake", key=" ")

    assert Secret.objects.count() == 1
    assert Provider.objects.get().key_stage == KeyStage.SETTLED


def test_a_key_is_not_replaced_in_the_middle_of_a_change(
    server: FakeOpenAI, admin: Principal
) -> None:
    to_shadow(admin)
    entry = providers.ProviderEntry(
        slug="fake", kind="openai_compatible", base_url=server.url, key="sk-third-0003"
    )
    with pytest.raises(Conflict):
        providers.save_provider(by=admin, entry=entry)


def test_a_second_change_uses_the_free_name(
    server: FakeOpenAI, admin: Principal, workspace: Workspace
) -> None:
    to_shadow(admin)
    providers.promote_key(by=admin, slug="fake")
    providers.revoke_old_key(by=admin, slug="fake")
    server.accepted_keys = {OLD, NEW}
    providers.stage_key(by=admin, slug="fake", key=OLD)
    ask(workspace)

    assert used(server) == NEW


def test_operators_do_not_change_keys(
    server: FakeOpenAI, alice: Any, workspace: Workspace
) -> None:
    operator = access.principal_for_user(user=alice)
    with pytest.raises(Denied):
        providers.stage_key(by=operator, slug="fake", key=NEW)

    assert Provider.objects.get().key_stage == KeyStage.SETTLED
