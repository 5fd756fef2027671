"""A write sent twice under one key happens once and is answered twice."""

import json
from datetime import timedelta

import pytest

from apps.access import services
from apps.access.models import KeyedAnswer, Token
from apps.common import clock
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
