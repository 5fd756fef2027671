"""Providers over the API: the same services, the same rules."""

from typing import Any

import pytest

from apps.access import services as access
from apps.providers.models import KeyStage, Provider
from tests.fakes.openai_server import REPLY, openai_server
from tests.providers import builders

pytestmark = pytest.mark.django_db

JSON = "application/json"
KEY = "sk-canary-old-000001"


def bearer(scopes: list[str]) -> dict[str, str]:
    system = access.system_principal()
    _, raw = access.issue_token(
        by=system, principal=system, name="t", scopes=scopes, held=frozenset({"*"})
    )
    return {"Authorization": f"Bearer {raw}"}


@pytest.fixture
def may_all(workspace: Any) -> dict[str, str]:
    builders.ready(workspace)
    return bearer(["*"])


def test_a_provider_is_made_asked_and_removed(client, may_all):
    with openai_server(models=("a", "b")) as server:
        body = {"kind": "openai_compatible", "baseUrl": server.url, "key": KEY}
        made = client.put("/api/v1/providers/near", body, JSON, headers=may_all)
        client.put(
            "/api/v1/providers/near/models", {"name": "a"}, JSON, headers=may_all
        )
        route = {"provider": "near", "model": "a"}
        client.put("/api/v1/lanes/worker/routes", route, JSON, headers=may_all)
        listed = client.get("/api/v1/providers/near/models", headers=may_all).json()
        tested = client.post("/api/v1/providers/near/test", headers=may_all).json()
    gone = client.delete("/api/v1/providers/near", headers=may_all)

    assert made.status_code == 200
    assert KEY not in made.content.decode()
    assert listed["items"] == ["a", "b"]
    assert (tested["ok"], tested["model"]) == (True, "a")
    assert (gone.status_code, Provider.objects.count()) == (204, 0)


def test_a_lane_is_asked_and_says_who_served(client, may_all):
    question = {"lane": "brain", "messages": [{"role": "user", "text": "Hello?"}]}
    with openai_server() as server:
        builders.route("brain", url=server.url)
        answer = client.post("/api/v1/generate", question, JSON, headers=may_all)

    said = answer.json()
    assert (said["text"], said["servedBy"]) == (REPLY, "fake/fake-1")
    assert said["micros"] > 0


def test_a_lane_that_cannot_answer_says_so(client, may_all):
    question = {"lane": "brain", "messages": [{"role": "user", "text": "Hello?"}]}
    answer = client.post("/api/v1/generate", question, JSON, headers=may_all)

    assert answer.status_code == 503
    assert answer.json()["code"] == "POLAR_NO_ROUTE_AVAILABLE"


@pytest.mark.django_db(transaction=True)
def test_an_answer_streams(client, may_all):
    question = {"lane": "brain", "messages": [{"role": "user", "text": "Hello?"}]}
    with openai_server() as server:
        builders.route("brain", url=server.url)
        answer = client.post("/api/v1/stream", question, JSON, headers=may_all)
        text = b"".join(answer.streaming_content).decode()

    assert text.count("event: delta") >= 2
    assert "event: done" in text.rsplit("\n\n", 2)[-2]


def test_texts_become_vectors(client, may_all):
    with openai_server() as server:
        builders.route("brain", url=server.url)
        body = {"provider": "fake", "model": "fake-1", "texts": ["a", "b"]}
        answer = client.post("/api/v1/embed", body, JSON, headers=may_all)

    assert answer.json()["items"] == [[0.0, 1.0], [1.0, 1.0]]


def test_a_key_changes_step_by_step(client, may_all):
    url = "/api/v1/providers/fake/key"
    with openai_server() as server:
        builders.route("brain", url=server.url, key=KEY)
        body = {"action": "stage", "key": "sk-canary-new-000002"}
        client.post(url, body, JSON, headers=may_all)
        early = client.post(url, {"action": "promote"}, JSON, headers=may_all)
        tested = client.post(url, {"action": "test"}, JSON, headers=may_all).json()
        odd = client.post(url, {"action": "jump"}, JSON, headers=may_all)

    assert early.status_code == 409
    assert (tested["report"]["ok"], tested["provider"]["keyStage"]) == (
        True,
        KeyStage.TESTED,
    )
    assert odd.status_code == 422
    assert odd.json()["fields"][0]["path"] == "action"


QUESTION = {"messages": [{"role": "user", "text": "Hello?"}]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("put", "providers/near", {"kind": "openai"}),
        ("post", "providers/near/test", {}),
        ("post", "providers/near/key", {"action": "stage", "key": "k"}),
        ("put", "lanes/brain/routes", {"provider": "near", "model": "m"}),
        ("post", "generate", QUESTION),
        ("post", "stream", QUESTION),
    ],
)
def test_a_reading_token_changes_nothing(client, workspace, method, path, body):
    reading = bearer(["providers:read"])
    answer = getattr(client, method)(f"/api/v1/{path}", body, JSON, headers=reading)

    assert answer.status_code == 403
    assert not Provider.objects.exists()


def test_a_stale_revision_is_a_conflict(client, may_all):
    body = {"kind": "openai", "key": KEY}
    client.put("/api/v1/providers/v", body, JSON, headers=may_all)
    client.put("/api/v1/providers/v", body, JSON, headers=may_all)
    stale = client.put(
        "/api/v1/providers/v", body | {"expectedRevision": 1}, JSON, headers=may_all
    )

    assert stale.status_code == 409
