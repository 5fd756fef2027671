"""Administrators edit providers; keys go into the vault; providers find themselves."""

from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.audit.models import Event
from apps.common.errors import Conflict, Denied, Invalid
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.providers import queries
from apps.providers import services as providers
from apps.providers.models import KeyState, Model, Provider, Route
from apps.vault.models import Secret
from tests.fakes.openai_server import openai_server
from tests.providers import builders

pytestmark = pytest.mark.django_db
KEY = "sk-canary-abcdefghij"


def entry(**changes: Any) -> providers.ProviderEntry:
    options: dict[str, Any] = {"slug": "acme", "kind": "openai", "key": KEY}
    return providers.ProviderEntry(**(options | changes))


def test_a_provider_is_saved_with_its_key_sealed(workspace: Workspace) -> None:
    row = providers.save_provider(by=access.system_principal(), entry=entry())

    assert row.secret is not None
    assert KEY not in str(Provider.objects.values().get())
    assert KEY not in str(list(Event.objects.values()))
    assert Event.objects.filter(type="provider.saved").exists()


def test_an_operator_may_not_change_providers(alice: User) -> None:
    with pytest.raises(Denied):
        providers.save_provider(by=access.principal_for_user(user=alice), entry=entry())

    assert not Provider.objects.exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kind": "carrier-pigeon"}, "kind"),
        ({"base_url": "https://me:pw@host/v1"}, "base_url"),
        ({"base_url": "ftp://host"}, "base_url"),
        ({"kind": "openai_compatible"}, "base_url"),
    ],
)
def test_a_bad_entry_names_its_field(
    workspace: Workspace, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as caught:
        providers.save_provider(by=access.system_principal(), entry=entry(**changes))

    assert [problem.path for problem in caught.value.fields] == [field]


def test_an_older_revision_does_not_overwrite(workspace: Workspace) -> None:
    system = access.system_principal()
    providers.save_provider(by=system, entry=entry())
    providers.save_provider(by=system, entry=entry())

    with pytest.raises(Conflict):
        providers.save_provider(by=system, entry=entry(), expected_revision=1)


def test_a_new_key_is_trusted_again(workspace: Workspace) -> None:
    system = access.system_principal()
    providers.save_provider(by=system, entry=entry())
    Provider.objects.update(state=KeyState.REJECTED)
    providers.save_provider(by=system, entry=entry(key=""))
    kept = Provider.objects.get().state
    providers.save_provider(by=system, entry=entry(key="sk-another-0123456"))

    assert (kept, Provider.objects.get().state) == (KeyState.REJECTED, KeyState.OK)


def test_a_route_is_put_first(workspace: Workspace) -> None:
    builders.route("brain", "one", "http://127.0.0.1:9/v1")
    second = builders.route("brain", "two", "http://127.0.0.1:9/v1")
    providers.save_route(
        by=access.system_principal(), lane="brain", model=second.model, first=True
    )

    order = Route.objects.order_by("position").values_list("model__provider__slug")
    assert [slug for (slug,) in order] == ["two", "one"]


def test_removing_a_provider_takes_its_key(workspace: Workspace) -> None:
    system = access.system_principal()
    providers.save_provider(by=system, entry=entry())
    providers.remove_provider(by=system, slug="acme")

    assert not Provider.objects.exists()
    assert not Secret.objects.exists()


def test_keys_in_the_environment_make_providers(
    workspace: Workspace, settings: Any
) -> None:
    settings.ANTHROPIC_API_KEY = KEY
    first = providers.sync_from_env()
    again = providers.sync_from_env()
    settings.ANTHROPIC_API_KEY = "sk-rotated-0123456789"
    Provider.objects.update(state=KeyState.REJECTED)
    rotated = providers.sync_from_env()

    assert (first, again, rotated) == (["anthropic"], [], ["anthropic"])
    assert queries.get_provider("anthropic").state == KeyState.OK
    assert Route.objects.filter(model__provider__slug="anthropic").count() == 3
    assert not Model.objects.filter(provider__slug="anthropic", input_micros=0).exists()


def test_a_local_server_joins_the_local_lane(
    workspace: Workspace, settings: Any
) -> None:
    builders.ready(workspace)
    with openai_server(models=("qwen", "llama")) as server:
        settings.LOCAL_MODEL_URL = server.url
        settings.OLLAMA_HOST = server.root
        found = providers.sync_from_env()

    assert found == ["local", "ollama"]
    local = Route.objects.filter(lane="local").exclude(model__provider__slug="scripted")
    assert local.count() == 4
    asked = Call.objects.filter(capability="provider:local/models")
    assert [call.state for call in asked] == ["succeeded"]


def test_a_halted_install_looks_for_no_neighbour(
    workspace: Workspace, settings: Any, bob: User
) -> None:
    builders.ready(workspace)
    by = access.principal_for_user(user=bob)
    gateway.halt(by=by, scope="all", reason="stop")
    with openai_server(models=("qwen",)) as server:
        settings.LOCAL_MODEL_URL = server.url
        found = providers.sync_from_env()

    assert (found, server.headers_seen) == ([], [])


def test_a_silent_neighbour_adds_nothing(workspace: Workspace, settings: Any) -> None:
    settings.OLLAMA_HOST = "http://127.0.0.1:9"

    assert providers.sync_from_env() == []


def test_a_provider_is_tested_through_the_gateway(workspace: Workspace) -> None:
    builders.ready(workspace)
    with openai_server() as server:
        made = builders.route("brain", url=server.url, key=KEY)
        Provider.objects.update(state=KeyState.REJECTED)
        report = providers.test_provider(
            by=access.system_principal(), provider=made.model.provider
        )

    assert (report.ok, report.models) == (True, ("fake-1",))
    assert Provider.objects.get().state == KeyState.OK


def test_a_failed_test_says_how(workspace: Workspace) -> None:
    builders.ready(workspace)
    with openai_server("401") as server:
        made = builders.route("brain", url=server.url, key=KEY)
        report = providers.test_provider(
            by=access.system_principal(), provider=made.model.provider
        )

    assert (report.ok, report.error_class) == (False, "auth")


def test_texts_are_embedded(workspace: Workspace) -> None:
    builders.ready(workspace)
    with openai_server() as server:
        made = builders.route("brain", url=server.url)
        vectors = providers.embed_text(
            by=access.system_principal(),
            model=made.model,
            texts=("a", "b"),
            workspace_id=workspace.pk,
        )

    assert len(vectors) == 2


def test_the_command_lists_and_tests(workspace: Workspace) -> None:
    builders.ready(workspace)
    providers.sync_from_env()
    listed, tested = StringIO(), StringIO()
    call_command("providers", "list", stdout=listed)
    call_command("providers", "test", "--json", stdout=tested)

    assert "scripted/scripted" in listed.getvalue()
    assert '"ok": true' in tested.getvalue()
