"""Speaks OAuth 2.1 with the authorization server of an MCP server, for the SDK.

The library's own flow waits inside one coroutine for a person; here each step is
asked for by itself, so that minutes, a restart and another process may lie between.
Its models and parsers read what comes back. Every request passes the wall, follows
no redirect, and goes to the issuer's own origin or where an operator wrote.
"""

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import httpx2
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError
from mcp.client.auth import utils as sdk
from mcp.client.auth.oauth2 import check_registration_usable
from mcp.shared.auth import (
    OAuthClientMetadata,
    OAuthMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)
from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url
from pydantic import AnyUrl, ValidationError

from apps.common import redaction
from apps.common.egress import AsyncGuardedTransport2
from apps.extensions.adapters.narrowing import covers
from apps.extensions.adapters.portal import portal
from apps.extensions.errors import (
    AuthorizationRefused,
    ToolMisconfigured,
    ToolTransientError,
)
from apps.extensions.ports import Authority, Peer, Registration, Source, Tokens
from apps.gateway.ports import check_outside_transaction, release_connection

T = TypeVar("T")

#: Of one answer. Units: bytes.
MOST_BYTES = 262_144
#: Of one request, and of all that one step asks. Units: seconds.
REQUEST_SECONDS = 10.0
STEP_SECONDS = 45.0
#: How Polar can prove itself, the best first.
METHODS = ("client_secret_basic", "client_secret_post", "none")
_CODE = re.compile(r"^[a-z_]{1,60}$")
_TOKEN = re.compile(r"^[\x21-\x7e]{1,16384}$")
_SCOPE = re.compile(r"^[\x20-\x7e]{0,2000}$")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class OAuthClient:
    """The authorizer that is plugged in; it keeps nothing between two steps."""

    def discover(self, source: Source, challenge: Mapping[str, str]) -> Authority:
        return _run(_discover(source, challenge))

    def register(self, peer: Peer, redirect_uri: str) -> Registration:
        return _run(_register(peer, redirect_uri))

    def exchange(self, peer: Peer, code: str, verifier: str, back: str) -> Tokens:
        grant = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": verifier,
        }
        return _run(_tokens(peer, grant))

    def refresh(self, peer: Peer, token: str) -> Tokens:
        return _run(
            _tokens(peer, {"grant_type": "refresh_token", "refresh_token": token})
        )

    def revoke(self, peer: Peer, token: str, hint: str) -> None:
        _run(_revoke(peer, token, hint))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Wait for one step, with no transaction open and no connection held."""
    try:
        check_outside_transaction()
        release_connection()
    except RuntimeError:
        work.close()
        raise
    return portal.run(work, seconds=STEP_SECONDS)


# --- who authorizes


async def _discover(source: Source, challenge: Mapping[str, str]) -> Authority:
    async with _client(source.local) as http:
        resource = await _resource(http, source, challenge.get("metadata") or None)
        issuer = str(resource.authorization_servers[0]) if resource else None
        found = await _metadata(http, source, issuer)
    _check_methods(found)
    authority = Authority(
        issuer=str(found.issuer),
        resource=_audience(source, resource),
        authorization_endpoint=str(found.authorization_endpoint),
        token_endpoint=str(found.token_endpoint),
        registration_endpoint=str(found.registration_endpoint or ""),
        revocation_endpoint=str(found.revocation_endpoint or ""),
        scope=_scope(challenge.get("scope") or None, resource, found),
        auth_method=_method(found),
        names_itself=bool(found.authorization_response_iss_parameter_supported),
    )
    peer = Peer(
        authority=authority,
        client=Registration(client_id=""),
        local=source.local,
        domains=source.grants.domains,
    )
    for name in ("authorization", "token", "registration", "revocation"):
        url = getattr(authority, f"{name}_endpoint")
        if url:
            _check_announced(peer, url, name)
    return authority


async def _resource(
    http: httpx2.AsyncClient, source: Source, hint: str | None
) -> ProtectedResourceMetadata | None:
    """What a server says of itself (RFC 9728); None where it says nothing."""
    urls = sdk.build_protected_resource_metadata_discovery_urls(hint, source.url)
    for url in urls:
        response = await _get(http, source, url)
        found = await sdk.handle_protected_resource_response(response)
        if found is None:
            continue
        wanted = resource_url_from_server_url(source.url)
        if not check_resource_allowed(wanted, str(found.resource)):
            raise ToolMisconfigured(
                f"{source.ext_id} says that it is {str(found.resource)[:200]}, which "
                "is another server: a token for that one is never asked for here."
            )
        return found
    return None


async def _metadata(
    http: httpx2.AsyncClient, source: Source, issuer: str | None
) -> OAuthMetadata:
    """What an authorization server says of itself (RFC 8414)."""
    if issuer is not None:
        _check_scheme(issuer, source.local)
    urls = sdk.build_oauth_authorization_server_metadata_discovery_urls(
        issuer, source.url
    )
    for url in urls:
        response = await _get(http, source, url)
        _, found = await sdk.handle_auth_metadata_response(response)
        if found is None:
            continue
        expected = issuer or "{0.scheme}://{0.netloc}".format(urlsplit(source.url))
        if not sdk.issuers_match(str(found.issuer), expected):
            raise ToolMisconfigured(
                f"The metadata at {expected[:200]} names another issuer, "
                f"{str(found.issuer)[:200]}."
            )
        return found
    raise ToolMisconfigured(
        f"{(issuer or source.url)[:200]} publishes no metadata of an authorization "
        "server; it cannot be connected."
    )


def _audience(source: Source, resource: ProtectedResourceMetadata | None) -> str:
    if resource is not None:
        return str(resource.resource)
    return resource_url_from_server_url(source.url)


def _scope(
    wanted: str | None, resource: ProtectedResourceMetadata | None, found: OAuthMetadata
) -> str:
    """The least that the server asks for; never all that its authority knows."""
    scope = sdk.get_client_metadata_scopes(wanted, resource) or ""
    offered = found.scopes_supported or ()
    if scope and "offline_access" in offered and "offline_access" not in scope.split():
        scope += " offline_access"
    if not _SCOPE.match(scope):
        raise ToolMisconfigured("The scopes that are asked for are not plain words.")
    return scope


def _check_methods(found: OAuthMetadata) -> None:
    if "S256" not in (found.code_challenge_methods_supported or ()):
        raise ToolMisconfigured(
            f"{found.issuer} does not say that it checks PKCE with S256; a code could "
            "be stolen on its way. It cannot be connected."
        )


def _method(found: OAuthMetadata) -> str:
    # RFC 8414 section 2: a list that is left out means client_secret_basic.
    offered = found.token_endpoint_auth_methods_supported or ["client_secret_basic"]
    for method in METHODS:
        if method in offered:
            return method
    raise ToolMisconfigured(f"{found.issuer} knows no way in that Polar can use.")


# --- registration, tokens, revocation


async def _register(peer: Peer, redirect_uri: str) -> Registration:
    authority = peer.authority
    about = OAuthClientMetadata(
        redirect_uris=[AnyUrl(redirect_uri)],
        client_name="Polar",
        token_endpoint_auth_method=authority.auth_method,  # type: ignore[arg-type]
        scope=authority.scope or None,
        application_type=(
            "native" if urlsplit(redirect_uri).hostname in LOOPBACK else "web"
        ),
    )
    metadata = OAuthMetadata.model_validate(
        {
            "issuer": authority.issuer,
            "authorization_endpoint": authority.authorization_endpoint,
            "token_endpoint": authority.token_endpoint,
            "registration_endpoint": authority.registration_endpoint,
        }
    )
    request = sdk.create_client_registration_request(metadata, about, authority.issuer)
    response = await _ask(peer, request)
    try:
        found = await sdk.handle_registration_response(response)
        check_registration_usable(found)
    except (OAuthRegistrationError, OAuthFlowError) as error:
        raise _refusal(peer, response, "register Polar") from error
    return Registration(
        client_id=found.client_id,
        client_secret=found.client_secret or "",
        auth_method=found.token_endpoint_auth_method
        or ("client_secret_basic" if found.client_secret else "none"),
    )


async def _tokens(peer: Peer, grant: dict[str, str]) -> Tokens:
    authority = peer.authority
    form = {**grant, "client_id": peer.client.client_id, "resource": authority.resource}
    response = await _ask(peer, _form(peer, authority.token_endpoint, form))
    if response.status_code not in (200, 201):
        raise _refusal(peer, response, "issue a token")
    try:
        found = OAuthToken.model_validate_json(response.content)
    except ValidationError:
        # The answer may hold a token, so nothing of it is repeated.
        found = None
    if found is None or not all(
        _TOKEN.match(each)
        for each in (found.access_token, found.refresh_token)
        if each is not None
    ):
        raise ToolMisconfigured(f"{authority.issuer} answered with no bearer token.")
    return Tokens(
        access=found.access_token,
        refresh=found.refresh_token or "",
        expires_in=found.expires_in,
        scope=(found.scope or "")[:2000],
    )


async def _revoke(peer: Peer, token: str, hint: str) -> None:
    url = peer.authority.revocation_endpoint
    form = {"token": token, "token_type_hint": hint, "client_id": peer.client.client_id}
    response = await _ask(peer, _form(peer, url, form))
    if response.status_code != 200:
        raise _refusal(peer, response, "revoke a token")


def _form(peer: Peer, url: str, form: dict[str, str]) -> httpx2.Request:
    """A request in which Polar proves who it is (RFC 6749 section 2.3.1)."""
    client, headers = peer.client, {"Accept": "application/json"}
    if client.auth_method == "client_secret_basic" and client.client_secret:
        pair = ":".join(
            quote(each, safe="") for each in (client.client_id, client.client_secret)
        )
        encoded = base64.b64encode(pair.encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
    elif client.auth_method == "client_secret_post":
        form = {**form, "client_secret": client.client_secret}
    return httpx2.Request("POST", url, data=form, headers=headers)


def _refusal(
    peer: Peer, response: httpx2.Response, what: str
) -> AuthorizationRefused | ToolTransientError:
    """Say no in the server's own code; its prose may repeat what it was sent."""
    name, status = peer.authority.issuer, response.status_code
    if status == 429 or status >= 500:
        return ToolTransientError(f"{name} answered {status}.")
    try:
        error = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        error = ""
    error = error if _CODE.match(error) else f"http_{status}"
    return AuthorizationRefused(f"{name} did not {what}: {error}.", error=error)


