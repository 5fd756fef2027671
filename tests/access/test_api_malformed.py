"""Whatever is sent in whatever shape, the API answers in words: a problem with a code,
never a bare 500, a page of HTML or a stack trace.
"""

from http import HTTPStatus

import pytest

from apps.access import services
from tests.access.test_url_walker import OPERATIONS, _filled

pytestmark = pytest.mark.django_db

HEADERS = (
    *({"Origin": text} for text in ("http://[", "http://[::1", "null", "://", "é")),
    *({"Host": text} for text in ("evil.example", "a b", "[", "[::1", "..")),
    *({"traceparent": text} for text in ("", "00-", "x" * 5000, "00-zz-zz-zz", "é")),
    *({"Authorization": text} for text in ("Bearer", "Basic =", "é", "Bearer \0")),
    {"Authorization": "Bearer " + "a" * 100_000},
    {"Authorization": "bearer éÿ"},
    *({"Idempotency-Key": text} for text in ("é", "x" * 10_000, "", "\t", "a\0b")),
    {"Content-Type": "application/json; charset=utf-99"},
    {"Content-Encoding": "gzip"},
    {"Cookie": "sessionid=é; ;=;"},
    {"X-HTTP-Method-Override": "DELETE"},
)
LENGTHS = ("²", "-1", "+5", " 5", "0x10", "9" * 400)
ADDRESSES = (
    "/api/v1/nothing",
    "/api/v1",
    "/api/v1//runs",
    "/api/v1/runs/",
    "/api/v1/runs/not-an-id",
    "/api/v1/runs%00",
    "/api/v1/%ff",
    "/api/v1/" + "a" * 9000,
    "/api/v1/profiles/%ed%a0%80",
    "/api/v1/configs/providers/%ed%a0%80",
    "/api/v1/vault/kits/%ff",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "X")
QUERIES = (
    "limit=99999999999999999999",
    "limit=1e9",
    "limit=٣",
    "cursor=%ed%a0%80",
    "cursor=%00",
    "cursor[]=1",
    "%ff=%fe",
    "state=%ff&trace_id=%ff&type=%ff",
)
BODIES = (
    b"",
    b"null",
    b"[]",
    b"NaN",
    b"{",
    b'{"a":' + b"[" * 100_000,
    b'{"text":"\xff","reason":"\xff"}',
    b"\xff\xfe{}",
    b'{"text":"\\ud800","reason":"\\ud800"}',
    b'{"a":' + b"9" * 5000 + b"}",
    b"\0",
)
#: Ask for what stands still here, or look at the whole machine.
SLOW = ("/doctor", "/continuity", "/snapshots", "/stream", "/events")
#: Says what is wrong in the words of its own contract.
EXECUTE = "/api/v1/extensions/execute"
READS = [path for path, method in OPERATIONS if method == "GET"]
WRITES = [each for each in OPERATIONS if each[1] != "GET"]


@pytest.fixture
def send(client, workspace):
    """Send something as an administrator; tell what is wrong with the answer."""
    client.raise_request_exception = False
    system = services.system_principal()
    token, raw = services.issue_token(
        by=system, principal=system, name="t", scopes=["*"], held=frozenset({"*"})
    )
    services.limit_token(by=system, token_id=token.id, rate_per_minute=600_000)

    def ask(method, path, body=b"{}", headers=None, **more):
        sent = {"Authorization": f"Bearer {raw}", **(headers or {})}
        answer = client.generic(
            method, path, body, "application/json", headers=sent, **more
        )
        wrong = faults(answer, path)
        return [(method, path[:60], answer.status_code, *wrong)] if wrong else []

    return ask


def faults(answer, path: str) -> list[str]:
    honest = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
    said = b"" if answer.streaming else answer.content
    found = ["a trace"] if b"Traceback" in said or b"site-packages" in said else []
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        found += [] if answer.status_code in honest else ["a fault"]
    is_problem = answer.get("Content-Type") == "application/problem+json"
    if answer.status_code >= HTTPStatus.BAD_REQUEST and path != EXECUTE:
        is_said = is_problem and (not said or answer.json()["code"])
        found += [] if is_said else ["no problem"]
    return found


def test_headers_of_every_sort(send):
    asked = [("GET", "/api/v1/runs"), ("POST", "/api/v1/orchestrate")]

    assert [s for h in HEADERS for m, p in asked for s in send(m, p, headers=h)] == []


def test_lengths_that_are_none(send):
    wrong = [
        said
        for length in LENGTHS
        for said in send("POST", "/api/v1/orchestrate", CONTENT_LENGTH=length)
    ]

    assert wrong == []


def test_addresses_and_methods_that_are_none(send):
    wrong = [said for path in ADDRESSES for m in METHODS for said in send(m, path)]
    for path in sorted({path for path, _ in OPERATIONS}):
        wrong += [said for m in ("OPTIONS", "X") for said in send(m, _filled(path))]

    assert wrong == []


def test_method_that_is_not_taken_names_those_that_are(client, db):
    answer = client.delete("/api/v1/runs")

    assert (answer.status_code, answer["Allow"]) == (405, "GET")
    assert answer.json()["code"] == "POLAR_METHOD_NOT_ALLOWED"


def test_queries_of_every_sort(send):
    wrong = [
        said
        for path in READS
        for query in QUERIES
        if not path.endswith(SLOW)
        for said in send("GET", f"{_filled(path)}?{query}")
    ]

    assert wrong == []


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bodies_of_every_sort(send, body):
    wrong = [
        said
        for path, method in WRITES
        if not path.endswith(SLOW)
        for said in send(method, _filled(path), body)
    ]

    assert wrong == []
