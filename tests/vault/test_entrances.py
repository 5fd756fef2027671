"""The command, the checks and the pages."""

import json

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.db import OperationalError
from django.urls import reverse

from apps.vault import checks, queries, services
from apps.vault.engine import store
from apps.vault.models import Install, Key, SealState, Secret, Wrap
from tests.vault.conftest import ALICE, make_key

pytestmark = pytest.mark.django_db
CANARY = "canary-5f1e0c-sk-live-value"


@pytest.fixture
def secret(ring):
    return services.put(by=ALICE, name="openai", purpose="p", value=CANARY)


def status(capsys, *arguments) -> tuple[int, str]:
    try:
        call_command("vault", "status", *arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().out


def test_status_of_an_open_vault_exits_0(secret, capsys):
    code, out = status(capsys)

    assert (code, "vault: open" in out, "k1: first" in out) == (0, True, True)


def test_status_of_a_sealed_vault_exits_3_and_says_why(secret, keys, capsys):
    keys(k1=make_key())

    code, out = status(capsys)

    assert (code, "wrong_key" in out) == (3, True)


def test_status_with_unreadable_secrets_exits_4(secret, capsys):
    store.mark(secret, readable=False)

    code, out = status(capsys)

    assert (code, "unreadable: 1" in out) == (4, True)


def test_status_for_programs_is_json(secret, capsys):
    code, out = status(capsys, "--json")

    told = json.loads(out)
    assert (code, told["state"], told["secrets"]) == (0, "open", 1)
    assert CANARY not in out


def test_check_of_a_good_ring_is_silent(ring):
    assert checks.check_ring() == []


@pytest.mark.parametrize(("ring_keys", "id_"), [({"k1": "pass"}, "W001"), ({}, "W002")])
def test_check_names_a_bad_or_absent_ring(keys, ring_keys, id_):
    keys(**ring_keys)

    (found,) = checks.check_ring()

    assert found.id == f"vault.{id_}"


def test_check_of_a_good_store_is_silent(secret):
    assert checks.check_store(databases=["default"]) == []


def test_check_names_a_key_that_does_not_open_the_store(secret, keys):
    keys(k1=make_key())

    (found,) = checks.check_store(databases=["default"])

    assert found.id == "vault.W003"


def test_check_names_unreadable_secrets_and_worn_keys(secret):
    store.mark(secret, readable=False)
    Key.objects.update(encryptions=queries.WARN_ENCRYPTIONS)

    found = checks.check_store(databases=["default"])

    assert [message.id for message in found] == ["vault.W004", "vault.W005"]


def test_check_without_a_database_reads_none():
    assert checks.check_store() == []


def test_check_before_the_first_migration_is_silent(monkeypatch):
    monkeypatch.setattr(checks, "status", no_tables)

    assert checks.check_store(databases=["default"]) == []


def no_tables():
    raise OperationalError("no such table")


@pytest.mark.parametrize("model", [Secret, Wrap, Key, Install, SealState])
def test_pages_show_no_value_and_take_none(secret, client, django_user_model, model):
    SealState.load()
    client.force_login(django_user_model.objects.create_superuser("root"))
    name = f"admin:vault_{model.__name__.lower()}"

    page = client.get(reverse(f"{name}_changelist"))
    one = client.get(reverse(f"{name}_change", args=[model.objects.first().pk]))

    text = page.content.decode() + one.content.decode()
    assert (page.status_code, one.status_code) == (200, 200)
    assert CANARY not in text
    assert secret.ciphertext not in text
    assert not admin.site.get_model_admin(model).has_add_permission(page.wsgi_request)
