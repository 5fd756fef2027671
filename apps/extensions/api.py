"""Extensions through the API."""

import base64
import binascii
from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from ninja import Router

from apps.access.policies import caller
from apps.common import canonical
from apps.common.errors import FieldProblem, Invalid, RateLimited
from apps.common.schemas import PROBLEMS, keep_nowhere
from apps.common.scopes import needs

from . import queries, services
from .engine import packages, requests, store
from .models import Certificate, Connection, Extension
from .schemas import (
    CertificateOut,
    ConnectIn,
    ConnectOut,
    DisconnectIn,
    DisconnectOut,
    ExecuteOut,
    ExtensionList,
    ExtensionOut,
    InstallIn,
    LifecycleIn,
    LifecycleOut,
    ReviewIn,
    SyncIn,
)

router = Router(tags=["extensions"], by_alias=True)
#: What an answer to executeExtension may also be, by its status.
_ANSWERS: dict[Any, Any] = dict.fromkeys(
    (200, 202, 402, 404, 409, 422, 429, 502, 503), ExecuteOut
)
_EXECUTE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": requests.SCHEMA}},
    }
}


@router.get(
    "/extensions",
    response={200: ExtensionList} | PROBLEMS,
    operation_id="listExtensionStates",
    url_name="list_extension_states",
)
@needs("extensions:read")
def list_extension_states(request: HttpRequest) -> dict[str, Any]:
    """List every extension with its trust, its state and what it offers."""
    return {"items": [_shown(row) for row in queries.extensions()]}


@router.post(
    "/extensions/skills",
    response={200: ExtensionOut} | PROBLEMS,
    operation_id="installSkill",
)
@needs("extensions:write")
def install_skill(request: HttpRequest, body: InstallIn) -> dict[str, Any]:
    """Take in an Agent Skills package; it waits for a review."""
    auth = caller(request)
    row = services.install_skill(
        by=auth.principal,
        files=_files(body),
        origin=services.Origin(source=body.source, revision=body.revision),
        draft=body.manifest,
    )
    return _shown(row)


@router.post(
    "/extensions/plugins",
    response={200: ExtensionOut} | PROBLEMS,
    operation_id="installPlugin",
)
@needs("extensions:write")
def install_plugin(request: HttpRequest, body: InstallIn) -> dict[str, Any]:
    """Take in a plugin bundle; it waits for a review."""
    auth = caller(request)
    row = services.install_plugin(
        by=auth.principal,
        files=_files(body),
        origin=services.Origin(source=body.source, revision=body.revision),
        draft=body.manifest,
    )
    return _shown(row)


@router.post(
    "/extensions/mcp",
    response={200: ExtensionOut} | PROBLEMS,
    operation_id="syncMcpServer",
)
@needs("extensions:write", "approver")
def sync_mcp_server(request: HttpRequest, body: SyncIn) -> dict[str, Any]:
    """Take in an MCP server, or, without command and url, ask it again."""
    auth = caller(request)
    if not body.command and not body.url:
        known = queries.find_by_name(body.extension_id)
        row = services.sync_mcp_server(
            by=auth.principal, extension_id=known.id, reason=body.reason
        )
        return _shown(row)
    source = body.source or body.url or " ".join(body.command)
    new = services.NewServer(
        extension_id=body.extension_id,
        title=body.title,
        command=tuple(body.command),
        url=body.url,
        env=body.env,
        grants=body.grants,
        limits=body.limits,
        origin=services.Origin(source=source, revision=body.revision),
    )
    row = services.sync_mcp_server(by=auth.principal, new=new, reason=body.reason)
    return _shown(row)


@router.post(
    "/extensions/{extension_id}/review",
    response={200: ExtensionOut} | PROBLEMS,
    operation_id="reviewExtension",
)
@needs("extensions:write", "approver")
def review_extension(
    request: HttpRequest, extension_id: str, body: ReviewIn
) -> dict[str, Any]:
    """Approve or reject exactly the form whose hash is named."""
    auth = caller(request)
    row = services.review_extension(
        by=auth.principal,
        extension_id=queries.find_by_name(extension_id).id,
        verdict=services.Verdict(
            definition_hash=body.definition_hash,
            approve=body.approve,
            trust=body.trust_level,
            reason=body.reason,
            risks=body.risks,
        ),
    )
    return _shown(row)


@router.post(
    "/extensions/{extension_id}/lifecycle",
    response={200: LifecycleOut} | PROBLEMS,
    operation_id="applyExtensionLifecycle",
)
@needs("extensions:write")
def apply_extension_lifecycle(
    request: HttpRequest, extension_id: str, body: LifecycleIn
) -> dict[str, Any]:
    """Enable, disable, revoke, roll back, remove, trust again or configure.

    Disabling and revoking end what runs and answer with a signed certificate.
    """
    auth = caller(request)
    found = services.apply_lifecycle(
        by=auth.principal,
        extension_id=queries.find_by_name(extension_id).id,
        order=services.Order(
            operation=body.operation,
            reason=body.reason,
            definition_hash=body.definition_hash,
            changes=body.changes,
        ),
    )
    shown = None if found is None else _certificate(found)
    row = queries.find_by_name(extension_id)
    return {"extension": _shown(row), "certificate": shown}


