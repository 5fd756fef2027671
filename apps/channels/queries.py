"""Reads of accounts. Never writes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from apps.access.models import Principal, Workspace
from apps.channels.models import (
    Account,
    AccountKind,
    AccountState,
    ChannelIdentity,
    HearsBy,
    InboxMessage,
    OutboxMessage,
    PairingRequest,
    PairingState,
)
from apps.common import clock
from apps.common.errors import NotFound

WEB_SLUG = "web"
#: A channel that proved nothing for so long is down.
DEAF_AFTER = timedelta(seconds=60)
#: A canary's word that is not heard within this was said to the deaf.
CANARY_BACK_WITHIN = timedelta(seconds=40)
MOST_LISTED = 50
MOST_BOTS = 200
NEWEST_SHOWN = 10
EVER = datetime(1970, 1, 1, tzinfo=UTC)


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

    A vendor that only calls us when there is something proves nothing by silence:
    then it is unknown. Shape: ok | down | unknown | paused | none (the web).
    """
    if account.state == AccountState.PAUSED:
        return "paused"
    if account.secret_id is None:
        return "none"
    if account.refused_at is not None:
        return "down"
    now = clock.now()
    silent_since = account.canary_waits_since
    if silent_since is not None and now - silent_since > CANARY_BACK_WITHIN:
        return "down"
    if account.canary_trouble:
        return "unknown"
    if account.heard_at is not None and now - account.heard_at <= DEAF_AFTER:
        return "ok"
    if now - max(account.awaited_since, account.heard_at or EVER) <= DEAF_AFTER:
        return "unknown"
    return "unknown" if _is_silent_by_nature(account) else "down"


def _is_silent_by_nature(account: Account) -> bool:
    """Slack's events by HTTP: nothing tells that they would come."""
    is_called = account.hears_by == HearsBy.HOOK and account.kind == AccountKind.SLACK
    return is_called and not account.trouble


def sending(account: Account) -> str:
    """Say whether messages go out.

    Shape: ok | down | held | unknown | paused | none.
    """
    hearing = receiving(account)
    if hearing in ("paused", "none"):
        return hearing
    if account.refused_at is not None:
        return "down"
    if account.hold_until is not None and account.hold_until > clock.now():
        return "held"
    return "ok" if account.sent_at is not None else "unknown"


def bots() -> QuerySet[Account]:
    """Accounts of vendors that somebody expects to be heard."""
    return Account.objects.active().filter(secret__isnull=False).order_by("id")


def down() -> tuple[list[Account], int]:
    """Return the channels that are down, and how many there are in all."""
    every = list(bots()[:MOST_BOTS])
    return [each for each in every if receiving(each) == "down"], len(every)


def alert_accounts() -> QuerySet[Account]:
    """Accounts that name a chat to be told of alerts."""
    named = bots().exclude(alerts_to="")
    return named.select_related("workspace")


def get_account(account_id: UUID, *, visible_to: Principal) -> Account:
    """Raises: NotFound."""
    found = accounts(visible_to=visible_to).select_related("workspace")
    account: Account | None = found.filter(id=account_id).first()
    if account is None:
        raise NotFound("There is no such account, or it is not yours to see.")
    return account


def pairings(*, visible_to: Principal) -> QuerySet[PairingRequest]:
    """Strangers who wait, newest first."""
    return PairingRequest.objects.filter(
        account__in=Account.objects.visible_to(visible_to),
        state=PairingState.PENDING,
        expires_at__gt=clock.now(),
    ).select_related("account")


def identities(*, visible_to: Principal) -> QuerySet[ChannelIdentity]:
    return ChannelIdentity.objects.filter(
        account__in=Account.objects.visible_to(visible_to)
    ).select_related("account", "principal")


def outbox(*, visible_to: Principal, state: str = "") -> QuerySet[OutboxMessage]:
    """What went out and what waits; `trouble` is what a person has to look at."""
    found = OutboxMessage.objects.filter(
        account__in=Account.objects.visible_to(visible_to)
    ).select_related("account")
    if state == "trouble":
        return found.in_trouble()
    return found.filter(state=state) if state else found


@dataclass(frozen=True, slots=True)
class Health:
    """One account and how it is."""

    account: Account
    receiving: str
    sending: str


def health(account: Account) -> Health:
    return Health(account, receiving(account), sending(account))


def newest_heard(account: Account) -> list[InboxMessage]:
    """The newest events of an account, as proof that it hears. No text is shown."""
    found = InboxMessage.objects.filter(account=account).order_by("-id")
    return list(found[:NEWEST_SHOWN])


def overview(*, visible_to: Principal) -> dict[str, list[dict[str, Any]]]:
    """Return accounts, strangers who wait and messages in trouble. Shape: JSON.

    A pairing's code is not shown: the stranger tells it.
    """
    mine = accounts(visible_to=visible_to)
    waiting = PairingRequest.objects.filter(
        account__in=mine, state=PairingState.PENDING, expires_at__gt=clock.now()
    )
    trouble = OutboxMessage.objects.in_trouble().filter(account__in=mine)
    return {
        "accounts": [
            {
                "slug": each.slug,
                "kind": each.kind,
                "state": each.state,
                "receiving": receiving(each),
                "sending": sending(each),
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
