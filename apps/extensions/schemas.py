"""What the API shows and takes of extensions. Public names are camelCase."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from apps.common.schemas import In, Out

Reason = Field(min_length=1, max_length=300)


class CapabilityOut(Out):
    capability_id: str
    alias: str
    title: str
    description: str
    part: str
    risk_level: str
    side_effects: str
    data_egress: str
    risk_by: str
    risk_reason: str


class NotRunOut(Out):
    name: str
    why: str


class ConnectionOut(Out):
    """How an extension stands with an authorization server; never a token."""

    part: str
    server_url: str
    status: str
    problem: str
    issuer: str
    scope: str
    expires_at: datetime | None
    connected_by: str
    connected_at: datetime | None


class ExtensionOut(Out):
    id: UUID
    extension_id: str
    extension_type: str
    title: str
    trust_level: str
    trust_reason: str
    trust_by: str
    trust_at: datetime | None
    lifecycle: str
    version: str
    definition_hash: str
    reviewed_hash: str
    source: str
    revision: str
    package_sha256: str
    grants: dict[str, Any]
    limits: dict[str, Any]
    not_run: list[NotRunOut]
    degraded: bool
    degraded_reason: str
    capabilities: list[CapabilityOut]
    connections: list[ConnectionOut]


class ExtensionList(Out):
    items: list[ExtensionOut]


class InstallIn(In):
    """A package: a zip of at most 700 KiB, as base64."""

    archive: str = Field(min_length=1, max_length=1_000_000)
    source: str = Field(min_length=1, max_length=500)
    revision: str = Field("", max_length=120)
    #: A drafted manifest; validated here, approved with the review.
    manifest: dict[str, Any] | None = None


class SyncIn(In):
    extension_id: str = Field(min_length=1, max_length=64)
    title: str = Field("", max_length=160)
    command: list[str] = Field(default_factory=list, max_length=64)
    url: str = Field("", max_length=500)
    env: dict[str, str] = Field(default_factory=dict)
    grants: dict[str, Any] = Field(default_factory=dict)
    limits: dict[str, Any] = Field(default_factory=dict)
    source: str = Field("", max_length=500)
    revision: str = Field("", max_length=120)
    reason: str = Reason


class ReviewIn(In):
    definition_hash: str = Field(min_length=64, max_length=64)
    approve: bool
    trust_level: Literal["sandboxed", "reviewed", "trusted"] = "sandboxed"
    reason: str = Reason
    risks: dict[str, dict[str, Any]] = Field(default_factory=dict, max_length=500)


class LifecycleIn(In):
    operation: Literal[
        "enable", "disable", "revoke", "rollback", "remove", "retrust", "configure"
    ]
    reason: str = Reason
    definition_hash: str = Field("", max_length=64)
    changes: dict[str, Any] = Field(default_factory=dict)


class ConnectIn(In):
    part: str = Field("", max_length=80)
    client_id: str = Field("", max_length=500)
    client_secret: str = Field("", max_length=1000)


class ConnectOut(Out):
    """Where the person whose token this is goes, signed in to the desk."""

    authorization_url: str
    issuer: str
    scope: str
    expires_at: datetime


class DisconnectIn(In):
    part: str = Field("", max_length=80)
    reason: str = Reason


class DisconnectOut(Out):
    extension: ExtensionOut
    #: Why its tokens were not revoked there; "" when they were.
    problem: str


class CertificateOut(Out):
    id: UUID
    digest: str
    unconfirmed: int
    body: dict[str, Any]
    signature: str
    signer: str
    created_at: datetime


class LifecycleOut(Out):
    extension: ExtensionOut
    certificate: CertificateOut | None = None


class ErrorOut(Out):
    code: str
    message: str
    reason_code: str = ""
    details: list[dict[str, Any]] = Field(default_factory=list)
    facts: dict[str, Any] = Field(default_factory=dict)


class ExecuteOut(Out):
    status: str
    extension_id: str
    extension_type: str
    capability_id: str
    session_id: str
    user_id: str
    trust_level: str
    trace_id: str
    call_id: str
    approval_id: str = ""
    replayed: bool = False
    #: It ran without isolation, as an operator had accepted.
    degraded: bool = False
    output: Any = None
    error: ErrorOut | None = None
    minimal_payload: dict[str, Any] | None = None