@router.post(
    "/extensions/{extension_id}/connect",
    response={200: ConnectOut} | PROBLEMS,
    operation_id="connectExtension",
)
@needs("extensions:write", "admin")
def connect_extension(
    request: HttpRequest, extension_id: str, body: ConnectIn, response: HttpResponse
) -> dict[str, Any]:
    """Begin to connect an MCP server that asks for OAuth.

    The administrator whose token this is opens the URL, signed in to the desk.
    """
    auth = caller(request)
    order = services.ConnectOrder(
        part=body.part,
        redirect_uri=request.build_absolute_uri(reverse("extensions:connected")),
        client_id=body.client_id,
        client_secret=body.client_secret,
    )
    row = queries.find_by_name(extension_id)
    asked = services.connect_extension(
        by=auth.principal, extension_id=row.id, order=order
    )
    keep_nowhere(response)  # the URL carries the state
    return {**asdict(asked), "authorization_url": asked.url}


@router.post(
    "/extensions/{extension_id}/disconnect",
    response={200: DisconnectOut} | PROBLEMS,
    operation_id="disconnectExtension",
)
@needs("extensions:write", "admin")
def disconnect_extension(
    request: HttpRequest, extension_id: str, body: DisconnectIn
) -> dict[str, Any]:
    """Forget the tokens of an MCP server and revoke them where that is offered."""
    auth = caller(request)
    done = services.disconnect_extension(
        by=auth.principal,
        extension_id=queries.find_by_name(extension_id).id,
        part=body.part,
        reason=body.reason,
    )
    shown = _shown(queries.find_by_name(extension_id))
    return {"extension": shown, "problem": done.problem}


@router.get(
    "/extensions/{extension_id}/certificates",
    response={200: list[CertificateOut]} | PROBLEMS,
    operation_id="listTerminationCertificates",
)
@needs("extensions:read")
def list_certificates(request: HttpRequest, extension_id: str) -> list[dict[str, Any]]:
    """List what each stop of an extension could confirm, newest first."""
    row = queries.find_by_name(extension_id)
    return [_certificate(each) for each in row.certificates.order_by("-id")[:500]]


@router.post(
    "/extensions/execute",
    response=_ANSWERS | {400: PROBLEMS[400], 401: PROBLEMS[401], 403: ExecuteOut},
    operation_id="executeExtension",
    openapi_extra=_EXECUTE_BODY,
)
@needs("extensions:execute")
def execute_extension(request: HttpRequest) -> HttpResponse:
    """Run one capability of one extension, within a scope.

    The body is read only once the caller is known and holds the scope.
    """
    auth = caller(request)
    body = canonical.read_body(request.body)
    answer = services.execute_extension(auth=auth, body=body)
    response = JsonResponse(_answered(answer, body), status=answer.http_status)
    if isinstance(answer.error, RateLimited):
        response["Retry-After"] = str(answer.error.retry_after_seconds)
    return response


def _answered(answer: services.Executed, body: Any) -> dict[str, Any]:
    asked = body if isinstance(body, dict) else {}
    names = ("extensionId", "extensionType", "capabilityId", "sessionId", "userId")
    shown = {name: str(asked.get(name) or "")[:160] for name in names}
    shown |= {
        "status": answer.status,
        "trustLevel": answer.trust_level,
        "traceId": answer.trace_id,
        "callId": answer.call_id,
    }
    if answer.status == "completed":
        done = {"replayed": answer.is_replayed, "degraded": answer.is_degraded}
        return {**shown, **done, "output": answer.output}
    if answer.status == "approval_required":
        return {**shown, "approvalId": answer.approval_id}
    return {**shown, "error": _error(answer), "minimalPayload": answer.example or None}


def _error(answer: services.Executed) -> dict[str, Any]:
    error = answer.error
    assert error is not None
    hidden = ("call_id", "trace_id", "reason_code")
    facts = {name: error.facts[name] for name in error.facts if name not in hidden}
    return {
        "code": error.code,
        "message": error.detail,
        "reasonCode": error.reason_code,
        "details": [field.as_dict() for field in error.fields],
        "facts": canonical.loads(canonical.arguments(_plain(facts))),
    }


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    kinds = (str, int, float, bool, list, dict, type(None))
    return {
        name: value if isinstance(value, kinds) else str(value)
        for name, value in facts.items()
    }


def _files(body: InstallIn) -> store.Files:
    try:
        data = base64.b64decode(body.archive, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(
            "The archive is not base64.",
            fields=(FieldProblem("archive", "not base64", "a zip as base64"),),
        ) from error
    return packages.from_zip(data)


def _certificate(row: Certificate) -> dict[str, Any]:
    return {
        "id": row.id,
        "digest": row.digest,
        "unconfirmed": row.unconfirmed,
        "body": canonical.loads(row.body),
        "signature": row.signature,
        "signer": row.signer,
        "created_at": row.created_at,
    }


def _connection(row: Connection) -> dict[str, Any]:
    return {
        "part": row.part,
        "server_url": row.server_url,
        "status": row.shown_status,
        "problem": row.problem,
        "issuer": row.authority.get("issuer", ""),
        "scope": row.scope,
        "expires_at": row.expires_at,
        "connected_by": row.connected_by,
        "connected_at": row.connected_at,
    }


def _shown(row: Extension) -> dict[str, Any]:
    return {
        "id": row.id,
        "extension_id": row.ext_id,
        "extension_type": row.type,
        "title": row.title,
        "trust_level": row.trust,
        "trust_reason": row.trust_reason,
        "trust_by": row.trust_by,
        "trust_at": row.trust_at,
        "lifecycle": row.lifecycle,
        "version": row.version,
        "definition_hash": row.definition_hash,
        "reviewed_hash": row.reviewed_hash,
        "source": row.source,
        "revision": row.revision,
        "package_sha256": row.package,
        "grants": row.grants,
        "limits": row.limits,
        "not_run": row.not_run,
        "degraded": row.accepts_degraded,
        "degraded_reason": row.degraded_reason,
        "capabilities": [each for each in row.capabilities.all() if each.is_current],
        "connections": [_connection(each) for each in row.connections.all()],
    }
