"""An identity provider on loopback that refuses what a real one refuses.

Signs with real keys; a code works once, for its client, redirect address and
verifier. `spoil` changes what is signed; `sign` replaces how.
Source: OpenID Connect Core 1.0 §3.1; RFC 6749 §4.1; RFC 7636.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

CLIENT_ID, CLIENT_SECRET = "polar-desk", "client secret+with/odd:signs"
GROUPS = "groups"


class Key:
    """A signing key with its name."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    def public(self) -> dict[str, Any]:
        told = json.loads(ECAlgorithm.to_jwk(self.private.public_key()))
        return {**told, "kid": self.kid, "use": "sig", "alg": "ES256"}


class Provider:
    """Who signs on next is `person`; how often each page was asked is `asked`."""

    def __init__(self) -> None:
        self.url = ""
        self.key = Key("first")
        self.published = [self.key]
        self.person: dict[str, Any] = {}
        self.spoil: dict[str, Any] = {}
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        self.metadata: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: Counter[str] = Counter()
        self.bodies: list[str] = []
        self.is_down = False

    def signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode(
            claims, self.key.private, algorithm="ES256", headers={"kid": self.key.kid}
        )

    def rotate(self, kid: str) -> None:
        """Sign with another key, and publish only that one."""
        self.key = Key(kid)
        self.published = [self.key]

    def authorize(self, address: str) -> dict[str, str]:
        """Be the browser at the provider: sign on, and return what comes back."""
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.url}/authorize"
        asked = {key: value for key, (value,) in parse_qs(parts.query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(24)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.url}

    # --- pages

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        expected = f"{CLIENT_ID}:{CLIENT_SECRET}"
        way = authorization.removeprefix("Basic ")
        pair = ":".join(map(unquote_form, base64.b64decode(way).decode().split(":")))
        if pair != expected:
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or s256(form.get("code_verifier", "")) != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
            **self.spoil,
        }
        kept = {key: value for key, value in claims.items() if value is not None}
        told = {"access_token": "unused", "token_type": "Bearer"}
        return 200, {**told, "id_token": self.sign(kept)}


def s256(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def unquote_form(text: str) -> str:
    return unquote(text.replace("+", " "))


@contextmanager
def identity_provider() -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            provider.asked[path] += 1
            if path == "/.well-known/openid-configuration":
                self._say(200, provider.discovery())
            elif path == "/keys":
                self._say(200, {"keys": [key.public() for key in provider.published]})
            else:
                self._say(404, {})

        def do_POST(self) -> None:
            provider.asked["/token"] += 1
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            provider.bodies.append(body)
            form = {key: value for key, (value,) in parse_qs(body).items()}
            self._say(*provider.token(form, self.headers.get("Authorization", "")))

        def _say(self, status: int, told: Any) -> None:
            body = json.dumps(told).encode()
            self.send_response(503 if provider.is_down else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
