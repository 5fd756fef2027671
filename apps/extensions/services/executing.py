"""`executeExtension`: one call of one capability, for whoever holds the session.

Invariants: the scope of the caller can only narrow; who is not the session's
principal needs `act_as` for its workspace; every refusal before the gateway leaves
an event under the request's trace id.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, Workspace
from apps.access.policies import Authenticated, check_scope
from apps.access.queries import find_principal, workspaces_of
from apps.audit import services as audit
from apps.common import canonical, ids
from apps.common.errors import (
    ApprovalRequired,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PolarError,
    RateLimited,
)
from apps.common.shapes import problems_of
from apps.extensions import ports, queries
from apps.extensions.engine import requests
from apps.extensions.errors import (
    RequestBroken,
    ToolUnavailable,
    TrustMismatch,
    TypeMismatch,
)
from apps.extensions.models import Capability, Extension, Lifecycle
from apps.gateway import queries as gateway_queries
from apps.gateway.errors import CapabilityDenied
from apps.gateway.ports import Json, Lineage

from .tools import ToolCallRequest, run_tool

#: Of a key without an idempotencyKey: these say which act, the rest is random.
ACT_CHARACTERS = 32
#: Refusals of this request, not of what it asks for.
_OF_THE_REQUEST = frozenset(
    {"scope_invalid", "scope_capability_denied", "constraint_violated"}
)
#: The scope that lets a token act for others in one workspace: act_as:<workspace>.
ACT_AS = "act_as"


@dataclass(slots=True)
class Executed:
    """The answer to one executeExtension, good or bad. Shape: contracts.md."""

    status: str = "failed"
    http_status: int = 200
    trace_id: str = ""
    trust_level: str = ""
    output: Any = None
    approval_id: str = ""
    call_id: str = ""
    is_replayed: bool = False
    is_degraded: bool = False
    error: PolarError | None = None
    example: Json = field(default_factory=dict)


def execute_extension(*, auth: Authenticated, body: Any) -> Executed:
    """Run one capability, or say exactly why not and what would have worked.

    Raises nothing of the tree: a refusal is the answer.
    Again: the same idempotencyKey of the same principal replays its output; without
    one, exactly the same request goes on with the question that it opened.
    Source: docs/decisions/0020-an-approval-is-one-exact-act.md
    """
    given = body.get("traceId") if isinstance(body, dict) else None
    trace_id = str(given) if _is_trace(given) else ids.current_trace_id()
    answer = Executed(trace_id=trace_id or ids.new_trace_id())
    with ids.use_trace(answer.trace_id):
        try:
            _execute(auth, body, answer)
        except ApprovalRequired as asked:
            answer.status, answer.http_status = "approval_required", 202
            answer.approval_id = str(asked.facts.get("approval_id", ""))
            answer.call_id = str(asked.facts.get("call_id", ""))
            answer.error = asked
        except PolarError as error:
            answer.http_status, answer.error = error.http_status, error
            answer.call_id = str(error.facts.get("call_id", ""))
            answer.example = _example(auth, body, error)
            if not answer.call_id:
                _record_refusal(auth, body, error)
    return answer


def _execute(auth: Authenticated, body: Any, answer: Executed) -> None:
    """The order of the refusals is the order of this table of contents."""
    found = requests.problems(body)
    if found:
        raise RequestBroken(
            "The request does not match extension.gateway.execute.request.",
            fields=found,
            schema=requests.SCHEMA_ID,
        )
    session, principal = _act_as(auth, body)
    row = _get_extension(body["extensionId"])
    answer.trust_level = row.trust
    _check_claims(row, body)
    capability = _get_capability(row, body["capabilityId"])
    scope = requests.narrow(body["capabilityScope"], session.scope)
    _check_scope(capability, body["capabilityScope"], scope)
    outcome = run_tool(
        request=ToolCallRequest(
            alias=capability.alias,
            arguments=body["input"],
            principal=principal,
            workspace_id=session.workspace_id,
            lineage=_lineage(auth, body, answer.trace_id),
            scope=scope,
            labels=session.labels,
            idempotency_key=_key(auth, body, capability),
        )
    )
    answer.status, answer.output = "completed", outcome.output
    answer.is_degraded = outcome.is_degraded
    answer.call_id, answer.is_replayed = str(outcome.call_id), outcome.replayed


def _act_as(auth: Authenticated, body: Json) -> tuple[ports.Session, Principal]:
    """Find the session and whose it is. Raises: Denied, saying no more than that."""
    session = queries.find_session(body["sessionId"])
    user = find_principal(body["userId"])
    if session is None or user is None:
        _forbid("The session or the user is not yours.")
    if session.principal_id != user.id:
        _forbid("The session or the user is not yours.")
    if user.id == auth.principal.id:
        return session, user
    workspace = Workspace.objects.get(id=session.workspace_id)
    check_scope(auth, f"{ACT_AS}:{workspace.slug}")
    if not workspaces_of(auth.principal).filter(id=workspace.id).exists():
        _forbid("The session or the user is not yours.")
    return session, user


def _forbid(detail: str) -> NoReturn:
    raise Denied(
        f"{detail} userId and sessionId belong to the token's principal, or the token "
        f"holds {ACT_AS} for their workspace."
    )


def _get_extension(ext_id: str) -> Extension:
    found = Extension.objects.filter(ext_id=ext_id).first()
    gone = (Lifecycle.REMOVED, Lifecycle.PENDING_INSTALL)
    if found is None or found.lifecycle in gone:
        raise ToolUnavailable(f"{ext_id[:80]!r} is not installed.", extension_id=ext_id)
    return found


def _check_claims(row: Extension, body: Json) -> None:
    if body["extensionType"] != row.type:
        raise TypeMismatch(
            f"{row.ext_id} is a {row.type}, not a {body['extensionType']}.",
            expected=row.type,
        )
    claimed = body.get("trustLevel")
    if claimed is not None and claimed != row.trust:
        raise TrustMismatch(
            f"{row.ext_id} is {row.trust}, not {claimed}.", expected=row.trust
        )


def _get_capability(row: Extension, capability_id: str) -> Capability:
    found = row.capabilities.filter(capability_id=capability_id, is_current=True)
    capability: Capability | None = found.select_related("extension").first()
    if capability is None:
        names = row.capabilities.filter(is_current=True).order_by("capability_id")
        raise CapabilityDenied(
            f"{row.ext_id} has no capability {capability_id[:80]!r}.",
            reason_code="scope_capability_denied",
            offered=list(names.values_list("capability_id", flat=True)[:50]),
        )
    return capability


def _check_scope(capability: Capability, requested: Json, effective: Json) -> None:
    """Say which side does not cover it, before the gateway says that one does not."""
    ext_id, name = capability.extension.ext_id, capability.capability_id
    if queries.covers(effective, ext_id, name):
        return
    if ext_id not in requested["allowed"]:
        raise CapabilityDenied(
            f"The capability scope names nothing of {ext_id}.",
            reason_code="scope_invalid",
            would_allow={"allowed": {ext_id: [name]}},
            narrowed_by="request",
        )
    is_asked = queries.covers(requested, ext_id, name)
    side = "the session's profile does not allow" if is_asked else "the scope lacks"
    raise CapabilityDenied(
        f"{side.capitalize()} {capability.name}.",
        reason_code="scope_capability_denied",
        would_allow={"allowed": {ext_id: [name]}},
        narrowed_by="profile" if is_asked else "request",
    )


def _lineage(auth: Authenticated, body: Json, trace_id: str) -> Lineage:
    """Calls that one caller puts under one trace are one tree of work, so that the
    loop guard counts them; without a traceId each call is a tree of its own."""
    root = None
    if body.get("traceId"):
        root = UUID(canonical.digest(["trace", _who(auth, body), trace_id])[:32])
    return Lineage(session_id=body["sessionId"], root_id=root, trace_id=trace_id)


def _key(auth: Authenticated, body: Json, capability: Capability) -> str:
    """A key belongs to the principal who sent it.

    Without one a new effect is meant, unless exactly this request of this caller
    waits for a person: then it goes on with that question.
    """
    given = body.get("idempotencyKey")
    if given:
        return canonical.digest(["executeExtension", str(auth.principal.id), given])
    act = [_who(auth, body), body["sessionId"], capability.name, body["input"]]
    exact = canonical.digest(canonical.arguments({"act": act}))[:ACT_CHARACTERS]
    waiting = gateway_queries.waiting_key(exact, capability.name)
    return waiting or exact + secrets.token_hex(ACT_CHARACTERS // 2)


def _who(auth: Authenticated, body: Json) -> str:
    return f"{auth.principal.id} for {body['userId']}"


def _is_trace(value: Any) -> bool:
    return not problems_of(value, requests.SCHEMA["properties"]["traceId"])


@transaction.atomic
def _record_refusal(auth: Authenticated, body: Any, error: PolarError) -> None:
    asked = body if isinstance(body, dict) else {}
    audit.record(
        type="extension.execution_refused",
        actor=auth.principal.actor,
        subject=("extension", str(asked.get("extensionId"))[:80]),
        decision="denied",
        reason=error.reason_code or error.code,
        data={
            "code": error.code,
            "capability": str(asked.get("capabilityId"))[:160],
            "fields": [each.path[:160] for each in error.fields],
        },
    )


def _example(auth: Authenticated, body: Any, error: PolarError) -> Json:
    """A minimal known-good payload: the same capability where another request for it
    can run for this principal, else one that ships with Polar."""
    asked = body if isinstance(body, dict) else {}
    session = queries.session_of(auth.principal, str(asked.get("sessionId") or ""))
    can_do = _lies_in_the_request(error)
    capability = queries.runnable(
        str(asked.get("extensionId") or "") if can_do else "",
        str(asked.get("capabilityId") or "") if can_do else "",
        session.scope if session else None,
    )
    if capability is None:
        return {}
    row = capability.extension
    return {
        "extensionId": row.ext_id,
        "extensionType": row.type,
        "capabilityId": capability.capability_id,
        "sessionId": session.session_id if session else "<an id of your own sessions>",
        "userId": str(auth.principal.id),
        "capabilityScope": {"allowed": {row.ext_id: [capability.capability_id]}},
        "input": requests.example(capability.input_schema),
    }


def _lies_in_the_request(error: PolarError) -> bool:
    """Tell whether the same capability would answer another request."""
    is_shape = isinstance(error, (Invalid, Conflict, NotFound, RateLimited))
    return is_shape or error.reason_code in _OF_THE_REQUEST
