"""A server that restarted is met once: all that waits in the pool is looked at."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]


@pytest.fixture
def wrapper() -> Iterator[Any]:
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    from polar_site.postgresql.base import DatabaseWrapper

    settings = {**connections["default"].settings_dict, "TIME_ZONE": "UTC"}
    own = DatabaseWrapper(settings, alias="pooled")
    yield own
    own.close_pool()


def test_pool_when_all_of_it_died_then_the_first_who_asks_gets_a_live_one(
    wrapper: Any,
) -> None:
    asked = wrapper.get_connection_params()
    lent = [wrapper.get_new_connection(asked) for _ in range(5)]
    processes = [raw.info.backend_pid for raw in lent]
    for raw in lent:
        wrapper.pool.putconn(raw)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(p) FROM unnest(%s) p", [processes])

    raw = wrapper.get_new_connection(asked)

    assert raw.execute("SELECT 1").fetchone() == (1,)
    assert not {raw.info.backend_pid} & set(processes)
    assert wrapper.pool.get_stats()["connections_lost"] == 4
    wrapper.pool.putconn(raw)
