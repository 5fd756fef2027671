"""Settings leave as one document and arrive elsewhere as the same behaviour."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from apps.access import services as access
from apps.access.models import Role
from apps.agents import services as agents
from apps.agents.models import AgentProfile
from apps.audit.models import Event
from apps.common.errors import Conflict, Denied, Invalid, NotFound
from apps.gateway.models import Budget
from apps.providers.models import Provider, Route
from apps.reliability import services
from apps.runs.models import Schedule
from tests import people

pytestmark = pytest.mark.django_db

KEY = "sk-canary-0123456789-abcdef"
PROVIDER = {
    "kind": "openai_compatible",
    "baseUrl": "http://127.0.0.1:8080/v1",
    "models": [{"name": "small"}, {"name": "large", "inputMicros": 500_000}],
}


@pytest.fixture
def system(workspace):
    by = access.system_principal()
    agents.install_default_profiles(by=by, workspace=workspace)
    return by


def put(by, section, key, value, **options):
    return services.upsert_config(
        by=by, section=section, key=key, value=value, **options
    )


@pytest.fixture
def furnished(system):
    put(system, "providers", "near", PROVIDER | {"key": KEY})
    routes = [{"provider": "near", "model": name} for name in ("large", "small")]
    put(system, "lanes", "worker", {"routes": routes})
    put(system, "budgets", "workspace:micros:day:", {"limit": 5_000_000})
    put(system, "boards", "main", {"title": "Main"})
    put(system, "profiles", "scout", {"title": "Scout", "pinnedModel": "near/small"})
    return system


def undo(system):
    """Make the settings of the document differ, as on another install."""
    Route.objects.all().delete()
    AgentProfile.objects.filter(slug="scout").update(title="x", pinned_model=None)
    Provider.objects.all().delete()
    Budget.objects.all().delete()


def test_export_when_read_then_no_secret_and_stable(furnished):
    first = services.as_text(services.export_config(by=furnished))

    assert KEY not in first
    assert "providers.near.key" in first
    assert first == services.as_text(services.export_config(by=furnished))


def test_import_when_elsewhere_then_same_and_twice_changes_nothing(furnished):
    before = services.export_config(by=furnished)
    undo(furnished)

    changes = services.import_config(by=furnished, document=before)

    events = Event.objects.count()
    again = services.import_config(by=furnished, document=before)
    assert {c.section for c in changes} == {
        "providers",
        "lanes",
        "profiles",
        "budgets",
    }
    assert again == []
    assert Event.objects.count() == events
    after = services.export_config(by=furnished)
    assert after["sections"] == before["sections"]
    assert services.secrets_to_enter(before) == ["providers.near.key"]


def test_import_when_one_entry_wrong_then_nothing_is_kept(furnished):
    document = services.export_config(by=furnished)
    document["sections"]["boards"]["main"]["title"] = "Changed"
    document["sections"]["lanes"]["brain"] = {
        "routes": [{"provider": "near", "model": "absent"}]
    }

    with pytest.raises(Invalid):
        services.import_config(by=furnished, document=document)

    entry = services.get_config(by=furnished, section="boards", key="main")
    assert entry.value["title"] == "Main"


def test_set_when_partial_then_the_rest_stays(furnished):
    entry = put(furnished, "providers", "near", {"enabled": False})

    assert (entry.value["enabled"], len(entry.value["models"])) == (False, 2)
    assert Provider.objects.get(slug="near").secret is not None


def test_set_when_version_is_old_then_conflict(furnished):
    entry = services.get_config(by=furnished, section="boards", key="main")
    put(furnished, "boards", "main", {"title": "B"}, expected_version=entry.version)

    with pytest.raises(Conflict):
        put(furnished, "boards", "main", {"title": "C"}, expected_version=entry.version)


def test_set_when_budget_changes_then_spend_is_kept(furnished):
    Budget.objects.update(spent=7)

    put(furnished, "budgets", "workspace:micros:day:", {"limit": 9})

    assert Budget.objects.get().spent == 7


def test_set_when_schedule_then_made_changed_and_paused(system):
    from_words = {
        "title": "Nightly",
        "kind": "cron",
        "expression": "0 3 * * *",
        "runKind": "agents.automation",
        "payload": {"profile": "primary", "text": "report"},
    }
    put(system, "schedules", "nightly", from_words)

    put(system, "schedules", "nightly", {"state": "paused"})

    row = Schedule.objects.get(slug="nightly")
    assert (row.state, row.expression) == ("paused", "0 3 * * *")
    assert (
        services.diff_config(by=system, document=services.export_config(by=system))
        == []
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("providers", "x", {"kind": "none"}),
        ("providers", "x", PROVIDER | {"baseUrl": "http://a:b@c/v1"}),
        ("providers", "x", PROVIDER | {"approved": True}),
        ("budgets", "nonsense", {"limit": 1}),
        ("budgets", "workspace:micros:day:", {"limit": 10**30}),
        ("profiles", "Bad Slug!", {"title": "x"}),
        ("boards", "a\0b", {"title": "x"}),
        ("boards", "b", {"title": "x\0"}),
        ("gateway", "other", {"strictness": "observe"}),
    ],
)
def test_set_when_wrong_then_invalid(system, section, key, value):
    with pytest.raises(Invalid):
        put(system, section, key, value)


def test_set_when_section_unknown_then_not_found(system):
    with pytest.raises(NotFound):
        put(system, "secrets", "x", {})


def test_roles_when_approver_then_reads_and_may_not_write(furnished, bob, charlie):
    assert services.list_configs(by=bob.principal)
    with pytest.raises(Denied):
        put(bob.principal, "boards", "main", {"title": "x"})
    with pytest.raises(Denied):
        services.export_config(by=charlie.principal)


def run(monkeypatch, *args, stdin=""):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    out = io.StringIO()
    call_command("config", *args, stdout=out)
    return out.getvalue()


def test_command_when_field_from_stdin_then_set(furnished, monkeypatch):
    run(monkeypatch, "set", "boards.main#title", stdin="Renamed\n")

    assert json.loads(run(monkeypatch, "get", "boards.main#title")) == "Renamed"


def test_command_when_exported_then_diff_is_quiet_and_changes_speak(
    furnished, monkeypatch, tmp_path
):
    file = tmp_path / "polar.json"
    run(monkeypatch, "export", "--file", str(file))
    assert "Nothing differs" in run(monkeypatch, "diff", "--file", str(file))

    file.write_text(file.read_text().replace('"Main"', '"Other"'))

    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "diff", "--file", str(file))
    assert ended.value.code == 1
    assert "boards.main" in run(monkeypatch, "import", "--file", str(file))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "x"}', "[" * 100_000])
def test_command_when_document_is_none_then_says_so(system, monkeypatch, text):
    with pytest.raises(CommandError):
        run(monkeypatch, "import", stdin=text)


def test_api_when_used_then_same_service(client, furnished, workspace):
    _, raw = access.issue_token(
        by=furnished,
        principal=furnished,
        name="t",
        scopes=["config:*"],
        held=frozenset({"*"}),
    )
    bearer = {"Authorization": f"Bearer {raw}"}
    url = "/api/v1/configs/boards/main"
    version = client.get(url, headers=bearer).json()["version"]
    body = {"value": {"title": "Over HTTP"}, "expectedVersion": version}

    first = client.put(url, body, content_type="application/json", headers=bearer)
    second = client.put(url, body, content_type="application/json", headers=bearer)

    assert (first.status_code, second.status_code) == (200, 409)
    document = client.get("/api/v1/configs/document", headers=bearer).json()
    done = client.put(
        "/api/v1/configs/document",
        document,
        content_type="application/json",
        headers=bearer,
    )
    assert done.json()["changes"] == []


def test_page_when_compared_and_imported_then_shown(client, furnished, workspace):
    client.force_login(people.person("ada", Role.ADMIN, workspace))
    text = client.get(reverse("reliability:export_config")).content.decode()
    changed = text.replace('"Main"', '"Other"')
    url = reverse("reliability:import_config")

    compared = client.post(url, {"document": changed, "do": "diff"})
    client.post(url, {"document": changed, "do": "import"})

    assert b"boards.main" in compared.content
    assert b"Other" in client.get(reverse("reliability:config")).content
