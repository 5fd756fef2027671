"""MCP servers that ask for OAuth: there, back, used, renewed, ended, and refused."""

import base64
import io
import json
import logging
import threading
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection as database
from django.db import connections as databases

from apps.access import services as access
from apps.access.errors import RoleRequired
from apps.audit.models import Event
from apps.common import clock
from apps.common.actor import SYSTEM
from apps.common.errors import Conflict, Denied, Invalid, PolarError
from apps.extensions import ports, services
from apps.extensions.adapters.mcp import McpRuntime
from apps.extensions.engine import bundles, connections, sources
from apps.extensions.errors import (
    AuthorizationRefused,
    AuthorizationWanted,
    ToolMisconfigured,
)
from apps.extensions.models import Connection, ConnectionAsk, Extension, Link
from apps.vault import services as vault
from apps.vault.models import Secret
from tests.fakes.oauth_server import OAuthWorld

from .conftest import HARMLESS, approve, enable
from .test_api_execute import issue

pytestmark = pytest.mark.django_db
BACK = "http://testserver/extensions/oauth/callback/"


@pytest.fixture
def world():
    found = OAuthWorld()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def mcp(monkeypatch):
    runtime = McpRuntime()
    monkeypatch.setitem(ports._runtimes, ports.Transport.HTTP, runtime)
    yield runtime
    for extension_id in {key[0] for key in runtime._sessions}:
        runtime.stop(extension_id)


def grants_of(world):
    return {"local": [f"127.0.0.1:{port}" for port in (world.port, world.auth_port)]}


@pytest.fixture
def wanted(world, mcp, workspace):
    """A server that was taken in and has answered 401."""
    row = Extension.objects.create(
        ext_id="desk",
        type="mcp",
        title="desk",
        lifecycle="installed",
        parts=[bundles.part_of("", ports.Transport.HTTP, url=world.url)],
        grants=grants_of(world),
        limits={"connectSeconds": 5, "callSeconds": 5},
    )
    said = AuthorizationWanted(
        challenge={"metadata": world.hint, "scope": "orders:read"}
    )
    connections.note_wanted(row, "", said)
    return row


@pytest.fixture
def ask(wanted, ada):
    def run(**more):
        by = more.pop("by", ada).principal
        order = services.ConnectOrder(
            redirect_uri=BACK, **{"session_key": "s1", **more}
        )
        return services.connect_extension(by=by, extension_id=wanted.id, order=order)

    return run


@pytest.fixture
def finish(ada):
    def run(answer, *, by=None, session_key="s1", **more):
        return services.finish_connection(
            by=(by or ada).principal,
            session_key=session_key,
            answer=services.Answer(**{**answer, **more}),
        )

    return run


@pytest.fixture
def connected(world, ask, finish, bob):
    """Connected, reviewed and enabled."""
    row = finish(world.consent(ask().url)).extension
    row.refresh_from_db()
    row = approve(row, bob, risks={"whoami": HARMLESS}, trust="reviewed")
    return enable(row, bob)


def connection():
    return Connection.objects.get()


def events(verb):
    return Event.objects.filter(type=f"extension.{verb}")


def bearers(world, path="/mcp"):
    """What the MCP server was shown."""
    return [
        sent["authorization"]
        for port, _, where, sent, _ in world.seen
        if port == world.port and where == path and "authorization" in sent
    ]


# --- the whole way


def test_server_that_asks_is_remembered_with_what_it_said(world, mcp, ada):
    grants = grants_of(world)
    new = services.NewServer(extension_id="desk", url=world.url, grants=grants)

    with pytest.raises(AuthorizationWanted):
        services.sync_mcp_server(by=ada.principal, new=new, reason="orders desk")

    assert connection().status == Link.WANTED
    assert connection().challenge["scope"] == "orders:read"
    assert connection().challenge["metadata"] == world.hint
    assert connection().extension.lifecycle == "installed"
    assert events("connection_wanted").count() == 1


def test_whole_way_from_401_to_an_answer(world, connected, call):
    assert call("desk__whoami").output["content"][0]["text"] == "orders desk"
    assert connection().status == Link.CONNECTED
    assert [events(each).count() for each in ("connection_asked", "connected")] == [
        1,
        1,
    ]


def test_what_is_asked_for_is_bound_and_least(world, ask):
    asked = ask()

    assert asked.issuer == world.issuer
    assert asked.scope == "orders:read"
    assert "code_challenge_method=S256" in asked.url
    assert f"resource=http%3A%2F%2F127.0.0.1%3A{world.port}%2Fmcp" in asked.url


