"""A bot on a fake Telegram, people who were let in, and runs carried at once."""

import pytest

from apps.access import services as access
from apps.agents import services as agents
from apps.channels import services
from apps.channels.models import Account, ChannelIdentity
from apps.channels.ports import ConversationKey, Envelope, Update
from apps.common import clock
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.runs import services as runs
from apps.runs.models import Run, State
from tests.fakes.telegram_server import TOKEN, telegram_server


@pytest.fixture
def telegram():
    with telegram_server() as server:
        yield server


@pytest.fixture
def bot(workspace, telegram, settings, tmp_path):
    settings.POLAR_WITNESS_DIR = tmp_path / "witness"
    settings.POLAR_WITNESS_DIR.mkdir()
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    agents.install_default_profiles(workspace=workspace, by=system)
    providers.sync_from_env()
    account = services.save_bot(
        by=system, workspace=workspace, kind="telegram", slug="telegram", token=TOKEN
    )
    Account.objects.filter(id=account.id).update(settings=telegram.settings)
    return Account.objects.select_related("workspace").get(id=account.id)


@pytest.fixture
def let_in(bot):
    """Let a vendor's user in as a person."""

    def let(external_user, user, tier="operator"):
        return ChannelIdentity.objects.create(
            account=bot,
            external_user=str(external_user),
            display=user.username,
            principal=access.principal_for_user(user=user),
            tier=tier,
        )

    return let


def update(number, text, *, user="7", chat="", **more):
    """An event as a transport reads it."""
    envelope = Envelope(
        user_id=user,
        channel="telegram",
        message_id=str(number + 1000),
        message_text=text,
        timestamp=clock.now(),
        attachments=more.pop("attachments", ()),
        metadata=more.pop("metadata", {}),
    )
    values = {
        "kind": "message",
        "is_direct": True,
        "key": ConversationKey(chat or user, reply_to=envelope.message_id),
        "cursor": number + 1,
        **more,
    }
    return Update(external_id=str(number), envelope=envelope, **values)


def carry(*kinds, rounds=12):
    """Carry what is queued, as a worker would; returns how many runs."""
    carried = 0
    for _ in range(rounds):
        due = Run.objects.filter(state=State.QUEUED, due_at__lte=clock.now())
        due = due.filter(kind__in=kinds) if kinds else due
        ids = list(due.order_by("due_at", "id").values_list("id", flat=True))
        if not ids:
            break
        carried += sum(runs.execute(run_id) for run_id in ids)
    return carried
