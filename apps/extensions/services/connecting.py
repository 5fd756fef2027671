"""Connecting an MCP server that asks for OAuth: there, and back.

Invariants: an administrator asks, and the same person comes back in the same
session, once, within ten minutes; what leaves for the authorization server passes
the gateway; state is kept as a hash, verifier and tokens only in the vault.
"""

import base64
import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn
from urllib.parse import urlencode
from uuid import UUID

from django.db import transaction

from apps.access.models import Principal, PrincipalKind, Role
from apps.audit import services as audit
from apps.common import clock, redaction
from apps.common.errors import Conflict, Denied, FieldProblem, Invalid, PolarError
from apps.extensions import ports
from apps.extensions.engine import connections, sources
from apps.extensions.errors import AuthorizationRefused
from apps.extensions.models import (
    LINK_TRANSITIONS,
    Connection,
    ConnectionAsk,
    Extension,
    Lifecycle,
    Link,
    Trust,
)
from apps.extensions.queries import get_extension
from apps.gateway.ports import Json
from apps.vault.errors import SecretUnreadable

from .guarded import check_may, decide
from .installing import sync_mcp_server

#: How long a person may take at the authorization server. Units: seconds.
ASK_SECONDS = 600
STARTED_ELSEWHERE = "This connection was not asked for from here. Press Connect again."


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOrder:
    """Which server to connect, and where its answer comes back to."""

    redirect_uri: str
    part: str = ""
    #: The browser's session that asks; "" where a command or a token asks.
    session_key: str = ""
    #: Polar's registration where the server offers none by itself.
    client_id: str = ""
    client_secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where the person goes now."""

    url: str
    issuer: str
    scope: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an authorization server sent the person back with."""

    state: str
    code: str = ""
    iss: str | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The connection, and what its server said when it was asked what it offers."""

    extension: Extension
    problem: str = ""


def connect_extension(
    *, by: Principal, extension_id: UUID, order: ConnectOrder
) -> Asked:
    """Find out who authorizes for a server, and where the person goes to allow it.

    Writes: Connection, ConnectionAsk, its secrets; event. Earlier asks end.
    Raises: RoleRequired below admin; Denied for who is no person; Conflict for what
    is blocked or no HTTP server; what the authorizer raises (then `failed`).
    """
    check_may(by, Role.ADMIN)
    if by.kind != PrincipalKind.HUMAN:
        raise Denied("A person connects an extension: they are who allows it.")
    row = get_extension(extension_id)
    url = _check_connectable(row, order.part)
    connection = _connection_of(row, order.part, url)
    asked: list[Asked] = []

    def ask() -> Extension:
        asked.append(_ask(by, connection, order, url))
        return row

    arguments = {"extensionId": row.ext_id, "part": order.part, "url": url}
    try:
        decide(by, "connect", arguments, ask, waits=True)
    except PolarError as error:
        _fail(connection, by, error)
        raise
    return asked[0]


def finish_connection(*, by: Principal, session_key: str, answer: Answer) -> Connected:
    """Take what the authorization server sent a person back with.

    Writes: tokens into the vault, Connection, event; then the server is asked what
    it offers, to be reviewed.
    Raises: Denied for a state that is unknown, used, too late, or of another person
    or session; AuthorizationRefused; Conflict when the server's URL is another now.
    Again: refused; a state is good for one answer.
    """
    ask = _take(by, session_key, answer.state)
    connection, row = ask.connection, ask.connection.extension
    redaction.register(answer.code)
    try:
        check_may(by, Role.ADMIN)
        _check_answer(ask, answer)
        arguments = {"extensionId": row.ext_id, "part": connection.part}

        def exchange() -> Extension:
            _exchange(by, ask, answer)
            return row

        decide(by, "authorize", arguments, exchange, waits=True)
    except PolarError as error:
        _fail(connection, by, error)
        raise
    finally:
        redaction.forget(answer.code)
    return _offered(by, row)


# --- there


def _check_connectable(row: Extension, part: str) -> str:
    """Return the URL of the server. Raises: Conflict."""
    url = connections.url_of(row, part)
    if not url:
        raise Conflict(
            f"{row.ext_id} has no MCP server behind a URL to connect.",
            fields=(FieldProblem("part", part[:80], "a part with a URL"),),
        )
    gone = (Lifecycle.REMOVED, Lifecycle.PENDING_INSTALL)
    if row.trust == Trust.BLOCKED or row.lifecycle in gone:
        raise Conflict(f"{row.ext_id} is {row.trust} and {row.lifecycle}.")
    return url


def _connection_of(row: Extension, part: str, url: str) -> Connection:
    found, _ = Connection.objects.get_or_create(
        extension=row, part=part, defaults={"server_url": url}
    )
    return found


def _ask(by: Principal, connection: Connection, order: ConnectOrder, url: str) -> Asked:
    speaks, row = connections.authorizer(), connection.extension
    source = sources.source_of(row, order.part, trust=Trust.REVIEWED)
    authority = speaks.discover(source, connection.challenge)
    client = _client(speaks, connection, authority, order)
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    with transaction.atomic():
        connection.asks.all().delete()
        ask = ConnectionAsk.objects.create(
            connection=connection,
            state_hash=_hash(state),
            asked_by=by,
            session_hash=_hash(order.session_key) if order.session_key else "",
            server_url=url,
            redirect_uri=order.redirect_uri,
            authority=connections.authority_json(authority),
            client_id=client.client_id,
            auth_method=client.auth_method,
            expires_at=clock.now() + timedelta(seconds=ASK_SECONDS),
        )
        connections.put_secret(connection, "verifier", verifier, by.actor)
        connections.drop_secrets(connection, by.actor, "asked")
        if client.client_secret:
            secret = client.client_secret
            connections.put_secret(connection, "asked", secret, by.actor)
        facts = {"issuer": authority.issuer, "scope": authority.scope}
        connections.record(connection, by.actor, "connection_asked", data=facts)
    return Asked(
        url=_authorization_url(ask, state, verifier),
        issuer=authority.issuer,
        scope=authority.scope,
        expires_at=ask.expires_at,
    )


def _client(
    speaks: ports.Authorizer,
    connection: Connection,
    authority: ports.Authority,
    order: ConnectOrder,
) -> ports.Registration:
    """Who Polar is there: as given, as registered before, or registered now."""
    if order.client_id:
        method = authority.auth_method if order.client_secret else "none"
        return ports.Registration(
            client_id=order.client_id,
            client_secret=order.client_secret,
            auth_method=method,
        )
    if _is_known(connection, authority, order):
        # A client's secret that was lost with its key: Polar registers anew.
        with suppress(SecretUnreadable), connections.as_peer(connection) as peer:
            return peer.client
    if not authority.registration_endpoint:
        raise Invalid(
            f"{authority.issuer} registers nobody by itself. Register Polar there with "
            f"the redirect URI {order.redirect_uri}, and connect with its client id.",
            fields=(FieldProblem("clientId", "missing", "the id you were given"),),
        )
    peer = ports.Peer(
        authority=authority,
        client=ports.Registration(client_id=""),
        **connections.reach_of(connection.extension),
    )
    return speaks.register(peer, order.redirect_uri)


def _is_known(
    connection: Connection, authority: ports.Authority, order: ConnectOrder
) -> bool:
    """A registration belongs to one issuer and one way back."""
    same_issuer = connection.authority.get("issuer") == authority.issuer
    same_way = connection.redirect_uri == order.redirect_uri
    return bool(connection.client_id) and same_issuer and same_way


def _authorization_url(ask: ConnectionAsk, state: str, verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    authority = ports.Authority(**ask.authority)
    words = {
        "response_type": "code",
        "client_id": ask.client_id,
        "redirect_uri": ask.redirect_uri,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
        "resource": authority.resource,
    }
    if authority.scope:
        words["scope"] = authority.scope
    if "offline_access" in authority.scope.split():
        words["prompt"] = "consent"  # OpenID Connect Core, section 11
    endpoint = authority.authorization_endpoint.partition("#")[0]
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(words)}"


# --- and back


def _take(by: Principal, session_key: str, state: str) -> ConnectionAsk:
    """Use up the ask that a state belongs to. Raises: Denied, with an event."""
    rows = ConnectionAsk.objects.select_related("connection__extension")
    ask = rows.filter(state_hash=_hash(state)).first()
    if ask is None:
        _refuse(by, None, "unknown_state")
    now = clock.now()
    used = ConnectionAsk.objects.filter(id=ask.id, used_at=None).update(used_at=now)
    if used != 1:
        _refuse(by, ask, "state_used")
    if ask.expires_at <= now:
        _refuse(by, ask, "too_late")
    if ask.asked_by_id != by.id:
        _refuse(by, ask, "another_person")
    if ask.session_hash and ask.session_hash != _hash(session_key):
        _refuse(by, ask, "another_session")
    return ask


def _refuse(by: Principal, ask: ConnectionAsk | None, why: str) -> NoReturn:
    name = ask.connection.extension.ext_id if ask else "unknown"
    with transaction.atomic():
        audit.record(
            type="extension.connection_refused",
            actor=by.actor,
            subject=("extension", str(ask.connection.extension_id) if ask else name),
            decision="denied",
            reason=why,
            data={"extension_id": name},
        )
    raise Denied(STARTED_ELSEWHERE, reason_code=why)


def _check_answer(ask: ConnectionAsk, answer: Answer) -> None:
    """Refuse an answer of another issuer (RFC 9207), a no, and one for a server that
    has moved since."""
    authority = ports.Authority(**ask.authority)
    missing = answer.iss is None and authority.names_itself
    if missing or (answer.iss is not None and answer.iss != authority.issuer):
        raise AuthorizationRefused(
            f"The answer does not come from {authority.issuer}.", error="wrong_issuer"
        )
    if answer.error:
        plain = answer.error[:60] if answer.error.replace("_", "").isalnum() else ""
        raise AuthorizationRefused(
            f"{authority.issuer} sent you back with: {plain or 'an error'}.",
            error=plain or "error",
        )
    if not answer.code:
        raise AuthorizationRefused("There is no code in the answer.", error="no_code")
    connection = ask.connection
    if connections.url_of(connection.extension, connection.part) != ask.server_url:
        raise Conflict("The server has another URL by now; connect it again.")


def _exchange(by: Principal, ask: ConnectionAsk, answer: Answer) -> None:
    connection = ask.connection
    with (
        connections.leased(connection, "verifier", by.actor) as verifier,
        connections.as_peer(ask, by.actor) as peer,
    ):
        back = ask.redirect_uri
        tokens = connections.authorizer().exchange(peer, answer.code, verifier, back)
        _keep(by, ask, tokens, peer.client.client_secret)


@transaction.atomic
def _keep(
    by: Principal, ask: ConnectionAsk, tokens: ports.Tokens, client_secret: str
) -> None:
    row, actor = ask.connection, by.actor
    if row.status != Link.CONNECTED:
        LINK_TRANSITIONS.check(row.status, Link.CONNECTED)
    held = Connection.objects.filter(id=row.id, status=row.status, version=row.version)
    changes: Json = {
        "status": Link.CONNECTED,
        "problem": "",
        "server_url": ask.server_url,
        "authority": ask.authority,
        "client_id": ask.client_id,
        "auth_method": ask.auth_method,
        "redirect_uri": ask.redirect_uri,
        "scope": tokens.scope or ask.authority.get("scope", ""),
        "version": row.version + 1,
        "has_refresh": bool(tokens.refresh),
        "renewing_until": None,
        "expires_at": connections.ends_at(tokens),
        "connected_at": clock.now(),
        "connected_by": by.label,
    }
    if held.update(**changes) != 1:
        raise Conflict("Somebody else has just decided about this connection.")
    row.refresh_from_db()
    connections.drop_secrets(row, actor)
    values = {"access": tokens.access, "refresh": tokens.refresh}
    for kind, value in {**values, "client": client_secret}.items():
        if value:
            connections.put_secret(row, kind, value, actor)
    connections.record(row, actor, "connected", data={"scope": row.scope})


def _offered(by: Principal, row: Extension) -> Connected:
    """Ask the server at once; what it says now waits for a review."""
    try:
        found = sync_mcp_server(by=by, extension_id=row.id, reason="it was connected")
    except PolarError as error:
        return Connected(extension=row, problem=error.detail)
    return Connected(extension=found)


@transaction.atomic
def _fail(connection: Connection, by: Principal, error: PolarError) -> None:
    """Say on the connection why it did not come about; what still works, works on."""
    held = Connection.objects.filter(id=connection.id)
    failing = LINK_TRANSITIONS.sources(Link.FAILED)
    problem = error.detail[:300]
    if not held.filter(status__in=failing).update(status=Link.FAILED, problem=problem):
        held.update(problem=problem)
    facts = {"code": error.code}
    reason = error.reason_code or error.code
    verb = "connection_failed"
    connections.record(connection, by.actor, verb, data=facts, reason=reason)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
