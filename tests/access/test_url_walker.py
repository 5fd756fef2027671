"""Every operation of the API, asked by everybody who may not enter.

Nothing is listed by hand: a new operation is walked the moment it is routed. Pages
are walked as a viewer, who must never meet a server error.
"""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.urls import URLPattern, URLResolver, get_resolver

from apps.access import services
from apps.access.models import ROLE_ORDER, Role, User
from apps.access.policies import covers
from apps.access.queries import ROLE_SCOPES
from apps.common import clock
from polar_site.api import api
from tests import people

pytestmark = pytest.mark.django_db

ID = UUID("00000000-0000-7000-8000-000000000001")
SAMPLES = {"uuid": str(ID), "int": "1", "str": "x", "slug": "x", "path": "x"}


def _concrete(route: str, converters: dict) -> str:
    path = route
    for name, converter in converters.items():
        kind = type(converter).__name__.removesuffix("Converter").lower()
        value = SAMPLES.get(kind, "x")
        for form in (f"<{kind}:{name}>", f"<str:{name}>", f"<{name}>"):
            path = path.replace(form, value)
    return path


def _walk(patterns, prefix: str, converters: dict) -> Iterator[tuple[str, str]]:
    for each in patterns:
        pattern = each.pattern
        route = str(pattern).lstrip("^").rstrip("$").removesuffix(r"\Z")
        inside = {**converters, **getattr(pattern, "converters", {})}
        if isinstance(each, URLResolver):
            yield from _walk(each.url_patterns, prefix + route, inside)
        elif isinstance(each, URLPattern) and "(?P" not in route:
            yield "/" + _concrete(prefix + route, inside).lstrip("/"), each.name or ""


ADDRESSES = sorted({path for path, _ in _walk(get_resolver().url_patterns, "", {})})
PAGES = [path for path in ADDRESSES if not path.startswith("/api/")]
_visitors = itertools.count()
SCHEMA = dict(api.get_openapi_schema())
#: (path, method) of every operation.
OPERATIONS = sorted(
    (path.replace("{", "<").replace("}", ">"), method.upper())
    for path, methods in SCHEMA["paths"].items()
    for method in methods
)
#: Open by design, or with a check of their own.
DOORS = ("/healthz", "/readyz", "/metrics", "/login/", "/admin/login/", "/hooks/")


def _filled(path: str) -> str:
    parts = [str(ID) if part.startswith("<") else part for part in path.split("/")]
    return "/".join(parts)


def _token(**options) -> tuple[object, str]:
    system = services.system_principal()
    given = {"principal": system, "scopes": ["*"]} | options
    return services.issue_token(by=system, name="w", held=frozenset({"*"}), **given)


@pytest.fixture(autouse=True)
def every_door_is_there(settings) -> None:
    settings.POLAR_METRICS = True


@pytest.fixture
def credentials(workspace) -> dict[str, dict[str, str]]:
    """None, wrong, expired, revoked: nobody may enter with any of them."""
    soon = clock.now() + timedelta(seconds=1)
    with clock.frozen(clock.now() - timedelta(hours=1)):
        _, expired = _token(expires_at=clock.now() + timedelta(minutes=1))
    revoked, ended = _token(expires_at=soon + timedelta(days=1))
    services.revoke_token(by=services.system_principal(), token_id=revoked.id)
    raws = {"wrong": "garbage", "expired": expired, "revoked": ended}
    bearers = {name: {"Authorization": f"Bearer {raw}"} for name, raw in raws.items()}
    return {"none": {}, **bearers}


def test_walk_finds_every_operation_and_many_pages():
    assert len(OPERATIONS) >= 100
    assert len(PAGES) >= 60


@pytest.mark.parametrize("credential", ["none", "wrong", "expired", "revoked"])
def test_api_when_credential_is_no_good_then_401(client, credentials, credential):
    headers = credentials[credential]

    let_in = [
        (method, path, answer.status_code)
        for path, method in OPERATIONS
        if (answer := _ask(client, method, _filled(path), headers)).status_code != 401
    ]

    assert let_in == []


@pytest.mark.parametrize("body", ["{}", "{not json", "[" * 2000, '{"reason": 7}'])
def test_api_when_scope_is_another_then_403_before_the_body(client, workspace, body):
    _, raw = _token(scopes=["nothing:read", "act_as:nowhere"])

    assert _let_in(client, raw, body) == set()


