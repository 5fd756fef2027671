"""A write sent twice under one key happens once and is answered twice."""

import hashlib
import json
from datetime import timedelta

import pytest

from apps.access import services
from apps.access.models import KeyedAnswer, Token
from apps.agents import services as agents
from apps.agents.models import Conversation, Turn
from apps.common import clock, failpoints
from apps.gateway.models import Halt

pytestmark = pytest.mark.django_db

URL = "/api/v1/halt"


def bearer(*scopes: str) -> dict[str, str]:
    system = services.system_principal()
    _, raw = services.issue_token(
        by=system,
        principal=system,
        name="t",
        scopes=scopes or ["*"],
        held=frozenset({"*"}),
    )
    return {"Authorization": f"Bearer {raw}"}


def send(client, headers, *, key="k1", url=URL, reason="drill"):
    body = json.dumps({"reason": reason} if url == URL else reason)
    return client.post(
        url,
        body,
        content_type="application/json",
        headers={**headers, "Idempotency-Key": key},
    )


def test_key_when_sent_twice_then_same_answer_and_one_effect(client, workspace):
    headers = bearer()

    first, second = send(client, headers), send(client, headers)

    assert first.json() == second.json()
    assert second["Idempotency-Replayed"] == "true"
    assert Halt.objects.count() == 1


def test_key_when_body_differs_then_409(client, workspace):
    headers = bearer()
    send(client, headers)

    assert send(client, headers, reason="other").status_code == 409


def test_key_when_of_another_principal_then_own_answer(client, workspace, bob):
    send(client, bearer())
    _, raw = services.issue_token(
        by=services.system_principal(),
        principal=bob.principal,
        name="t",
        scopes=["halt:*"],
        held=frozenset({"*"}),
    )

    answer = send(client, {"Authorization": f"Bearer {raw}"}, reason="mine")

    assert "Idempotency-Replayed" not in answer


def test_key_when_first_is_under_way_then_409(client, workspace):
    headers = bearer()
    send(client, headers)
    KeyedAnswer.objects.update(status=0)

    assert send(client, headers).status_code == 409
    assert Halt.objects.count() == 1


def test_key_when_a_day_later_then_anew(client, workspace):
    headers = bearer()
    send(client, headers)

    with clock.frozen(clock.now() + timedelta(hours=25)):
        assert "Idempotency-Replayed" not in send(client, headers)


def test_key_when_refused_then_free_again(client, workspace):
    assert send(client, bearer("runs:read")).status_code == 403
    assert send(client, bearer()).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 201, "a\x7f"])
def test_key_when_it_cannot_be_one_then_422(client, workspace, key):
    assert send(client, bearer(), key=key).status_code == 422


def test_key_when_stranger_then_401(client, db):
    assert send(client, {}).status_code == 401
    assert not KeyedAnswer.objects.exists()


def test_key_when_answer_is_secret_then_not_kept(client, workspace):
    headers = bearer()
    body = {"name": "n", "scopes": ["runs:read"]}

    first = send(client, headers, url="/api/v1/tokens", reason=body)
    second = send(client, headers, url="/api/v1/tokens", reason=body)

    raw = first.json()["token"]
    assert (first.status_code, second.status_code) == (201, 409)
    assert raw not in str(list(KeyedAnswer.objects.values()))
    assert Token.objects.filter(name="n").count() == 1


@pytest.mark.parametrize("form", ["offline", "shares"])
def test_key_when_answer_is_a_recovery_kit_then_not_kept(client, workspace, form):
    headers = bearer()
    body = {"form": form}

    first = send(client, headers, url="/api/v1/vault/kits", reason=body)
    second = send(client, headers, url="/api/v1/vault/kits", reason=body)

    assert (first.status_code, second.status_code) == (201, 409)
    kept = str(list(KeyedAnswer.objects.values()))
    assert [line for line in first.json()["lines"] if line in kept] == []


def test_key_when_the_request_has_a_password_then_no_plain_hash_of_it(
    client, workspace
):
    body = {"username": "dora", "password": "a-password-of-dora", "role": "viewer"}

    send(client, bearer(), url="/api/v1/users", reason=body)

    (row,) = KeyedAnswer.objects.all()
    sent = f"POST /api/v1/users\0application/json\0{json.dumps(body)}".encode()
    assert row.request_digest != hashlib.sha256(sent).hexdigest()


TURNS = "/api/v1/orchestrate"


@pytest.fixture
def agent(workspace):
    agents.install_default_profiles(workspace=workspace, by=services.system_principal())


def ask(client, headers, text="hello"):
    return send(client, headers, url=TURNS, reason={"text": text})


def test_turn_when_the_first_request_died_before_its_commit_then_done_once(
    client, agent, monkeypatch
):
    headers = bearer()

    def die(name):
        if name == "turn.started":
            raise SystemExit

    failpoints.install(die)
    try:
        with pytest.raises(SystemExit):
            ask(client, headers)
    finally:
        failpoints.install(None)
    assert (Turn.objects.count(), KeyedAnswer.objects.get().status) == (0, 0)

    first, second = ask(client, headers), ask(client, headers)

    assert (first.status_code, first.json()) == (202, second.json())
    assert second["Idempotency-Replayed"] == "true"
    assert Turn.objects.count() == 1


def test_turn_when_the_answer_was_lost_then_the_repeat_gets_it(client, agent):
    headers = bearer()

    def die(name):
        if name == "answer.kept":
            raise SystemExit

    failpoints.install(die)
    try:
        with pytest.raises(SystemExit):
            ask(client, headers)
    finally:
        failpoints.install(None)

    answer = ask(client, headers)

    assert answer["Idempotency-Replayed"] == "true"
    assert answer.json()["runId"] == str(Turn.objects.get().run_id)


def test_turn_when_refused_then_nothing_is_left_and_the_refusal_is_kept(client, agent):
    headers = bearer()

    first, second = ask(client, headers, text=""), ask(client, headers, text="")

    assert (first.status_code, second.status_code) == (422, 422)
    assert second["Idempotency-Replayed"] == "true"
    assert not Turn.objects.exists() and not Conversation.objects.exists()


def test_turn_when_its_key_was_given_back_meanwhile_then_409(
    client, agent, monkeypatch
):
    begun = services.begin_answer

    def and_given_back(**asked):
        row, is_first = begun(**asked)
        services.release_answer(row=row)
        return row, is_first

    monkeypatch.setattr(services, "begin_answer", and_given_back)

    assert ask(client, bearer()).status_code == 409
    assert not Turn.objects.exists()
