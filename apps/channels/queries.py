"""Reads of accounts. Never writes."""

from django.conf import settings
from django.db.models import QuerySet

from apps.access.models import Principal, Workspace
from apps.channels.models import Account, AccountKind

WEB_SLUG = "web"


def accounts(*, visible_to: Principal) -> QuerySet[Account]:
    return Account.objects.visible_to(visible_to).order_by("slug", "id")


def find_web_account(*, workspace: Workspace) -> Account | None:
    found = Account.objects.filter(workspace=workspace, kind=AccountKind.WEB)
    return found.order_by("id").first()


def find_person(username: str) -> Principal | None:
    """Return a person by the name they sign in with."""
    found: Principal | None = Principal.objects.filter(user__username=username).first()
    return found


def tokens_of_the_environment() -> list[tuple[str, str]]:
    """Return the kind and the secret of each bot that the environment names.

    Slack's three are one secret, told apart by how they begin.
    """
    bot, app, signing = (
        settings.SLACK_BOT_TOKEN.strip(),
        settings.SLACK_APP_TOKEN.strip(),
        settings.SLACK_SIGNING_SECRET.strip(),
    )
    hears = bot and (app or signing)
    slack = " ".join(part for part in (bot, app, signing) if part) if hears else ""
    return [
        (AccountKind.TELEGRAM, settings.TELEGRAM_BOT_TOKEN),
        (AccountKind.SLACK, slack),
    ]
