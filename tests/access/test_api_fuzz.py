"""Whatever the schema lets one send, and what it does not, is answered without a
server error.

A few cases per operation in the suite; POLAR_FUZZ_CASES asks for so many different
ones over all operations, and fails when fewer were sent.
"""

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
import schemathesis
from django.core.signals import request_finished
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from apps.access import services
from polar_site.api import api

pytestmark = pytest.mark.django_db

CASES = int(os.environ.get("POLAR_FUZZ_CASES", "0"))
SCHEMA = schemathesis.openapi.from_dict(dict(api.get_openapi_schema()))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]
#: Takes nothing that could be varied, and copies the whole store.
APART = {"createSnapshot"}
ASKED = [
    each for each in OPERATIONS if each.definition.raw.get("operationId") not in APART
]
#: Refusals that say what is missing: nothing answers upstream, or the vault waits.
HONEST = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.INSUFFICIENT_STORAGE,
}
GROUPS = 8
#: Different cases a group sends at the least, and of one operation in one round.
SHARE = -(-CASES // GROUPS) or len(ASKED) // GROUPS
EACH = max(1, -(-CASES // (2 * len(ASKED))))
MOST_ROUNDS = 40
#: What the schema allows, and what it does not, by turns.
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class RolledBack(Exception):
    """Ends a case's transaction, so that the next one meets the same store."""


@pytest.fixture
def bearer(workspace) -> dict[str, str]:
    system = services.system_principal()
    _, raw = services.issue_token(
        by=system, principal=system, name="f", scopes=["*"], held=frozenset({"*"})
    )
    return {"Authorization": f"Bearer {raw}"}


@dataclass
class Fuzz:
    """What was sent, and what failed."""

    sent: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    failed: list[tuple[str, str, int, object]] = field(default_factory=list)


@pytest.mark.parametrize("group", range(GROUPS))
def test_api_when_fuzzed_then_no_server_error(client, bearer, group):
    client.raise_request_exception = False
    found = Fuzz()

    for number in range(MOST_ROUNDS):
        for operation in ASKED[group::GROUPS]:
            _fuzz(client, bearer, operation, found, number)
        if number + 1 >= len(MODES) and len(found.sent) >= SHARE:
            break

    if CASES:
        told = ", ".join(f"{n} × {code}" for code, n in sorted(found.answers.items()))
        sys.stdout.write(f"fuzz: group {group}, {len(found.sent)} cases: {told}\n")
    assert found.failed == []
    assert len(found.sent) >= SHARE


def _fuzz(client, bearer, operation, found, number) -> None:
    @seed(number)
    @settings(
        max_examples=EACH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=MODES[number % len(MODES)]))
    def once(case) -> None:
        named = repr((case.method, case.formatted_path, case.query, case.body))
        if named in found.sent:
            return
        found.sent.add(named)
        try:
            with transaction.atomic():
                status = _send(client, bearer, case)
                raise RolledBack
        except RolledBack:
            found.answers[status] += 1
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in HONEST:
                found.failed.append((case.method, case.path, status, case.body))

    once()


def _send(client, bearer, case) -> int:
    arguments = case.as_transport_kwargs(base_url="http://localhost")
    body = arguments.get("json")
    answer = client.generic(
        case.method,
        case.formatted_path,
        data="" if body is None else _text(body),
        content_type="application/json",
        headers=bearer,
        query_params=arguments.get("params") or {},
    )
    # Ends a stream or a file; the transaction of the case keeps its connection.
    request_finished.disconnect(close_old_connections)
    answer.close()
    request_finished.connect(close_old_connections)
    return answer.status_code


def _text(body: object) -> str:
    return api.renderer.render(None, body, response_status=200)
