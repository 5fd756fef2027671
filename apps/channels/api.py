"""Channels through the API: accounts, who is let in, what goes out."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from apps.access.models import Principal
from apps.access.policies import caller
from apps.access.queries import workspaces_of
from apps.channels import queries, services
from apps.channels.models import OutboxState
from apps.channels.schemas import (
    AccountIn,
    AccountList,
    AccountOut,
    BotIn,
    CodeIn,
    IdentityIn,
    IdentityOut,
    IdentityPage,
    OutboxOut,
    OutboxPage,
    PairingOut,
    PairingPage,
    StateIn,
    account_shown,
    identity_shown,
    outbox_shown,
    pairing_shown,
)
from apps.common.errors import FieldProblem, Invalid, NotFound
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs

router = Router(tags=["channels"], by_alias=True)


@router.get(
    "/channels",
    response={200: AccountList} | PROBLEMS,
    operation_id="listChannelAccounts",
)
@needs("channels:read")
def list_accounts(request: HttpRequest) -> dict[str, Any]:
    """List the accounts with the health of hearing and of sending."""
    found = queries.accounts(visible_to=_by(request)).select_related("workspace")
    rows = found[: queries.MOST_BOTS]
    return {"items": [account_shown(queries.health(row)) for row in rows]}


@router.post(
    "/channels", response={200: AccountOut} | PROBLEMS, operation_id="saveChannelBot"
)
@needs("channels:write", "admin")
def save_bot(request: HttpRequest, body: BotIn) -> dict[str, Any]:
    """Open a bot's account, or give it another token, which goes to the vault."""
    by = _by(request)
    mine = workspaces_of(by)
    if body.workspace:
        mine = mine.filter(slug=body.workspace)
    workspace = mine.first()
    if workspace is None:
        raise NotFound("There is no such workspace, or it is not yours.")
    saved = services.save_bot(
        by=by,
        workspace=workspace,
        kind=body.kind,
        slug=body.slug,
        token=body.token.get_secret_value(),
    )
    return account_shown(queries.health(saved))


@router.get(
    "/channels/pairings",
    response={200: PairingPage} | PROBLEMS,
    operation_id="listPairingRequests",
)
@needs("channels:read")
def list_pairings(request: HttpRequest, page: Query[Cursor]) -> dict[str, Any]:
    """List the strangers who wait to be let in."""
    rows, following = cut(queries.pairings(visible_to=_by(request)), page)
    return {"items": [pairing_shown(row) for row in rows], "next_cursor": following}


@router.post(
    "/channels/pairings",
    response={200: PairingOut} | PROBLEMS,
    operation_id="decidePairing",
)
@needs("channels:write")
def decide_pairing(request: HttpRequest, body: CodeIn) -> dict[str, Any]:
    """Let a stranger in by the code that they told, or turn them down."""
    row = services.decide_pairing(
        by=_by(request),
        code=body.code,
        approve=body.approve,
        tier=body.tier,
        username=body.username,
    )
    return pairing_shown(row)


@router.delete(
    "/channels/pairings/{pairing_id}",
    response={200: PairingOut} | PROBLEMS,
    operation_id="refusePairing",
)
@needs("channels:write")
def refuse_pairing(request: HttpRequest, pairing_id: UUID) -> dict[str, Any]:
    """Turn a stranger down; that needs no code."""
    row = services.refuse_pairing(by=_by(request), pairing_id=pairing_id)
    return pairing_shown(row)


@router.get(
    "/channels/identities",
    response={200: IdentityPage} | PROBLEMS,
    operation_id="listChannelIdentities",
)
@needs("channels:read")
def list_identities(request: HttpRequest, page: Query[Cursor]) -> dict[str, Any]:
    """List who was let in, as whom, with which tier."""
    rows, following = cut(queries.identities(visible_to=_by(request)), page)
    return {"items": [identity_shown(row) for row in rows], "next_cursor": following}


@router.post(
    "/channels/identities/{identity_id}",
    response={200: IdentityOut} | PROBLEMS,
    operation_id="updateChannelIdentity",
)
@needs("channels:write")
def update_identity(
    request: HttpRequest, identity_id: UUID, body: IdentityIn
) -> dict[str, Any]:
    """Give a sender another tier, shut them out, or let them in again."""
    by = _by(request)
    services.change_sender(
        by=by, identity_id=identity_id, tier=body.tier, blocked=body.blocked
    )
    row = queries.identities(visible_to=by).filter(id=identity_id).first()
    if row is None:
        raise NotFound("There is no such sender, or they are not yours to see.")
    return identity_shown(row)


@router.get(
    "/channels/outbox",
    response={200: OutboxPage} | PROBLEMS,
    operation_id="listOutbox",
)
@needs("channels:read")
def list_outbox(
    request: HttpRequest, page: Query[Cursor], state: str = ""
) -> dict[str, Any]:
    """List what goes out; `trouble` is what failed or is unknown."""
    by = _by(request)
    if state and state not in (*OutboxState.values, "trouble"):
        expected = ", ".join((*OutboxState.values, "trouble"))
        problem = FieldProblem("state", "unknown", expected)
        raise Invalid("There is no such state.", fields=(problem,))
    rows, following = cut(queries.outbox(visible_to=by, state=state), page)
    return {"items": [outbox_shown(row) for row in rows], "next_cursor": following}


@router.post(
    "/channels/outbox/{message_id}/resend",
    response={200: OutboxOut} | PROBLEMS,
    operation_id="resendMessage",
)
@needs("channels:write")
def resend(request: HttpRequest, message_id: UUID) -> dict[str, Any]:
    """Let a message go out that failed, or of which nobody knows."""
    row = services.resend(by=_by(request), message_id=message_id)
    row.refresh_from_db()
    return outbox_shown(row)


@router.get(
    "/channels/{account_id}",
    response={200: AccountOut} | PROBLEMS,
    operation_id="getChannelAccount",
)
@needs("channels:read")
def get_account(request: HttpRequest, account_id: UUID) -> dict[str, Any]:
    found = queries.get_account(account_id, visible_to=_by(request))
    return account_shown(queries.health(found))


@router.post(
    "/channels/{account_id}",
    response={200: AccountOut} | PROBLEMS,
    operation_id="updateChannelAccount",
)
@needs("channels:write", "admin")
def update_account(
    request: HttpRequest, account_id: UUID, body: AccountIn
) -> dict[str, Any]:
    """Change who is heard, how, and which chats are told of what."""
    by = _by(request)
    account = queries.get_account(account_id, visible_to=by)
    changes = services.Changes(**body.dict())
    saved = services.change_account(by=by, account=account, changes=changes)
    return account_shown(queries.health(saved))


@router.post(
    "/channels/{account_id}/state",
    response={200: AccountOut} | PROBLEMS,
    operation_id="setChannelState",
)
@needs("channels:write")
def set_state(request: HttpRequest, account_id: UUID, body: StateIn) -> dict[str, Any]:
    """Pause an account, or resume it."""
    by = _by(request)
    account = queries.get_account(account_id, visible_to=by)
    services.set_account_state(by=by, account=account, state=body.state)
    found = queries.get_account(account_id, visible_to=by)
    return account_shown(queries.health(found))


def _by(request: HttpRequest) -> Principal:
    return caller(request).principal
