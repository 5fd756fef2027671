"""Tells the vault where a bot's token is used, entered, and tried out."""

from uuid import UUID

from django.urls import reverse

from apps.access import services as access
from apps.channels.engine import outbox
from apps.channels.models import Account
from apps.channels.ports import Proof, Update, transports
from apps.channels.services.accounts import PURPOSE
from apps.common import clock
from apps.common.errors import PolarError
from apps.gateway import services as gateway
from apps.gateway.ports import (
    READ,
    CallKind,
    CallRequest,
    EffectClass,
    Permit,
    Result,
)
from apps.vault.ports import Place, Tested


def place_of_token(purpose: str, secret_id: UUID) -> Place | None:
    """Find the account whose token this is."""
    if not purpose.startswith(PURPOSE):
        return None
    account = Account.objects.filter(secret_id=secret_id).first()
    if account is None:
        return None
    return Place(
        used_by=f"{account.kind} account {account.slug}",
        page=reverse("channels:account", args=[account.id]),
        test=lambda: _tested(account.id),
    )


def _tested(account_id: UUID) -> Tested:
    """Ask the vendor who the token's bot is, and hear nothing: no event is taken
    from the listener that is at work."""
    account = Account.objects.get(id=account_id)

    def perform(permit: Permit) -> Result:
        permit.spend({"account": account.slug})
        with outbox.line_of(account, "try out a token") as line:
            transports.get(account.kind).listen(line, _keep, _at_once, _note)
        return Result({})

    try:
        gateway.call(
            CallRequest(
                kind=CallKind.RECEIVE,
                capability=f"{account.kind}.listen",
                principal=access.system_principal(),
                workspace_id=account.workspace_id,
                arguments={"account": account.slug},
                perform=perform,
                effect_class=EffectClass.PURE,
                risk=READ,
                needs_secret=True,
            )
        )
    except PolarError as error:
        return Tested(ok=False, problem=error.detail)
    # What was refused before is over; its listener begins anew.
    Account.objects.filter(id=account.id).update(
        refused_at=None, trouble="", awaited_since=clock.now()
    )
    return Tested(ok=True)


def _keep(update: Update) -> None:
    raise AssertionError(f"nothing is heard while a token is tried out: {update.kind}")


def _at_once() -> bool:
    return True


def _note(proof: Proof) -> None:
    """The vendor knows the token; that is all that was asked."""