def test_token_that_ends_is_renewed_before_it_does(world, connected, call):
    with clock.frozen(clock.now()):
        clock.advance(3590)

        assert call("desk__whoami").output

    assert (world.refreshes, connection().version) == (1, 2)
    assert events("token_refreshed").count() == 1


def test_token_that_is_refused_is_renewed_and_the_call_goes_on(world, connected, call):
    world.end_access()

    assert call("desk__whoami").output
    assert world.refreshes == 1


def test_renewal_that_is_refused_waits_for_an_operator(world, connected, call):
    world.end_access()
    world.refuses_refresh = True

    with pytest.raises(AuthorizationWanted, match="connects it again"):
        call("desk__whoami")

    assert connection().status == Link.EXPIRED
    assert "invalid_grant" in connection().problem
    assert events("connection_expired").count() == 1
    assert not Secret.objects.filter(name__endswith="/access").exists()
    asked_before = len(world.seen)
    with pytest.raises(AuthorizationWanted):
        call("desk__whoami")
    assert len(world.seen) == asked_before


def test_expired_connection_is_made_again(world, connected, call, ask, finish):
    connections.expire(connection(), "an operator's test")

    finish(world.consent(ask().url))

    assert call("desk__whoami").output
    assert len(world.clients) == 1


def test_authority_that_is_down_ends_nothing(world, connected, call, monkeypatch):
    monkeypatch.setattr(world, "token", lambda form: (503, {}, {}))
    with clock.frozen(clock.now()):
        clock.advance(3590)
        assert call("desk__whoami").output
        clock.advance(60)
        with pytest.raises(Exception, match="503"):
            call("desk__whoami")

    assert connection().status == Link.CONNECTED
    assert connection().renewing_until is None


def test_disconnecting_revokes_and_forgets(world, connected, ada, call):
    done = services.disconnect_extension(
        by=ada.principal, extension_id=connected.id, reason="over"
    )

    assert done.problem == ""
    assert world.revoked == ["refresh_token", "access_token"]
    assert connection().status == Link.DISCONNECTED
    assert not Secret.objects.filter(purpose=connections.PURPOSE).exists()
    assert '"revoked":true' in events("token_revoked").get().body
    with pytest.raises(AuthorizationWanted):
        call("desk__whoami")


def test_forgetting_does_not_wait_for_the_authority(world, connected, ada):
    world.servers[1].shutdown()
    world.servers[1].server_close()

    done = services.disconnect_extension(
        by=ada.principal, extension_id=connected.id, reason="over"
    )

    assert "cannot be reached" in done.problem
    assert not Secret.objects.filter(purpose=connections.PURPOSE).exists()
    world.servers.pop()


def test_what_is_removed_is_disconnected(world, connected, bob):
    services.disable_extension(by=bob.principal, extension_id=connected.id, reason="x")
    services.remove_extension(by=bob.principal, extension_id=connected.id, reason="x")

    assert world.revoked
    assert connection().status == Link.DISCONNECTED


# --- secrets


def test_secrets_are_in_no_table_event_or_log(world, connected, call, caplog, ada):
    caplog.set_level(logging.DEBUG)
    world.end_access()
    call("desk__whoami")
    world.end_access()
    world.refuses_refresh = True
    with pytest.raises(AuthorizationWanted):
        call("desk__whoami")

    tables = dump()
    for secret in world.secrets():
        assert secret not in tables
        assert secret not in caplog.text


def dump():
    """Every row of every table as text."""
    text = []
    with database.cursor() as cursor:
        for model in apps.get_models():
            cursor.execute(f'SELECT * FROM "{model._meta.db_table}"')  # noqa: S608
            text += [repr(row) for row in cursor.fetchall()]
    return "\n".join(text)


def test_token_goes_to_its_own_server_only(world, connected, call):
    """T12: neither another server nor the authority is shown the access token."""
    call("desk__whoami")

    tokens = set(world.access)
    for port, _, _, sent, body in world.seen:
        shown = any(token in sent.get("authorization", "") + body for token in tokens)
        assert not shown or port == world.port


def test_token_is_not_sent_to_a_server_under_another_url(
    world, connected, call, ada, mcp
):
    other = OAuthWorld()
    other.start()
    new = services.NewServer(
        extension_id="desk",
        url=other.url,
        grants={"local": [f"127.0.0.1:{other.port}"]},
    )

    with pytest.raises(AuthorizationWanted):
        services.sync_mcp_server(by=ada.principal, new=new, reason="it moved")
    other.stop()

    assert not bearers(other)
    assert "another URL" in connection().problem


