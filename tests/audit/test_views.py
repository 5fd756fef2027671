"""The log's pages: who sees what, and finding it by what people hold in hand."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.urls import reverse

from apps.access.models import Role
from apps.audit import services
from apps.audit.models import Event
from apps.common import clock
from apps.common.actor import SYSTEM
from tests import people


@pytest.fixture
def event(workspace) -> Event:
    with transaction.atomic():
        return services.record(
            type="audit.exported",
            actor=SYSTEM,
            workspace_id=workspace.id,
            trace_id="a" * 32,
            reason="for the night shift",
        )


def test_log_asks_strangers_to_sign_in(client, db):
    assert client.get(reverse("audit:list")).status_code == 302


def test_member_finds_an_event_by_its_trace(client, alice, event):
    client.force_login(alice)
    url = reverse("audit:list")

    found = client.get(url, {"q": "a" * 32}).content.decode()
    missed = client.get(url, {"q": "b" * 32}).content.decode()

    assert "for the night shift" in found
    assert "for the night shift" not in missed


def test_event_of_another_workspace_is_not_found(client, charlie, event):
    client.force_login(charlie)

    assert client.get(reverse("audit:detail", args=[event.id])).status_code == 404


def test_event_shows_exactly_what_was_hashed(client, alice, event):
    client.force_login(alice)

    html = client.get(reverse("audit:detail", args=[event.id])).content.decode()

    assert event.digest in html


def test_sealed_event_shows_its_proof(client, alice, event, tmp_path, settings):
    settings.POLAR_WITNESS_DIR = tmp_path
    services.seal_all()
    client.force_login(alice)

    html = client.get(reverse("audit:detail", args=[event.id])).content.decode()

    assert "In the tree of" in html


def test_only_admins_verify(client, alice, workspace, event):
    client.force_login(alice)
    assert client.post(reverse("audit:verify")).status_code == 403

    client.force_login(people.person("ada", Role.ADMIN, workspace))
    assert client.post(reverse("audit:verify")).status_code == 302


def test_chain_shows_what_each_checkpoint_signed_anew(
    client, alice, event, tmp_path, settings
):
    settings.POLAR_WITNESS_DIR = tmp_path
    client.force_login(alice)
    services.seal_all()
    alone = client.get(reverse("audit:list")).content.decode()
    with clock.frozen(clock.now() + timedelta(hours=1)):
        with transaction.atomic():
            for _ in range(3):
                services.record(type="audit.exported", actor=SYSTEM)
        services.seal_all()

    linked = client.get(reverse("audit:list")).content.decode()

    assert "Chain of checkpoints" not in alone
    assert "3 more" in linked
