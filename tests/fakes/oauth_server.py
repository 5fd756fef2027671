"""An MCP server behind OAuth, and its authorization server, on loopback.

Two origins of one process, by the protocols as they are written: RFC 9728, RFC 8414,
RFC 7591, OAuth 2.1 with PKCE (S256 really computed), RFC 8707, rotating refresh
tokens that end their family when one is used twice, RFC 7009, RFC 9207. Its knobs
make it break single rules.
"""

import base64
import hashlib
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TOOLS = [
    {
        "name": "whoami",
        "description": "Say who is asked.",
        "inputSchema": {"type": "object", "properties": {}},
    }
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: "OAuthWorld"

    def do_GET(self) -> None:
        self.serve(b"")

    def do_DELETE(self) -> None:
        self.serve(b"")

    def do_POST(self) -> None:
        self.serve(self.rfile.read(int(self.headers.get("content-length") or 0)))

    def serve(self, body: bytes) -> None:
        here = self.server.server_address[1]
        sent = {name.lower(): text for name, text in self.headers.items()}
        self.world.seen.append((here, self.command, self.path, sent, body.decode()))
        side = self.world.resource if here == self.world.port else self.world.authority
        status, answer, headers = side(self, body.decode())
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if data:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return


class OAuthWorld:
    """Both servers, what they gave out and what they were sent."""

    def __init__(self) -> None:
        handler = type("Bound", (Handler,), {"world": self})
        self.servers = [
            ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)
        ]
        self.port, self.auth_port = (each.server_port for each in self.servers)
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.issuer = f"http://127.0.0.1:{self.auth_port}"
        self.seen: list[tuple[int, str, str, dict[str, str], str]] = []
        self.clients: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.access: dict[str, str] = {}  # token → family
        self.refresh: dict[str, str] = {}
        self.spent: dict[str, str] = {}
        self.dead: set[str] = set()
        self.revoked: list[str] = []
        self.refreshes = 0
        # knobs
        self.metadata: dict[str, Any] = {}
        self.resource_metadata: dict[str, Any] = {}
        self.hint = f"http://127.0.0.1:{self.port}/.well-known/oauth-protected-resource"
        self.expires_in: int | None = 3600
        self.refuses_refresh = False
        self.auth_methods = ["client_secret_basic", "none"]
        self.slow = threading.Event()
        self.slow.set()

    def start(self) -> None:
        for each in self.servers:
            threading.Thread(target=each.serve_forever, daemon=True).start()

    def stop(self) -> None:
        for each in self.servers:
            each.shutdown()
            each.server_close()

    def secrets(self) -> set[str]:
        """Everything that must be in no table, log or event."""
        keys = {c.get("client_secret", "") for c in self.clients.values()}
        return ({*self.access, *self.refresh, *self.spent, *self.codes} | keys) - {""}

    # --- a person in a browser

    def consent(self, url: str) -> dict[str, str]:
        """Allow what an authorization URL asks. Returns what is sent back with."""
        asked = {
            name: value[0] for name, value in parse_qs(urlsplit(url).query).items()
        }
        client = self.clients[asked["client_id"]]
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert asked["redirect_uri"] in client["redirect_uris"]
        assert asked["resource"] == self.url
        code = secrets.token_urlsafe(24)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.issuer}

    # --- the MCP server

    def resource(self, request: Handler, body: str) -> tuple[int, Any, dict[str, str]]:
        if request.path.startswith("/.well-known/oauth-protected-resource"):
            said = {"resource": self.url, "authorization_servers": [self.issuer]}
            return 200, said | self.resource_metadata, {}
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.access.get(token, "dead") in self.dead | {"dead"}:
            said = f'Bearer resource_metadata="{self.hint}", scope="orders:read"'
            return 401, {"error": "invalid_token"}, {"WWW-Authenticate": said}
        if request.command != "POST":
            return 405, None, {}
        asked = json.loads(body)
        if "id" not in asked:
            return 202, None, {}
        found = {"jsonrpc": "2.0", "id": asked["id"]}
        result = self.result(asked)
        if result is None:
            error = {"code": -32601, "message": "Method not found"}
            return 200, found | {"error": error}, {}
        return 200, found | {"result": result}, {}

    def result(self, asked: dict[str, Any]) -> Any:
        if asked["method"] == "initialize":
            return {
                "protocolVersion": asked["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "orders", "version": "1"},
            }
        if asked["method"] == "tools/list":
            return {"tools": TOOLS}
        if asked["method"] == "tools/call":
            return {"content": [{"type": "text", "text": "orders desk"}]}
        return None

    # --- the authorization server

    def authority(self, request: Handler, body: str) -> tuple[int, Any, dict[str, str]]:
        path = urlsplit(request.path).path
        if path == "/.well-known/oauth-authorization-server":
            return 200, self.described(), {}
        if path == "/register":
            return self.register(json.loads(body))
        form = {name: value[0] for name, value in parse_qs(body).items()}
        if path in ("/token", "/revoke") and not self.proves(request, form):
            return 401, {"error": "invalid_client"}, {}
        if path == "/token":
            self.slow.wait(10)
            return self.token(form)
        if path == "/revoke":
            self.revoked.append(form["token_type_hint"])
            token = form["token"]
            self.dead |= {self.access.get(token, ""), self.refresh.get(token, "")}
            return 200, {}, {}
        return 404, {}, {}

    def described(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": self.auth_methods,
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata

    def register(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        client_id = f"client-{len(self.clients)}"
        found = {**asked, "client_id": client_id}
        if asked["token_endpoint_auth_method"] != "none":
            found["client_secret"] = secrets.token_urlsafe(24)
        self.clients[client_id] = found
        return 201, found, {}

    def proves(self, request: Handler, form: dict[str, str]) -> bool:
        client = self.clients.get(form.get("client_id", ""), {})
        wanted = client.get("client_secret")
        if wanted is None:
            return bool(client)
        given = f"{form['client_id']}:{wanted}".encode()
        basic = f"Basic {base64.b64encode(given).decode()}"
        return request.headers.get("authorization") == basic

    def token(self, form: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if form.get("resource") != self.url:
            return 400, {"error": "invalid_target"}, {}
        if form["grant_type"] == "refresh_token":
            return self.renewed(form)
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        same = asked and all(
            asked[name] == form[name] for name in ("client_id", "redirect_uri")
        )
        if not same or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}, {}
        return 200, self.issue(secrets.token_hex(8)), {}

    def renewed(self, form: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        token = form["refresh_token"]
        self.refreshes += 1
        if token in self.spent:
            self.dead.add(self.spent[token])
        family = self.refresh.pop(token, None)
        if self.refuses_refresh or family is None or family in self.dead:
            return 400, {"error": "invalid_grant", "error_description": token}, {}
        self.spent[token] = family
        return 200, self.issue(family), {}

    def issue(self, family: str) -> dict[str, Any]:
        for token in [each for each, of in self.access.items() if of == family]:
            self.access[token] = "dead"
        access, refresh = (f"{kind}-{secrets.token_urlsafe(24)}" for kind in "ar")
        self.access[access], self.refresh[refresh] = family, family
        found = {"access_token": access, "token_type": "bearer", "scope": "orders:read"}
        if self.expires_in is not None:
            found["expires_in"] = self.expires_in
        return found | {"refresh_token": refresh}

    def end_access(self) -> None:
        """Every access token ends now, whatever was promised."""
        self.access = dict.fromkeys(self.access, "dead")

    def location(self, redirect_uri: str, answer: dict[str, str]) -> str:
        return f"{redirect_uri}?{urlencode(answer)}"
