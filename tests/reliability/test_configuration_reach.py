"""Grants, channels and extensions in the configuration; a document crosses installs."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings

from apps.access import services as access
from apps.agents import services as agents
from apps.audit.models import Event
from apps.channels.models import Account
from apps.common import clock
from apps.common.errors import Invalid
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.gateway.models import Grant
from apps.reliability import services
from tests import people
from tests.journeys.processes import ON_POSTGRES

pytestmark = pytest.mark.django_db

TOKEN = "12345:canary-token-of-a-bot-000000000000000"


@pytest.fixture
def system(workspace):
    by = access.system_principal()
    agents.install_default_profiles(by=by, workspace=workspace)
    gateway.install_shipped_grants(by=by)
    extensions.sync_shipped_plugin()
    return by


def put(by, section, key, value, **options):
    return services.upsert_config(
        by=by, section=section, key=key, value=value, **options
    )


def document_with(section: str, entries: dict) -> dict:
    return {"format": "polar-config/1", "sections": {section: entries}}


def keys_of(system, section: str) -> dict:
    return services.export_config(by=system)["sections"][section]


def made(system, principal=None) -> str:
    before = set(keys_of(system, "grants"))
    gateway.make_grant(
        by=system,
        new=gateway.NewGrant(
            kind="tool",
            capabilities=("polar.note.*",),
            constraints={"agents": ["scout"]},
            reason="notes are ours",
            principal=principal,
            workspace=access.ensure_default_workspace(),
        ),
    )
    (key,) = set(keys_of(system, "grants")) - before
    return key


def test_grant_when_imported_then_made_once(system):
    key = made(system)
    entry = keys_of(system, "grants")[key]
    gateway.revoke_grant(by=system, grant_id=Grant.objects.latest("id").id)
    assert key not in keys_of(system, "grants")

    first = services.import_config(
        by=system, document=document_with("grants", {key: entry})
    )
    again = services.import_config(
        by=system, document=document_with("grants", {key: entry})
    )

    assert ([change.kind for change in first], again) == (["added"], [])
    assert keys_of(system, "grants")[key] == entry


def test_shipped_grant_that_was_ended_is_ended_elsewhere_too(system):
    shipped = Grant.objects.get(is_shipped=True, kind="model")
    gateway.revoke_grant(by=system, grant_id=shipped.id)
    document = services.export_config(by=system)
    Grant.objects.filter(id=shipped.id).update(revoked_at=None)

    changes = services.import_config(by=system, document=document)

    assert [change.fields for change in changes] == [("active",)]
    shipped.refresh_from_db()
    assert shipped.revoked_at is not None


def test_grant_names_people_and_agents_and_no_id(system, alice, workspace):
    key = made(system, principal=alice.principal)
    agent = made(system, principal=people.agent("scout", workspace))

    shown = keys_of(system, "grants")

    assert shown[key]["principal"] == "user:alice"
    assert shown[agent]["principal"] == "agent:scout"


def test_grant_for_somebody_who_is_not_here_is_refused_by_name(system, alice):
    key = made(system, principal=alice.principal)
    entry = keys_of(system, "grants")[key]
    Grant.objects.filter(reason=entry["reason"]).delete()
    alice.delete()

    with pytest.raises(Invalid, match="user:alice"):
        services.import_config(
            by=system, document=document_with("grants", {key: entry})
        )


def test_grant_is_not_changed_under_its_key(system):
    key = made(system)

    with pytest.raises(Invalid, match="end it, make another"):
        put(system, "grants", key, {"capabilities": ["*"]})


def test_grant_for_a_while_is_no_configuration(system, workspace):
    before = keys_of(system, "grants")
    gateway.make_grant(
        by=system,
        new=gateway.NewGrant(
            kind="tool",
            capabilities=("x",),
            reason="an hour",
            workspace=workspace,
            expires_at=clock.now() + timedelta(hours=1),
        ),
    )

    assert keys_of(system, "grants") == before


def test_bot_when_its_token_is_not_here_then_it_waits(system):
    wanted = {"telegram": {"kind": "telegram", "state": "active"}}
    document = document_with("channels", wanted) | {
        "secrets": ["channels.telegram.token"]
    }

    assert services.import_config(by=system, document=document) == []
    assert services.secrets_to_enter(document) == ["channels.telegram.token"]


def test_bot_when_token_is_entered_then_open_and_never_shown(system):
    put(system, "channels", "telegram", {"kind": "telegram", "token": TOKEN})

    text = services.as_text(services.export_config(by=system))

    assert TOKEN not in text
    assert "channels.telegram.token" in text
    assert Account.objects.get(slug="telegram").secret is not None


def test_channel_when_paused_in_the_document_then_paused_here(system):
    put(system, "channels", "web", {"kind": "web"})

    put(system, "channels", "web", {"state": "paused"})

    assert Account.objects.get(slug="web").state == "paused"


def test_extension_is_named_and_never_brought(system):
    document = services.export_config(by=system)
    document["extensions"]["far"] = {"type": "mcp", "lifecycle": "enabled"}

    services.import_config(by=system, document=document)

    assert services.extensions_to_review(document) == ["far"]
    assert "far" not in services.export_config(by=system)["extensions"]


@pytest.mark.skipif(
    ON_POSTGRES or not os.environ.get("POLAR_RUNBOOKS"),
    reason="a second store of real processes: make chaos",
)
def test_document_crosses_to_a_fresh_install_and_back_the_same(system, tmp_path):
    """A second store, made by real processes, comes to say the same."""
    put(system, "boards", "second", {"title": "Second"})
    put(system, "profiles", "scout", {"title": "Scout", "lane": "brain"})
    made(system)
    text = services.as_text(services.export_config(by=system))
    (tmp_path / "here.json").write_text(text)

    polar(tmp_path, "migrate", "--verbosity", "0")
    polar(tmp_path, "seed_demo")
    polar(tmp_path, "config", "import", "--file", str(tmp_path / "here.json"))
    again = polar(tmp_path, "config", "import", "--file", str(tmp_path / "here.json"))
    there = json.loads(polar(tmp_path, "config", "export"))

    assert "Nothing differs." in again
    for name, entries in json.loads(text)["sections"].items():
        assert entries.items() <= there["sections"][name].items(), name


def polar(folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder}/second.db",
        "POLAR_WITNESS_DIR": str(folder / "witness"),
        "REDIS_URL": "",
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_events_when_imported_twice_then_none_more(system):
    made(system)
    document = services.export_config(by=system)
    before = Event.objects.count()

    assert services.import_config(by=system, document=document) == []
    assert Event.objects.count() == before
