"""Every operation of the API, asked by everybody who may not enter.

Nothing is listed by hand: a new operation is walked the moment it is routed. Pages
are walked as a viewer, who must never meet a server error.
"""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from apps.access import services
from apps.access.models import Role
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
#: (path, method) of every operation.
OPERATIONS = sorted(
    (path.replace("{", "<").replace("}", ">"), method.upper())
    for path, methods in api.get_openapi_schema()["paths"].items()
    for method in methods
)


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


def test_api_when_scope_is_another_then_403(client, workspace):
    _, raw = _token(scopes=["nothing:read"])
    headers = {"Authorization": f"Bearer {raw}"}

    let_in = []
    for path, method in OPERATIONS:
        answer = _ask(client, method, _filled(path), headers)
        # A body that is no request of this operation may be refused first.
        if answer.status_code not in (403, 422):
            let_in.append((method, path, answer.status_code))

    assert let_in == []


def test_api_when_role_is_none_then_403(client, workspace):
    _, raw = _token(principal=people.stranger("nobody").principal)
    headers = {"Authorization": f"Bearer {raw}"}

    let_in = []
    for path, method in OPERATIONS:
        answer = _ask(client, method, _filled(path), headers)
        if answer.status_code not in (403, 422):
            let_in.append((method, path, answer.status_code))

    assert let_in == []


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


def _ask(client, method: str, path: str, headers: dict[str, str]):
    # From an address of its own, so that no wrong token closes the door of the next.
    address = f"10.0.{next(_visitors) // 250 % 250}.{next(_visitors) % 250}"
    return client.generic(
        method,
        path,
        "{}",
        content_type="application/json",
        headers=headers,
        REMOTE_ADDR=address,
    )
