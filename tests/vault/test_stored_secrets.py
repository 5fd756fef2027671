"""What an extension is given is stored from the page, the API and the command."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from apps.access import services as access
from apps.audit.models import Event
from apps.common.errors import Conflict, Invalid
from apps.vault import ports, services
from apps.vault.models import Secret
from tests import people
from tests.vault.conftest import ALICE

pytestmark = pytest.mark.django_db
CANARY = "canary-51c0-of-orders"


def stored() -> str:
    (row,) = Secret.objects.filter(purpose=ports.FOR_EXTENSIONS)
    with services.lease(row.pk, purpose="test", by=ALICE) as value:
        return f"{row.name} {value.reveal()}"


@pytest.fixture
def ada(workspace):
    return people.person("ada", "admin", workspace)


@pytest.fixture
def typed(monkeypatch):
    def give(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return give


def test_a_second_store_replaces_the_value(ring):
    services.store_secret(by=ALICE, name="orders/token", value="first")
    services.store_secret(by=ALICE, name="orders/token", value=CANARY)

    assert stored() == f"orders/token {CANARY}"


def test_a_name_that_something_else_owns_is_refused(ring):
    services.put(by=ALICE, name="provider.x.key", purpose="provider:x", value="key")

    with pytest.raises(Conflict, match="change it there"):
        services.store_secret(by=ALICE, name="provider.x.key", value="mine")


@pytest.mark.parametrize("name", ["", "/x", "a b", "x" * 121, "a\n", "ü", "--help"])
def test_what_is_no_name_is_refused(ring, name):
    with pytest.raises(Invalid, match="cannot be stored"):
        services.store_secret(by=ALICE, name=name, value="v")


def test_half_a_character_is_refused_and_not_half_stored(ring):
    with pytest.raises(Invalid):
        services.store_secret(by=ALICE, name="orders/token", value="a\ud800")

    assert not Secret.objects.exists()


def test_what_was_entered_elsewhere_is_tried_out_by_the_list(ring, monkeypatch):
    """A value that came in by a provider's page, or by `config set`."""
    verdicts = [ports.Tested(ok=False, problem="401"), ports.Tested(ok=True)]
    place = ports.Place(used_by="provider x", test=lambda: verdicts.pop(0))
    monkeypatch.setattr(ports, "_places", [lambda purpose, secret_id: place])
    row = services.put(by=ALICE, name="x", purpose="p", value="old")
    Secret.objects.update(lost_at=row.stored_at, unreadable_since=row.stored_at)
    services.put(by=ALICE, name="x", purpose="p", value="new")
    assert [each.state for each in services.checklist()] == ["entered"]

    tried = [services.retest_entered(by=ALICE)[0] for _ in range(2)]

    told = [(each.state, each.problem) for each in tried]
    assert told == [("refused", "401"), ("ok", "")]


def test_the_page_takes_it_and_shows_it_never(ring, client, ada):
    client.force_login(ada)
    form = {"name": "orders/token", "value": CANARY}

    page = client.post(reverse("vault:act", args=["store"]), form, follow=True)

    assert stored() == f"orders/token {CANARY}"
    assert "orders/token is stored" in page.content.decode()
    assert CANARY not in page.content.decode()


def test_the_page_removes_it_with_a_reason(ring, client, ada):
    client.force_login(ada)
    told = services.store_secret(by=ALICE, name="orders/token", value=CANARY)
    form = {"secret": str(told.id), "reason": "orders moved"}

    client.post(reverse("vault:act", args=["forget"]), form)

    assert not Secret.objects.exists()
    assert Event.objects.get(type="vault.deleted").reason == "orders moved"


def test_the_api_takes_it_and_answers_without_it(ring, client, workspace):
    system = access.system_principal()
    _, raw = access.issue_token(
        by=system,
        principal=system,
        name="t",
        scopes=["vault:write"],
        held=frozenset({"*"}),
    )

    answer = client.post(
        "/api/v1/vault/secrets",
        json.dumps({"name": "orders/token", "value": CANARY}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {raw}"},
    )

    assert (answer.status_code, stored()) == (201, f"orders/token {CANARY}")
    assert CANARY not in answer.content.decode()


def test_the_command_reads_it_from_standard_input(ring, typed, capsys):
    typed(f"{CANARY}\n")

    call_command("vault", "put", "orders/token", "--json")

    told = json.loads(capsys.readouterr().out)
    assert (told["used_by"], stored()) == ("no extension", f"orders/token {CANARY}")


def test_the_command_forgets_it(ring, typed, capsys):
    typed(CANARY)
    call_command("vault", "put", "orders/token")

    call_command("vault", "forget", "orders/token", "--reason", "not needed")

    assert "removed for good" in capsys.readouterr().out
    with pytest.raises(CommandError, match="no secret named"):
        call_command("vault", "forget", "orders/token", "--reason", "again")
