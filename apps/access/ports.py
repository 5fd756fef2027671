"""Signing in at somebody else's door: how it is set up, and who speaks with it.

The settings are read at each use. A set-up that is half written is none at all, and
`manage.py check` says what it lacks: nobody enters by a rule that nobody wrote.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.conf import settings

#: The fewest scopes that a sign-on asks for.
OPENID = "openid"


@dataclass(frozen=True, slots=True)
class SignOn:
    """Where people may sign on, and which of its words stand for which role."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    label: str
    scopes: str
    role_claim: str
    #: Value of the claim → role.
    roles: Mapping[str, str]
    domains: frozenset[str]
    #: The exact host:port that may be inside.
    local: frozenset[str]

    def is_safe(self, url: object) -> bool:
        """Tell whether secrets may be sent there: by TLS, or to a host named inside."""
        if not isinstance(url, str):
            return False
        parts = urlsplit(url)
        return (parts.scheme == "https" and bool(parts.hostname)) or (
            parts.scheme == "http" and parts.netloc in self.local
        )


@dataclass(frozen=True, slots=True)
class Trip:
    """One way of one browser to the issuer and back; works once."""

    state: str
    nonce: str
    verifier: str = field(repr=False)
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the issuer signed of a person."""

    subject: str
    claims: Mapping[str, Any]


class Issuer(Protocol):
    """Speaks with the identity provider. Raises: SignOnRefused; SignOnAway."""

    def address(self, setup: SignOn, trip: Trip) -> str:
        """Return where the browser goes to sign on."""

    def redeem(self, setup: SignOn, trip: Trip, answer: Mapping[str, str]) -> Vouched:
        """Change the code that came back for what the issuer signed."""


_issuer: list[Issuer] = []


def plug_issuer(issuer: Issuer) -> None:
    """Speak through this one. Again: replaces the one before."""
    _issuer[:] = [issuer]


def issuer() -> Issuer:
    return _issuer[0]


def written_sign_on() -> SignOn:
    """Read the set-up as it is written, right or wrong."""
    return SignOn(
        issuer=settings.POLAR_OIDC_ISSUER,
        client_id=settings.POLAR_OIDC_CLIENT_ID,
        client_secret=settings.POLAR_OIDC_CLIENT_SECRET,
        label=settings.POLAR_OIDC_LABEL,
        scopes=settings.POLAR_OIDC_SCOPES,
        role_claim=settings.POLAR_OIDC_ROLE_CLAIM,
        roles=_object(settings.POLAR_OIDC_ROLES),
        domains=frozenset(each.casefold() for each in settings.POLAR_OIDC_DOMAINS),
        local=frozenset(settings.POLAR_OIDC_LOCAL),
    )


def _object(text: str) -> dict[str, Any]:
    """Read a JSON object; whatever else is written gives nothing."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
