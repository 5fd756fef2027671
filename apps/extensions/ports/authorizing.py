"""Where the client of authorization servers plugs in at start-up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from apps.gateway.ports import Socket

if TYPE_CHECKING:
    from . import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authorization server as its own metadata describes it, and what it is asked
    for. Stored as JSON; no secret is in it."""

    issuer: str
    #: What a token is for: the server, and no other (RFC 8707).
    resource: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    scope: str = ""
    #: How Polar proves itself there.
    auth_method: str = "none"
    #: It promises to say its name in the answer (RFC 9207).
    names_itself: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Polar as one authorization server knows it."""

    client_id: str
    client_secret: str = field(default="", repr=False)
    auth_method: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An authorization server, Polar's registration there, and how far it leads."""

    authority: Authority
    client: Registration
    #: Of the extension's grants: exact host:port inside, and further domains.
    local: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What an authorization server issued. Units: seconds."""

    access: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    expires_in: int | None = None
    scope: str = ""


class Authorizer(Protocol):
    """Speaks OAuth with authorization servers, through the wall.

    Every verb raises AuthorizationRefused for a no, ToolMisconfigured for what is
    against the rules, ToolTransientError for what may pass, EgressRefused.
    """

    def discover(self, source: "Source", challenge: Mapping[str, str]) -> Authority:
        """Ask a server who authorizes for it, and that one what it offers."""

    def register(self, peer: Peer, redirect_uri: str) -> Registration:
        """Make Polar known there (RFC 7591)."""

    def exchange(self, peer: Peer, code: str, verifier: str, back: str) -> Tokens:
        """Turn a code into tokens; `back` is the redirect URI of the request."""

    def refresh(self, peer: Peer, token: str) -> Tokens:
        """Turn a refresh token into new tokens; it may be spent by that."""

    def revoke(self, peer: Peer, token: str, hint: str) -> None:
        """End a token there (RFC 7009)."""


#: Makes the one that is plugged in.
authorizers: Socket[Callable[[], Authorizer]] = Socket("authorizers")
