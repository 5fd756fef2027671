"""What the API takes and shows of channels. No token and no message text goes out."""

from datetime import datetime
from typing import Any
from uuid import UUID

from ninja import Field
from pydantic import SecretStr

from apps.channels.models import Account, ChannelIdentity, OutboxMessage, PairingRequest
from apps.channels.queries import Health
from apps.common.schemas import In, Out


class BotIn(In):
    kind: str = Field(max_length=16)
    slug: str = Field(max_length=40)
    #: Slack's parts are one value, parted by spaces.
    token: SecretStr = Field(max_length=1200)
    workspace: str = ""


class AccountIn(In):
    """What is to be changed; a field that is left out stays as it is."""

    allowed_senders: list[str] | None = Field(None, max_length=200)
    allowed_chats: list[str] | None = Field(None, max_length=200)
    per_minute: int | None = Field(None, ge=1, le=600)
    alerts_to: str | None = Field(None, max_length=80)
    approvals_to: str | None = Field(None, max_length=80)
    canary_chat: str | None = Field(None, max_length=80)
    hears_by: str | None = Field(None, max_length=8)
    public_url: str | None = Field(None, max_length=200)


class StateIn(In):
    state: str = Field(max_length=16)


class CodeIn(In):
    """The code that the stranger told, and who they are here."""

    code: str = Field(min_length=8, max_length=8)
    approve: bool = True
    tier: str = Field("public", max_length=10)
    username: str = Field("", max_length=150)


class IdentityIn(In):
    tier: str | None = Field(None, max_length=10)
    blocked: bool | None = None


class AccountOut(Out):
    id: UUID
    kind: str
    slug: str
    workspace: str
    state: str
    source: str
    #: ok | down | unknown | paused | none
    receiving: str
    #: ok | down | held | unknown | paused | none
    sending: str
    bot_name: str
    hears_by: str
    heard_at: datetime | None
    sent_at: datetime | None
    hold_until: datetime | None
    pending: int | None
    trouble: str
    allowed_senders: list[str]
    allowed_chats: list[str]
    per_minute: int
    alerts_to: str
    approvals_to: str
    canary_chat: str
    canary_trouble: str


class AccountList(Out):
    items: list[AccountOut]


class PairingOut(Out):
    """The code is not shown: the stranger tells it."""

    id: UUID
    account: str
    external_user: str
    display: str
    state: str
    created_at: datetime
    expires_at: datetime


class PairingPage(Out):
    items: list[PairingOut]
    next_cursor: str


class IdentityOut(Out):
    id: UUID
    account: str
    external_user: str
    display: str
    principal: str
    tier: str
    state: str


class IdentityPage(Out):
    items: list[IdentityOut]
    next_cursor: str


class OutboxOut(Out):
    id: UUID
    account: str
    chat: str
    topic: str
    state: str
    attempts: int
    error: str
    created_at: datetime
    due_at: datetime
    sent_at: datetime | None
    turn_id: UUID | None
    approval_id: UUID | None


class OutboxPage(Out):
    items: list[OutboxOut]
    next_cursor: str


def account_shown(health: Health) -> dict[str, Any]:
    account: Account = health.account
    names = set(AccountOut.model_fields) - {"workspace", "receiving", "sending"}
    return {name: getattr(account, name) for name in names} | {
        "workspace": account.workspace.slug,
        "receiving": health.receiving,
        "sending": health.sending,
    }


def pairing_shown(row: PairingRequest) -> dict[str, Any]:
    return _with_account(PairingOut, row)


def identity_shown(row: ChannelIdentity) -> dict[str, Any]:
    return _with_account(IdentityOut, row) | {"principal": row.principal.label}


def outbox_shown(row: OutboxMessage) -> dict[str, Any]:
    return _with_account(OutboxOut, row)


def _with_account(shape: type[Out], row: Any) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in shape.model_fields}
    return shown | {"account": row.account.slug}
