"""A webhook hears of an alert, signed; what does not answer is tried again."""

import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.common.egress import EgressRefused
from apps.common.errors import Invalid, NotFound
from apps.gateway import services as gateway
from apps.gateway.models import Call, Grant
from apps.reliability import services
from apps.reliability.engine.findings import Finding
from apps.reliability.models import Notice
from apps.vault import services as vault
from apps.vault.models import Secret

KEY = "a-secret-of-24-characters"


class Listener(HTTPServer):
    """Writes down what it hears and answers as it is told."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.heard, self.status = [], 204

    @property
    def place(self):
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def listener():
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hook(listener, workspace):
    return services.save_webhook(
        by=access.system_principal(),
        url=f"http://{listener.place}/polar",
        secret=KEY,
        local=listener.place,
    )


def raise_one():
    return services.alerts.note(Finding("VAULT_SEALED", "critical", "sealed"))


def test_alert_arrives_with_a_signature_that_holds(hook, listener):
    alert = raise_one()

    services.send_due()

    headers, body = listener.heard[0]
    at, given = headers["Polar-Signature"].removeprefix("t=").split(",v1=")
    made = hmac.new(KEY.encode(), f"{at}.".encode() + body, hashlib.sha256)
    assert given == made.hexdigest()
    assert json.loads(body)["alertId"] == str(alert.id)
    assert Call.objects.get(capability="alert.deliver").state == "succeeded"


def test_alert_arrives_while_everything_is_halted(hook, listener):
    gateway.halt(by=access.system_principal(), scope="all", reason="S1")
    raise_one()

    services.send_due()

    assert len(listener.heard) == 1


def test_refused_delivery_waits_and_says_why(hook, listener):
    listener.status = 500
    raise_one()

    services.send_due()
    services.send_due()

    row = Notice.objects.get(route="webhook")
    assert (row.state, row.attempts, len(listener.heard)) == ("pending", 1, 1)
    assert "500" in row.problem


def test_inside_address_that_nobody_wrote_down_is_refused(workspace):
    with pytest.raises(EgressRefused):
        services.save_webhook(
            by=access.system_principal(), url="http://127.0.0.1:1/x", secret=KEY
        )


def test_removed_webhook_leaves_no_secret_and_no_grant(hook):
    grants = Grant.objects.filter(capabilities=["alert.deliver"])
    assert grants.get().revoked_at is None

    services.remove_webhook(by=access.system_principal(), webhook_id=hook.id)

    assert not Secret.objects.exists()
    assert grants.get().revoked_at is not None
    with pytest.raises(NotFound):
        services.remove_webhook(by=access.system_principal(), webhook_id=hook.id)


def test_checklist_of_a_lost_key_names_the_webhook(hook):
    (entry,) = vault.checklist(everything=True)

    assert entry.used_by == f"alerts to {hook.url}"
    assert entry.command == f"./polar alerts webhook {hook.url}"


@pytest.mark.parametrize(
    ("url", "secret"), [("https://example.com/x", "short"), ("", KEY), ("a\nb", KEY)]
)
def test_webhook_that_cannot_be_is_refused_by_field(workspace, url, secret):
    with pytest.raises(Invalid):
        services.save_webhook(by=access.system_principal(), url=url, secret=secret)


def test_operator_may_not_add_a_webhook(alice):
    with pytest.raises(RoleRequired):
        services.save_webhook(
            by=access.principal_for_user(user=alice),
            url="https://example.com/x",
            secret=KEY,
        )
