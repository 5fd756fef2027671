"""Shapes of the vault in the API. What is secret goes in and never comes out,
except a new recovery kit, once.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field, SecretStr

from apps.common.schemas import In, Out
from apps.vault.services import LONGEST_VALUE


class KeyOut(Out):
    kid: str
    in_ring: bool
    first: bool
    encryptions: int
    is_retired: bool
    backup_proved_at: datetime | None


class ProgressOut(Out):
    kind: str
    state: str
    total: int
    remaining: int
    unreadable: int


class VaultOut(Out):
    state: str
    reason: str
    detail: str
    seal_epoch: int
    keys: list[KeyOut]
    secrets: int
    unreadable: int


class SecretOut(Out):
    id: UUID
    name: str
    purpose: str
    fingerprint: str
    stored_at: datetime
    unreadable_since: datetime | None


class SecretPage(Out):
    items: list[SecretOut]
    next_cursor: str


class EntryOut(Out):
    id: UUID
    name: str
    purpose: str
    used_by: str
    page: str
    command: str
    state: str
    problem: str
    is_testable: bool
    instead: str


class PreviewOut(Out):
    to_kid: str
    rows_by_kid: dict[str, int]
    rows: int
    batches: int
    unreadable: list[str]


class ReasonIn(In):
    reason: str = Field("", max_length=300)


class SecretIn(In):
    name: str = Field(max_length=120)
    value: SecretStr = Field(max_length=LONGEST_VALUE)


class KeyKitOut(Out):
    recipient: str
    form: str
    opens: int
    proved_at: datetime | None


class ValueIn(In):
    value: SecretStr = Field(max_length=LONGEST_VALUE)


class KeptIn(In):
    kept: SecretStr = Field(max_length=8000)


class KitIn(In):
    form: Literal["offline", "shares"]


class KitOut(Out):
    recipient: str
    form: str
    lines: list[str]


class ProvedOut(Out):
    proved: str


class CountOut(Out):
    count: int