# --- the way out


@asynccontextmanager
async def _client(local: frozenset[str]) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with httpx2.AsyncClient(
        transport=AsyncGuardedTransport2(local=local),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx2.Timeout(REQUEST_SECONDS, connect=5.0),
    ) as client:
        yield client


async def _get(http: httpx2.AsyncClient, source: Source, url: str) -> httpx2.Response:
    _check_scheme(url, source.local)
    response = await _send(http, sdk.create_oauth_metadata_request(url))
    if response.status_code == 429 or response.status_code >= 500:
        raise ToolTransientError(
            f"{_origin(url)} answered {response.status_code} to a question for its "
            "metadata."
        )
    return response


async def _ask(peer: Peer, request: httpx2.Request) -> httpx2.Response:
    _check_announced(peer, str(request.url), "this")
    async with _client(peer.local) as http:
        return await _send(http, request)


async def _send(http: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
    """Send once and read no more than one answer may have."""
    url = _origin(str(request.url))
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            response = await http.send(request, stream=True)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise ToolMisconfigured(f"{url} answered with too much.")
            finally:
                await response.aclose()
    except (httpx2.TransportError, httpx.TransportError, OSError) as error:
        why = redaction.scrub(str(error))[:200]
        raise ToolTransientError(f"{url} cannot be reached: {why}") from error
    headers = {"content-type": response.headers.get("content-type", "")}
    return httpx2.Response(
        response.status_code, headers=headers, content=bytes(body), request=request
    )


def _check_announced(peer: Peer, url: str, name: str) -> None:
    """Refuse an endpoint off the issuer's origin that no operator wrote down."""
    _check_scheme(url, peer.local)
    if _origin(url) == _origin(peer.authority.issuer):
        return
    parts = urlsplit(url)
    host = parts.hostname or ""
    if f"{host}:{parts.port}" in peer.local:
        return
    if not any(covers(pattern, host) for pattern in peer.domains):
        raise ToolMisconfigured(
            f"The {name} endpoint of {peer.authority.issuer} lies on another host, "
            f"{host}. Where that is right, grant the extension the domain {host}."
        )


def _check_scheme(url: str, local: frozenset[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return
    if parts.scheme != "http" or f"{parts.hostname}:{parts.port or 80}" not in local:
        raise ToolMisconfigured(
            f"{_origin(url)[:200]} is not https; only a host and port inside that an "
            "operator wrote down may be asked without."
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"