@pytest.mark.parametrize("body", ["{}", "{not json"])
def test_api_when_role_is_none_then_403_before_the_body(client, workspace, body):
    _, raw = _token(principal=people.stranger("nobody").principal)

    assert _let_in(client, raw, body) == set()


@pytest.mark.parametrize("role", list(ROLE_ORDER))
def test_api_when_role_is_lower_than_asked_for_then_403(client, workspace, role):
    """A token of everything reaches as far as its owner's role, and no further."""
    user = people.person(f"the-{role}", role, workspace)
    _, raw = _token(principal=user.principal)

    let_in = _let_in(client, raw, "{}")

    assert let_in == {each for each in OPERATIONS if _least_role(each) <= _rank(role)}


def test_roles_open_more_from_one_to_the_next():
    counted = [_least_role(each) for each in OPERATIONS]

    assert [counted.count(rank) > 5 for rank in range(4)] == [True] * 4


def _let_in(client, raw: str, body: str) -> set[tuple[str, str]]:
    """Return what answered otherwise than 403."""
    headers = {"Authorization": f"Bearer {raw}"}
    return {
        (path, method)
        for path, method in OPERATIONS
        if _ask(client, method, _filled(path), headers, body).status_code != 403
    }


def _least_role(operation: tuple[str, str]) -> int:
    """Rank the least role that an operation says it asks for."""
    path, method = operation
    said = SCHEMA["paths"][path.replace("<", "{").replace(">", "}")][method.lower()]
    scope = frozenset({said["x-scope"]})
    covering = [
        rank for rank, role in enumerate(ROLE_ORDER) if covers(ROLE_SCOPES[role], scope)
    ]
    return max(covering[0], _rank(said.get("x-role", ROLE_ORDER[0])))


def _rank(role: str) -> int:
    return ROLE_ORDER.index(role)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_when_viewer_then_no_server_error(client, workspace, method):
    """A viewer may look; whatever they may not do is refused in words."""
    client.force_login(people.person("vera", Role.VIEWER, workspace))
    client.raise_request_exception = False

    broken = [
        path
        for path in PAGES
        if _ask(client, method, path, {}).status_code >= 500 and path != "/readyz"
    ]

    assert broken == []


SESSIONS = ("garbage", "forged", "ended", "over", "of somebody sent away")


@pytest.mark.parametrize("session", SESSIONS)
def test_page_when_session_is_no_good_then_asked_to_sign_in(client, ada, session):
    _spoil(client, ada, session)

    let_in = []
    for path in PAGES:
        if path.startswith(DOORS):
            continue
        for method in ("GET", "POST"):
            answer = client.generic(method, path)
            asks = answer.status_code == 302 and "/login/" in answer["Location"]
            if not asks and answer.status_code not in (401, 403, 405):
                let_in.append((method, path, answer.status_code))

    assert let_in == []


@pytest.mark.parametrize("session", SESSIONS)
def test_api_when_session_is_no_good_then_401(client, ada, session):
    _spoil(client, ada, session)

    let_in = [
        (method, path)
        for path, method in OPERATIONS
        if _ask(client, method, _filled(path), {}).status_code != 401
    ]

    assert let_in == []


@pytest.fixture
def ada(workspace):
    return people.person("ada", Role.ADMIN, workspace)


def _spoil(client, ada, session: str) -> None:
    """Give the browser a session that lets nobody in."""
    client.force_login(ada)
    key = client.cookies[settings.SESSION_COOKIE_NAME].value
    if session == "garbage":
        client.cookies[settings.SESSION_COOKIE_NAME] = "garbage"
    elif session == "forged":
        client.cookies[settings.SESSION_COOKIE_NAME] = key[:-1] + "~"
    elif session == "ended":
        row = services.open_session(
            user=ada, session_key=key, address="10.0.0.1", browser="b"
        )
        services.end_session(user=ada, sign_in_id=row.id)
    elif session == "over":
        over = clock.now() - timedelta(seconds=1)
        Session.objects.filter(session_key=key).update(expire_date=over)
    else:
        User.objects.filter(id=ada.id).update(is_active=False)


def _ask(client, method: str, path: str, headers: dict[str, str], body: str = "{}"):
    # From an address of its own, so that no wrong token closes the door of the next.
    address = f"10.0.{next(_visitors) // 250 % 250}.{next(_visitors) % 250}"
    return client.generic(
        method,
        path,
        body,
        content_type="application/json",
        headers=headers,
        REMOTE_ADDR=address,
    )
