"""Every page asks strangers to sign in, by the URL configuration itself."""

import re
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

pytestmark = pytest.mark.django_db

#: Open by design: alive and ready, the way in, and doors with a check of their own.
OPEN = re.compile(
    r"^/(healthz|readyz|metrics|login/.*|admin/login/|hooks/.*|static/.*|api/.*)$"
)
FILLED = {
    "uuid": "01a215a3-b31c-71e5-8524-16c700000000",
    "int": "1",
    "slug": "some-slug",
    "str": "a" * 32,
    "path": "some/path",
}


def paths() -> list[str]:
    """Write down one address for each pattern that a browser can ask for."""
    return sorted(set(_walk(get_resolver().url_patterns, "/")))


def _walk(patterns: list[URLPattern | URLResolver], before: str) -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern.pattern, RoutePattern):
            part = re.sub(
                r"<(?:(\w+):)?\w+>",
                lambda found: FILLED[found.group(1) or "str"],
                pattern.pattern._route,
            )
        else:
            continue  # the admin's catch-all and the API's own, walked elsewhere
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, before + part)
        else:
            yield before + part


PATHS = [path for path in paths() if not OPEN.match(path)]


def test_the_walk_meets_every_area() -> None:
    assert len(PATHS) > 300
    for area in ("boards", "runs", "approvals", "vault", "incidents", "drills"):
        assert any(path.startswith(f"/{area}/") for path in PATHS), area


def test_no_page_opens_to_a_stranger(client: Client) -> None:
    wrong = []
    for path in PATHS:
        for method in (client.get, client.post):
            answer = method(path)
            asks = answer.status_code == 302 and "/login/" in answer["Location"]
            if not asks and answer.status_code not in (401, 403, 404, 405):
                wrong.append((method.__name__, path, answer.status_code))

    assert wrong == []


def test_a_foreign_form_changes_nothing(client: Client, alice) -> None:
    """A signed-in browser that was tricked sends no CSRF token."""
    tricked = Client(enforce_csrf_checks=True)
    tricked.force_login(alice)
    wrong = []
    for path in PATHS:
        if path.startswith("/admin/"):
            continue
        status = tricked.post(path).status_code
        if status not in (403, 404, 405):
            wrong.append((path, status))

    assert wrong == []