def test_token_cannot_be_granted_to_another_extension(connected, orders):
    name = connection().secret_name("access")
    orders.trust, orders.grants = "trusted", {"secrets": {"TOKEN": name}}

    with pytest.raises(ToolMisconfigured, match="never given to an extension"):
        sources.source_of(orders, "")


@pytest.mark.parametrize(
    "purpose", ["provider:openai", "second factor", "alert.webhook", "tool"]
)
def test_secret_of_something_else_cannot_be_granted(orders, purpose):
    """An approver's extension reads no provider's key and no second factor."""
    vault.put(by=SYSTEM, name="theirs", purpose=purpose, value="canary-of-theirs")
    orders.trust, orders.grants = "trusted", {"secrets": {"TOKEN": "theirs"}}

    with pytest.raises(ToolMisconfigured, match="secret of something else"):
        sources.source_of(orders, "")


# --- a lost key

LOST, NEW = (base64.b64encode(bytes([n]) * 4 + bytes(range(28))) for n in (1, 2))


@pytest.fixture
def lose(settings):
    """Begin with one key; then it is gone, which is accepted."""
    settings.POLAR_VAULT_KEY = ""
    settings.POLAR_VAULT_KEYS = f"k1:{LOST.decode()}"

    def run():
        settings.POLAR_VAULT_KEYS = f"k2:{NEW.decode()}"
        return vault.accept_loss(by=SYSTEM, reason="gone with its disk")

    return run


def test_lost_tokens_are_on_the_checklist_and_connecting_again_is_the_way(
    world, lose, connected, call, ask, finish
):
    lost = lose()

    told = vault.checklist()
    assert (len(told), {each.state for each in told}) == (lost, {"missing"})
    assert {each.used_by for each in told} == {"the connection of extension desk"}
    assert "connects desk again" in told[0].instead
    with pytest.raises(Conflict, match="is not typed"):
        vault.reenter(by=SYSTEM, secret_id=told[0].id, value="guessed")

    finish(world.consent(ask().url))

    assert vault.checklist() == []
    assert call("desk__whoami").output


def test_client_whose_secret_was_lost_registers_anew(world, lose, wanted, ask, finish):
    world.auth_methods = ["client_secret_basic"]
    finish(world.consent(ask().url))
    assert Secret.objects.filter(name="oauth/desk/server/client").exists()
    registered = len(world.clients)
    lose()

    finish(world.consent(ask().url))

    assert len(world.clients) == registered + 1
    assert vault.checklist() == []


def test_stored_secret_says_which_extension_is_given_it(orders):
    Extension.objects.filter(id=orders.id).update(
        grants={"secrets": {"TOKEN": "orders/token"}}
    )

    told = vault.store_secret(by=SYSTEM, name="orders/token", value="v")

    assert (told.used_by, told.page) == ("extension orders", "/extensions/orders/")


# --- refusals


def test_unknown_state_is_refused(world, ask, finish):
    answer = world.consent(ask().url)

    with pytest.raises(Denied):
        finish(answer, state="made-up")

    assert events("connection_refused").get().reason == "unknown_state"
    assert connection().status == Link.WANTED


def test_answer_is_good_once(world, connected, ask, finish):
    answer = world.consent(ask().url)
    finish(answer)

    with pytest.raises(Denied) as refused:
        finish(answer)

    assert refused.value.reason_code in ("state_used", "unknown_state")


def test_code_of_somebody_else_is_refused_by_pkce(world, ask, finish):
    stolen = world.consent(ask().url)["code"]
    answer = world.consent(ask().url)

    with pytest.raises(AuthorizationRefused, match="invalid_grant"):
        finish(answer, code=stolen)

    assert connection().status == Link.FAILED


def test_other_session_is_refused(world, ask, finish):
    with pytest.raises(Denied) as refused:
        finish(world.consent(ask().url), session_key="s2")

    assert refused.value.reason_code == "another_session"
    assert not world.access


def test_other_person_is_refused(world, ask, finish, bob):
    with pytest.raises(Denied) as refused:
        finish(world.consent(ask().url), by=bob)

    assert refused.value.reason_code == "another_person"


def test_state_ends_after_ten_minutes(world, ask, finish):
    answer = world.consent(ask().url)
    late = clock.now() - timedelta(seconds=1)
    ConnectionAsk.objects.update(expires_at=late)

    with pytest.raises(Denied) as refused:
        finish(answer)

    assert refused.value.reason_code == "too_late"


