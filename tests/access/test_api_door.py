"""The API's door: strangers get 401 before anything is parsed."""

import json

import pytest

from apps.access import services
from apps.audit.models import Event

pytestmark = pytest.mark.django_db

JSON = "application/json"


@pytest.fixture
def bearer(workspace) -> dict[str, str]:
    system = services.system_principal()
    _, raw = services.issue_token(
        by=system, principal=system, name="t", scopes=["*"], held=frozenset({"*"})
    )
    return {"Authorization": f"Bearer {raw}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer garbage"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer "},
        {"X-Forwarded-User": "admin"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_api_when_stranger_then_401_before_the_body(client, db, headers):
    answer = client.post(
        "/api/v1/orchestrate", "{not json", content_type=JSON, headers=headers
    )

    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"


def test_api_when_malformed_json_then_400(client, bearer):
    answer = client.post(
        "/api/v1/orchestrate", "{not json", content_type=JSON, headers=bearer
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "POLAR_BAD_REQUEST")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"text": "a\\ud800"}', "half of a character"),
        ('{"text": ' + "[" * 200 + "]" * 200 + "}", "nested deeper"),
        (b'{"text": "\xff"}', "not UTF-8"),
    ],
)
def test_api_when_nobody_could_keep_the_body_then_400_says_why(
    client, bearer, body, why
):
    answer = client.post("/api/v1/orchestrate", body, content_type=JSON, headers=bearer)

    assert answer.status_code == 400
    assert why in answer.json()["detail"]


def test_api_when_unknown_field_then_422_names_it(client, bearer):
    body = json.dumps({"text": "hello", "approved": True})

    answer = client.post("/api/v1/orchestrate", body, content_type=JSON, headers=bearer)

    assert answer.status_code == 422
    assert "approved" in json.dumps(answer.json()["fields"])


def test_api_when_body_too_large_then_413(client, bearer):
    answer = client.post(
        "/api/v1/orchestrate", "x" * 1_100_000, content_type=JSON, headers=bearer
    )

    assert answer.status_code == 413


def test_api_when_length_is_hidden_then_411(client, bearer):
    answer = client.get(
        "/api/v1/runs", headers={**bearer, "Transfer-Encoding": "chunked"}
    )

    assert answer.status_code == 411


def test_api_when_foreign_origin_then_403(client, bearer):
    answer = client.get(
        "/api/v1/runs", headers={**bearer, "Origin": "https://evil.example"}
    )

    assert answer.status_code == 403


def test_api_when_session_writes_without_csrf_then_403(client, alice):
    client.force_login(alice)
    client.handler.enforce_csrf_checks = True

    answer = client.post("/api/v1/halt", '{"reason": "x"}', content_type=JSON)

    assert answer.status_code == 403


def test_api_when_scope_missing_then_403(client, workspace):
    system = services.system_principal()
    _, raw = services.issue_token(
        by=system,
        principal=system,
        name="narrow",
        scopes=["runs:read"],
        held=frozenset({"*"}),
    )

    answer = client.post(
        "/api/v1/halt",
        '{"reason": "x"}',
        content_type=JSON,
        headers={"Authorization": f"Bearer {raw}"},
    )

    assert answer.status_code == 403


def test_api_when_halting_then_recorded(client, bearer):
    answer = client.post(
        "/api/v1/halt", '{"reason": "drill"}', content_type=JSON, headers=bearer
    )

    assert answer.status_code == 200
    assert Event.objects.filter(type="halt.set").count() == 1


def test_api_when_cursor_foreign_then_422(client, bearer):
    answer = client.get("/api/v1/runs?cursor=nonsense", headers=bearer)

    assert answer.status_code == 422


def test_api_when_traceparent_sent_then_returned(client, bearer):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    answer = client.get(
        "/api/v1/runs",
        headers={**bearer, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
    )

    assert trace in answer["traceparent"]
