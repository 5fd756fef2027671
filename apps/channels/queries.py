"""Reads of accounts. Never writes."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from apps.access.models import Principal, Workspace
from apps.channels.models import (
    Account,
    AccountKind,
    AccountState,
    OutboxMessage,
    OutboxState,
    PairingRequest,
    PairingState,
)
from apps.common import clock

WEB_SLUG = "web"
#: A channel that proved nothing for so long is down.
DEAF_AFTER = timedelta(seconds=120)
MOST_LISTED = 50


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


def receiving(account: Account) -> str:
    """Say whether an account is proved to hear: an open socket proves nothing.

    Shape: ok | down | unknown (nothing heard yet) | paused | none (the web).
    """
    if account.state == AccountState.PAUSED:
        return "paused"
    if account.secret_id is None:
        return "none"
    if account.heard_at is None:
        return "down" if account.trouble else "unknown"
    return "ok" if clock.now() - account.heard_at <= DEAF_AFTER else "down"


def overview(*, visible_to: Principal) -> dict[str, list[dict[str, Any]]]:
    """Return accounts, strangers who wait and messages in trouble. Shape: JSON.

    A pairing's code is not shown: the stranger tells it.
    """
    mine = accounts(visible_to=visible_to)
    waiting = PairingRequest.objects.filter(
        account__in=mine, state=PairingState.PENDING, expires_at__gt=clock.now()
    )
    trouble = OutboxMessage.objects.filter(
        account__in=mine, state__in=[OutboxState.FAILED, OutboxState.UNKNOWN]
    )
    return {
        "accounts": [
            {
                "slug": each.slug,
                "kind": each.kind,
                "state": each.state,
                "receiving": receiving(each),
                "heardAt": each.heard_at.isoformat() if each.heard_at else "",
                "sentAt": each.sent_at.isoformat() if each.sent_at else "",
                "trouble": each.trouble,
            }
            for each in mine[:MOST_LISTED]
        ],
        "pairings": [
            {"sender": each.external_user, "display": each.display}
            for each in waiting.order_by("id")[:MOST_LISTED]
        ],
        "trouble": [
            {"id": str(each.id), "state": each.state, "error": each.error}
            for each in trouble.order_by("-id")[:MOST_LISTED]
        ],
    }