@pytest.mark.parametrize("iss", ["https://evil.example", None])
def test_answer_of_another_issuer_is_refused(world, ask, finish, iss):
    with pytest.raises(AuthorizationRefused):
        finish(world.consent(ask().url), iss=iss)

    assert not world.access


def test_no_is_kept_as_a_no(world, ask, finish):
    answer = world.consent(ask().url)

    with pytest.raises(AuthorizationRefused, match="access_denied"):
        finish(answer, error="access_denied", code="")

    assert connection().status == Link.FAILED


@pytest.mark.parametrize(
    "inside",
    ["http://169.254.169.254/latest", "https://10.0.0.8/x", "http://127.0.0.1:9/x"],
)
def test_metadata_that_leads_inside_is_refused(world, ask, inside):
    world.hint = inside
    Connection.objects.update(challenge={"metadata": inside})

    with pytest.raises((Denied, ToolMisconfigured)):
        ask()

    assert connection().status == Link.FAILED
    assert not world.clients


def test_authority_that_leads_inside_is_refused(world, ask):
    world.resource_metadata = {"authorization_servers": ["https://169.254.169.254"]}

    with pytest.raises(Denied):
        ask()


def test_token_endpoint_on_another_origin_is_refused(world, ask):
    world.metadata = {"token_endpoint": "https://tokens.example/token"}

    with pytest.raises(ToolMisconfigured, match="another host, tokens.example"):
        ask()


def test_endpoint_that_an_operator_wrote_down_is_accepted(world, ask, wanted):
    world.metadata = {"token_endpoint": "https://tokens.example/token"}
    wanted.grants["domains"] = ["tokens.example"]
    wanted.save()

    assert ask().url


def test_metadata_of_another_issuer_is_refused(world, ask):
    world.metadata = {"issuer": "https://evil.example"}

    with pytest.raises(ToolMisconfigured, match="another issuer"):
        ask()


def test_metadata_of_another_resource_is_refused(world, ask):
    world.resource_metadata = {"resource": "https://bank.example/mcp"}

    with pytest.raises(ToolMisconfigured, match="another server"):
        ask()


def test_authority_without_s256_is_refused(world, ask):
    world.metadata = {"code_challenge_methods_supported": ["plain"]}

    with pytest.raises(ToolMisconfigured, match="PKCE"):
        ask()


def test_authority_that_registers_nobody_says_what_to_do(world, ask):
    world.metadata = {"registration_endpoint": None}

    with pytest.raises(Invalid, match="client id"):
        ask()

    world.clients["mine"] = {"client_id": "mine", "redirect_uris": [BACK]}
    assert "client_id=mine" in ask(client_id="mine").url


def test_only_an_administrator_connects(ask, alice, bob, workspace):
    for person in (alice, bob):
        with pytest.raises(RoleRequired):
            ask(by=person)


def test_system_does_not_allow_in_a_persons_place(wanted):
    order = services.ConnectOrder(redirect_uri=BACK)
    with pytest.raises(Denied, match="A person"):
        services.connect_extension(
            by=access.system_principal(), extension_id=wanted.id, order=order
        )


def test_blocked_extension_is_not_connected(ask, wanted, bob):
    services.revoke_extension(by=bob.principal, extension_id=wanted.id, reason="odd")

    with pytest.raises(Conflict):
        ask()


# --- two workers


def test_who_comes_second_waits_for_the_first(world, connected, monkeypatch):
    """Rotating refresh tokens: a second use would end the whole family."""
    bearer = connections.bearer_of(connected, "", world.url)
    with ExitStack() as held:
        bearer.lease(held, "whoami", None)
    until = connections._claim(connection())
    tokens = ports.Tokens(access="another-worker-token", refresh="r" * 20)

    def other_worker_ends(seconds):
        assert connections.keep_renewed(connection(), until, tokens)

    monkeypatch.setattr(clock, "sleep", other_worker_ends)
    bearer.refused()

    assert world.refreshes == 0
    assert connection().version == 2


def test_who_died_while_renewing_is_followed_after_a_minute(world, connected, call):
    world.end_access()
    with clock.frozen(clock.now()):
        assert connections._claim(connection())
        clock.advance(connections.RENEWAL_SECONDS)

        assert call("desk__whoami").output

    assert world.refreshes == 1


def test_tokens_that_come_after_the_end_are_not_kept(world, connected, ada, mcp):
    row = connection()
    until = connections._claim(row)
    services.disconnect_extension(
        by=ada.principal, extension_id=connected.id, reason="over"
    )

    assert not connections.keep_renewed(row, until, ports.Tokens(access="late-token"))
    assert not Secret.objects.filter(purpose=connections.PURPOSE).exists()


