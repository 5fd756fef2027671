"""A bot's token that was lost with its key is entered again and tried out."""

import base64

import pytest

from apps.channels.models import Account
from apps.common.actor import SYSTEM
from apps.vault import services as vault
from tests.fakes.telegram_server import TOKEN

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = (base64.b64encode(bytes([n]) * 4 + bytes(range(28))) for n in (1, 2))


@pytest.fixture
def lost(settings, request):
    """A bot whose token is gone with the key, and the line of the checklist."""
    settings.POLAR_VAULT_KEY, settings.POLAR_VAULT_KEYS = "", f"k1:{OLD.decode()}"
    bot = request.getfixturevalue("bot")
    settings.POLAR_VAULT_KEYS = f"k2:{NEW.decode()}"
    vault.accept_loss(by=SYSTEM, reason="gone")
    Account.objects.filter(id=bot.id).update(trouble="no token", heard_at=None)
    (entry,) = vault.checklist()
    return entry


def test_checklist_names_the_account_and_its_page(lost):
    account = Account.objects.get()

    assert (lost.used_by, lost.state) == ("telegram account telegram", "missing")
    assert lost.page == f"/channels/{account.id}/"


def test_right_token_is_good_and_no_update_is_taken_from_the_listener(lost, telegram):
    telegram.updates = [{"update_id": 1}]

    told = vault.reenter(by=SYSTEM, secret_id=lost.id, value=TOKEN)

    assert (told.state, told.problem) == ("ok", "")
    assert "getUpdates" not in [name for name, _ in telegram.calls]
    assert Account.objects.get().trouble == ""


def test_wrong_token_is_refused_by_the_vendor_and_named(lost, telegram):
    told = vault.reenter(by=SYSTEM, secret_id=lost.id, value=f"{TOKEN[:-2]}zz")

    assert told.state == "refused"
    assert told.problem
