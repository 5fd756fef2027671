"""Whatever the schema lets one send, the API answers without a server error.

A few cases per operation in the suite; POLAR_FUZZ_CASES sets how many of each
(80 make more than 10,000 over all operations).
"""

import os
from http import HTTPStatus

import pytest
import schemathesis
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings

from apps.access import services
from polar_site.api import api

pytestmark = pytest.mark.django_db

CASES = int(os.environ.get("POLAR_FUZZ_CASES", "2"))
SCHEMA = schemathesis.openapi.from_dict(dict(api.get_openapi_schema()))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]
#: These hold the connection open or reach for what the suite does not have.
APART = {"streamOutput", "streamRunEvents", "createSnapshot"}
GROUPS = 8


class RolledBack(Exception):
    """Ends a case's transaction, so that the next one meets the same store."""


@pytest.fixture
def bearer(workspace) -> dict[str, str]:
    system = services.system_principal()
    _, raw = services.issue_token(
        by=system, principal=system, name="f", scopes=["*"], held=frozenset({"*"})
    )
    return {"Authorization": f"Bearer {raw}"}


@pytest.mark.parametrize("group", range(GROUPS))
def test_api_when_fuzzed_then_no_server_error(client, bearer, group):
    client.raise_request_exception = False
    failed: list[tuple[str, str, int, object]] = []

    for operation in OPERATIONS[group::GROUPS]:
        if operation.definition.raw.get("operationId") not in APART:
            _fuzz(client, bearer, operation, failed)

    assert failed == []


def _fuzz(client, bearer, operation, failed) -> None:
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def once(case) -> None:
        try:
            with transaction.atomic():
                status = _send(client, bearer, case)
                raise RolledBack
        except RolledBack:
            if status == HTTPStatus.INTERNAL_SERVER_ERROR:
                failed.append((case.method, case.path, status, case.body))

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
    return answer.status_code


def _text(body: object) -> str:
    return api.renderer.render(None, body, response_status=200)