@pytest.mark.postgres
@pytest.mark.skipif(database.vendor != "postgresql", reason="needs row locks")
@pytest.mark.django_db(transaction=True)
def test_four_workers_renew_once(world, connected):
    world.slow.clear()
    errors = []

    def work():
        try:
            bearer = connections.bearer_of(connected, "", world.url)
            with ExitStack() as held:
                bearer.lease(held, "whoami", None)
                ready.wait(20)
            bearer.refused()
        except PolarError as error:
            errors.append(error)
        finally:
            databases.close_all()

    ready = threading.Barrier(4)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    threading.Timer(0.5, world.slow.set).start()
    for each in threads:
        each.join()

    assert errors == []
    assert world.refreshes == 1
    assert not world.dead


# --- pages, API, command


@pytest.fixture
def desk(client, ada):
    client.force_login(ada)
    return client


def test_desk_connects_and_comes_back(world, wanted, desk):
    page = desk.get("/extensions/desk/").content.decode()
    assert "asks to be authorized" in page

    sent = desk.post("/extensions/desk/connect/", {"part": ""})
    assert sent["Location"].startswith(f"{world.issuer}/authorize?")
    back = desk.get("/extensions/oauth/callback/", world.consent(sent["Location"]))

    assert back["Location"] == "/extensions/desk/"
    page = desk.get("/extensions/desk/").content.decode()
    assert "renewed by itself" in page
    assert not any(secret in page for secret in world.secrets())


def test_desk_disconnects(world, connected, desk):
    desk.post("/extensions/desk/disconnect/", {"part": "", "reason": "over"})

    assert "Its tokens are gone" in desk.get("/extensions/desk/").content.decode()


def test_desk_of_another_session_is_refused(world, wanted, desk, ada):
    sent = desk.post("/extensions/desk/connect/", {"part": ""})
    answer = world.consent(sent["Location"])
    desk.logout()
    desk.force_login(ada)

    desk.get("/extensions/oauth/callback/", answer)

    assert events("connection_refused").get().reason == "another_session"


def test_operator_is_not_offered_to_connect(world, wanted, client, alice):
    client.force_login(alice)

    assert (
        "An administrator connects it"
        in client.get("/extensions/desk/").content.decode()
    )
    assert client.post("/extensions/desk/connect/", {"part": ""}).status_code == 403


def test_list_says_who_waits_for_an_administrator(wanted, desk):
    assert "connection wanted" in desk.get("/extensions/").content.decode()


def test_command_prints_the_url_and_disconnects(world, wanted, ada, finish):
    out = io.StringIO()
    words = ["connect", "desk", "--as", "ada", "--base-url", "http://testserver"]
    call_command("extensions", *words, stdout=out)
    finish(world.consent(json.loads(out.getvalue())["authorizationUrl"]))
    call_command("extensions", "disconnect", "desk", "--reason", "over", stdout=out)

    assert connection().status == Link.DISCONNECTED


def test_api_answers_where_to_go_and_how_it_stands(world, wanted, ada, client):
    client.force_login(ada)
    shown = client.get("/api/v1/extensions").json()["items"]

    assert [
        each["connections"][0]["status"] for each in shown if each["connections"]
    ] == ["wanted"]


# --- through the API


@pytest.fixture
def send(client):
    def run(who, verb, body, *, scope="extensions:write"):
        token = issue(who, scope)
        return client.post(
            f"/api/v1/extensions/desk/{verb}",
            json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {token}"},
        )

    return run


def test_operation_connects_as_far_as_the_browser(wanted, send, ada):
    response = send(ada, "connect", {})

    assert response.status_code == 200
    assert "code_challenge_method=S256" in response.json()["authorizationUrl"]
    assert ConnectionAsk.objects.count() == 1
    assert events("connection_asked").count() == 1


def test_operation_disconnects_and_leaves_the_trace(world, connected, send, ada):
    response = send(ada, "disconnect", {"reason": "not needed"})

    assert response.status_code == 200
    assert connection().status != Link.CONNECTED
    assert not Secret.objects.filter(purpose=connections.PURPOSE).exists()
    assert events("disconnected").count() == 1


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_operations_refuse_who_may_not(wanted, send, ada, alice, verb):
    body = {"reason": "why not"} if verb == "disconnect" else {}

    assert send(ada, verb, body, scope="extensions:read").status_code == 403
    assert send(alice, verb, body).status_code == 403
    assert not ConnectionAsk.objects.exists()
    assert connection().status == Link.WANTED
