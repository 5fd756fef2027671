"""OpenID Connect: the authorization code flow with PKCE, and nothing else of it.

Every request passes `common.egress`. A token counts when a key that the issuer
publishes signed it by an algorithm of the list, for us, now, and for this very trip.
Source: OpenID Connect Core 1.0 §3.1; RFC 7636; RFC 8725; RFC 9207.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt

from apps.access.errors import SignOnAway, SignOnRefused
from apps.access.ports import SignOn, Trip, Vouched
from apps.common import clock, egress, redaction
from apps.common.errors import Denied

#: Only signatures of a private key: with HS256 whoever checks could also sign.
ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
CLAIMS = ["iss", "sub", "aud", "exp", "iat", "nonce"]
CONFIGURATION = "/.well-known/openid-configuration"
#: How far the clocks may be apart, how long an answer may take, and how long what
#: the issuer publishes is believed. Units: seconds.
LEEWAY, PATIENCE, KEPT = 60, 10.0, 3600.0
#: Units: bytes, characters, keys.
LARGEST, LONGEST_SUBJECT, MOST_KEYS = 1_000_000, 255, 100
ERROR = re.compile(r"[a-z_]{1,40}")


class OpenIdConnect:
    """Keeps what issuers publish for an hour; a key nobody knows is asked for once."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def address(self, setup: SignOn, trip: Trip) -> str:
        """Return where the browser goes to sign on."""
        endpoint = self._metadata(setup)["authorization_endpoint"]
        query = urlencode(
            {
                "response_type": "code",
                "client_id": setup.client_id,
                "redirect_uri": trip.redirect_uri,
                "scope": setup.scopes,
                "state": trip.state,
                "nonce": trip.nonce,
                "code_challenge": challenge(trip.verifier),
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def redeem(self, setup: SignOn, trip: Trip, answer: Mapping[str, str]) -> Vouched:
        """Change the code that came back for what the issuer signed."""
        metadata = self._metadata(setup)
        said = answer.get("iss", "")
        expected = metadata.get("authorization_response_iss_parameter_supported")
        if (said or expected) and said != setup.issuer:
            raise SignOnRefused(reason="the answer names another issuer")
        token = _exchange(setup, metadata, trip, answer.get("code", ""))
        claims = self._claims(setup, metadata, token)
        if claims["nonce"] != trip.nonce:
            raise SignOnRefused(reason="the token is of another sign-on")
        parties = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        party = claims.get("azp", setup.client_id if len(parties) == 1 else None)
        if party != setup.client_id:
            raise SignOnRefused(reason="the token was made for another party")
        subject = claims["sub"]
        if not 0 < len(subject) <= LONGEST_SUBJECT or not _is_plain(subject):
            raise SignOnRefused(reason="the token's subject cannot be one")
        return Vouched(subject, claims)

    def _claims(
        self, setup: SignOn, metadata: dict[str, Any], token: str
    ) -> dict[str, Any]:
        """Return what the token says, once all of it is proved."""
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(setup, metadata, header)
            return jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=setup.client_id,
                issuer=setup.issuer,
                leeway=LEEWAY,
                options={"require": CLAIMS, "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, OverflowError) as error:
            raise SignOnRefused(
                reason=f"the token is not good: {type(error).__name__}"
            ) from error

    def _key(
        self, setup: SignOn, metadata: dict[str, Any], header: dict[str, Any]
    ) -> jwt.PyJWK:
        """Find the key that a token names; one nobody knows is looked for once more."""
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise SignOnRefused(reason="the token's algorithm is not on the list")
        for is_fresh in (False, True):
            keys = self._published(setup, metadata["jwks_uri"], is_fresh).get("keys")
            found = [
                each
                for each in (keys if isinstance(keys, list) else [])[:MOST_KEYS]
                if _fits(each, algorithm, header.get("kid"))
            ]
            if len(found) == 1:
                return jwt.PyJWK(found[0], algorithm)
        raise SignOnRefused(reason="the token names no key of the issuer")

    def _metadata(self, setup: SignOn) -> dict[str, Any]:
        """Return what the issuer says of itself. Raises: SignOnAway when it is off."""
        address = setup.issuer.rstrip("/") + CONFIGURATION
        found = self._published(setup, address)
        if found.get("issuer") != setup.issuer:
            self._kept.pop(address, None)
            raise SignOnAway("The identity provider names itself otherwise.")
        for each in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not setup.is_safe(found.get(each)):
                self._kept.pop(address, None)
                raise SignOnAway(f"The identity provider has no safe {each}.")
        return found

    def _published(
        self, setup: SignOn, url: str, is_fresh: bool = False
    ) -> dict[str, Any]:
        now = clock.monotonic()
        until, found = self._kept.get(url, (0.0, {}))
        if is_fresh or until <= now:
            status, found = _ask(setup, "GET", url)
            if status != httpx.codes.OK:
                raise SignOnAway(f"The identity provider answered {status}.")
            with self._lock:
                self._kept[url] = (now + KEPT, found)
        return found


def challenge(verifier: str) -> str:
    """Return the S256 challenge of a verifier. Source: RFC 7636 §4.2."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _fits(key: Any, algorithm: str, kid: str | None) -> bool:
    return (
        isinstance(key, dict)
        and key.get("kty") == ALGORITHMS[algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.get("kid") == kid)
    )


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _exchange(setup: SignOn, metadata: dict[str, Any], trip: Trip, code: str) -> str:
    """Send the code with our secret and the verifier; return the ID token."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": trip.redirect_uri,
        "code_verifier": trip.verifier,
    }
    options: dict[str, Any] = {}
    ways = metadata.get("token_endpoint_auth_methods_supported")
    if not setup.client_secret:
        form["client_id"] = setup.client_id
    elif isinstance(ways, list) and "client_secret_basic" not in ways:
        form |= {"client_id": setup.client_id, "client_secret": setup.client_secret}
    else:
        # Both are form-encoded before they are joined: RFC 6749 §2.3.1.
        pair = (_encoded(setup.client_id), _encoded(setup.client_secret))
        options["auth"] = httpx.BasicAuth(*pair)
    status, told = _ask(setup, "POST", metadata["token_endpoint"], data=form, **options)
    if status in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED):
        error = told.get("error")
        known = isinstance(error, str) and ERROR.fullmatch(error)
        reason = error if known else "no reason given"
        raise SignOnRefused(reason=f"the issuer refused the code: {reason}")
    token = told.get("id_token")
    if status != httpx.codes.OK or not isinstance(token, str):
        raise SignOnAway(f"The identity provider answered {status} without a token.")
    return token


def _encoded(text: str) -> str:
    return urlencode({"": text})[1:]


def _ask(
    setup: SignOn, method: str, url: str, **options: Any
) -> tuple[int, dict[str, Any]]:
    """Send one request and read a JSON object, in time and not too large.

    Raises: SignOnAway in words that hold no secret.
    """
    until = clock.monotonic() + PATIENCE
    timeout = httpx.Timeout(PATIENCE, connect=5.0)
    body = bytearray()
    redaction.register(setup.client_secret)
    try:
        with (
            egress.client(local=setup.local, timeout=timeout) as client,
            client.stream(method, url, **options) as answer,
        ):
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > LARGEST or clock.monotonic() > until:
                    raise SignOnAway("The identity provider says too much too slowly.")
        return answer.status_code, _object(bytes(body))
    except (httpx.HTTPError, httpx.InvalidURL, Denied) as error:
        raise SignOnAway(
            f"The identity provider cannot be reached: {redaction.scrub(str(error))}"
        ) from error
    finally:
        redaction.forget(setup.client_secret)


def _object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; whatever else was said is an empty one."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
