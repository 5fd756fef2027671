"""Turns, traces, profiles and pins over the API."""

from typing import Any

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import Principal, User
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Conversation, Turn
from tests import people


def client_of(principal: Principal, *scopes: str) -> Client:
    _, raw = access.issue_token(
        by=principal,
        principal=principal,
        name="test",
        scopes=scopes,
        held=frozenset({"*"}),
    )
    return Client(headers={"Authorization": f"Bearer {raw}"})


@pytest.fixture
def client(operator: Principal, primary: AgentProfile) -> Client:
    return client_of(operator, "agents:*", "runs:read")


def send(client: Client, method: str, path: str, body: Any = None) -> Any:
    call = getattr(client, method)
    return call(f"/api/v1{path}", data=body, content_type="application/json")


def test_orchestrate_starts_a_turn(client: Client) -> None:
    answer = send(client, "post", "/orchestrate", {"text": "hi", "agent": "@writer"})

    assert (answer.status_code, answer.json()["agent"]) == (202, "writer")
    assert Turn.objects.get().run.trigger == "api"


def test_orchestrate_continues_a_session(
    client: Client, conversation: Conversation
) -> None:
    body = {"text": "hi", "sessionId": str(conversation.id)}

    answer = send(client, "post", "/orchestrate", body)

    assert answer.json()["sessionId"] == str(conversation.id)


def test_orchestrate_without_its_scope_is_refused(
    operator: Principal, primary: AgentProfile
) -> None:
    client = client_of(operator, "agents:read")

    answer = send(client, "post", "/orchestrate", {"text": "hi"})

    assert answer.status_code == 403
    assert not Turn.objects.exists()


def test_orchestrate_in_a_foreign_session_is_refused(
    conversation: Conversation, charlie: User
) -> None:
    body = {"text": "hi", "sessionId": str(conversation.id)}
    nobody = access.principal_for_user(user=people.stranger("nobody"))
    stranger = send(client_of(nobody, "agents:*"), "post", "/orchestrate", body)
    principal = access.principal_for_user(user=charlie)
    neighbour = send(client_of(principal, "agents:*"), "post", "/orchestrate", body)

    assert stranger.status_code == 403
    assert neighbour.status_code == 404


def test_orchestrate_refuses_what_it_does_not_know(client: Client) -> None:
    answer = send(client, "post", "/orchestrate", {"text": "hi", "wait": True})

    assert (answer.status_code, answer.json()["code"]) == (
        422,
        "POLAR_CONTRACT_VALIDATION_ERROR",
    )


def test_trace_is_shown_with_its_turn(client: Client, turn: Turn) -> None:
    body = send(client, "get", f"/traces/{turn.trace_id}").json()

    assert [bar["kind"] for bar in body["bars"]] == ["turn"]
    assert body["turns"][0]["message"] == turn.message_text


def test_unknown_trace_is_not_found(client: Client) -> None:
    assert send(client, "get", f"/traces/{'0' * 32}").status_code == 404


def test_profiles_are_listed(client: Client) -> None:
    body = send(client, "get", "/profiles").json()

    assert [each["slug"] for each in body] == [
        "coder",
        "primary",
        "researcher",
        "writer",
    ]


def test_profile_is_shown_with_its_prompt(
    client: Client, primary: AgentProfile
) -> None:
    body = send(client, "get", "/profiles/primary").json()

    assert body["systemPrompt"] == primary.system_prompt
    assert body["allowedHandoffTargets"] == ["researcher", "writer", "coder"]


def test_pin_decides_until_it_is_taken_away(client: Client) -> None:
    pin = {"scope": "user", "agent": "writer"}
    assert send(client, "put", "/profile-pins", pin).status_code == 200
    pinned = send(client, "get", "/profiles/effective").json()

    gone = send(client, "delete", "/profile-pins?scope=user").status_code

    free = send(client, "get", "/profiles/effective").json()
    assert (pinned["agent"], pinned["source"]) == ("writer", "user")
    assert (gone, free["agent"], free["source"]) == (204, "primary", "default")


def test_broken_pin_is_shown_not_passed_over(
    client: Client, operator: Principal
) -> None:
    writer = AgentProfile.objects.get(slug="writer")
    agents.pin(by=operator, scope="user", key=str(operator.id), profile=writer)
    AgentProfile.objects.filter(id=writer.id).update(is_active=False)

    answer = send(client, "get", "/profiles/effective")

    assert answer.status_code == 422
    assert answer.json()["code"] == "POLAR_PROFILE_PIN_BROKEN"
