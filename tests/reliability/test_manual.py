"""The manual on the desk: the right runbook, and nothing but its own files."""

import pytest
from django.urls import reverse

from apps.reliability.engine import manual

pytestmark = pytest.mark.django_db


@pytest.fixture
def desk(client, alice):
    client.force_login(alice)
    return client


def test_every_page_named_for_help_exists():
    assert set(manual.HELPS.values()) <= set(manual.contents())


def test_a_page_leads_to_the_runbook_of_what_it_shows(desk):
    html = desk.get(reverse("providers:list")).content.decode()
    shown = desk.get(reverse("reliability:manual_page", args=["vault-recovery"]))

    assert "/manual/provider-failover/" in html
    assert "<table" in shown.content.decode()


def test_links_between_files_lead_between_pages(desk):
    html = desk.get(reverse("reliability:manual")).content.decode()

    assert 'href="/manual/provider-failover/"' in html
    assert '.md"' not in html


def test_no_other_file_is_shown(desk):
    assert desk.get("/manual/style/").status_code == 404
    assert desk.get("/manual/..%2F..%2F.env/").status_code == 404
