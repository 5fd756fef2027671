"""The door of Slack's webhook: who gets in, and what is never parsed."""

import json
from datetime import UTC, datetime

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from apps.channels.adapters.slack_door import check_signature
from apps.channels.engine import door
from apps.channels.errors import Forged, Malformed, TooLarge
from apps.common import clock
from tests.fakes import slack_server as fake

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
BODY = json.dumps(fake.message("hello")).encode()


def request(body: bytes = BODY, **headers: str) -> HttpRequest:
    meta = {f"HTTP_{key.upper().replace('-', '_')}": headers[key] for key in headers}
    return RequestFactory().post("/hook", body, content_type="application/json", **meta)


def signed(body: bytes = BODY, *, age: float = 0, secret: str = "") -> dict[str, str]:
    at = NOW.timestamp() - age
    return fake.signed(body, secret=secret or fake.SIGNING_SECRET, at=at)


def check(sent: HttpRequest, body: bytes = BODY) -> None:
    with clock.frozen(NOW):
        check_signature(sent.headers, body, fake.SIGNING_SECRET)


def test_what_slack_signed_is_let_in() -> None:
    check(request(**signed()))


@pytest.mark.parametrize("age", [301, -301, 86_400])
def test_old_and_future_requests_are_refused(age: float) -> None:
    with pytest.raises(Forged):
        check(request(**signed(age=age)))


@pytest.mark.parametrize("bit", range(0, len(BODY) * 8, 97))
def test_one_changed_bit_is_refused(bit: int) -> None:
    changed = bytearray(BODY)
    changed[bit // 8] ^= 1 << (bit % 8)

    with pytest.raises(Forged):
        check(request(**signed()), bytes(changed))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Slack-Request-Timestamp": str(int(NOW.timestamp()))},
        {"X-Slack-Signature": signed()["X-Slack-Signature"]},
        signed(secret="another"),
        signed() | {"X-Slack-Signature": signed()["X-Slack-Signature"][:-1]},
        signed() | {"X-Slack-Signature": "v0=" + "0" * 64},
        signed() | {"X-Slack-Request-Timestamp": "nan"},
        signed() | {"X-Slack-Request-Timestamp": "-1"},
        signed() | {"X-Slack-Request-Timestamp": "1e9"},
        signed() | {"X-Slack-Request-Timestamp": "9" * 400},
        signed() | {"X-Slack-Signature": "v0=ü"},
    ],
)
def test_forged_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Forged):
        check(request(**headers))


def test_account_without_a_signing_secret_lets_nobody_in() -> None:
    empty = fake.signed(BODY, secret="", at=NOW.timestamp())

    with clock.frozen(NOW), pytest.raises(Forged):
        check_signature(request(**empty).headers, BODY, "")


def test_large_body_is_refused_by_its_length_and_by_reading() -> None:
    large = b"x" * (door.LARGEST_BODY + 1)
    lying = request(large)
    lying.META["CONTENT_LENGTH"] = "10"

    with pytest.raises(TooLarge):
        door.read_raw(request(large))
    with pytest.raises(TooLarge):
        door.read_raw(lying)


def test_web_pages_are_refused() -> None:
    with pytest.raises(Forged):
        door.check_browserless(request(Origin="https://evil.example"))


def test_deep_json_is_refused_before_it_is_parsed() -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

    with pytest.raises(Malformed):
        door.parse_json(deep)


def test_brackets_inside_a_string_are_not_depth() -> None:
    assert door.parse_json(json.dumps({"a": "[" * 500 + '"' + "{" * 500}).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'"x"', b"\xff", b"nul"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        door.parse_json(raw)
