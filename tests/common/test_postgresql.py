"""Few trips to the server, in order and honestly told; a restart is met once."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import (
    IntegrityError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
)

from apps.common import clock

pytestmark = [pytest.mark.postgres, pytest.mark.django_db]


@pytest.fixture
def wrapper() -> Iterator[Any]:
    if connection.vendor != "postgresql":
        pytest.skip("needs PostgreSQL")
    from polar_site.postgresql.base import DatabaseWrapper

    settings = {**connections["default"].settings_dict, "TIME_ZONE": "UTC"}
    own = DatabaseWrapper(settings, alias="pooled")
    yield own
    own.close()
    own.close_pool()


@pytest.fixture
def trips(wrapper: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A table that only this connection sees, and what was sent together."""
    from polar_site.postgresql import base

    said: list[list[str]] = []
    really = base.send_together

    def send(raw: Any, statements: base.Waiting) -> None:
        said.append([each.query.split()[0] for each in statements])
        really(raw, statements)

    ask(wrapper, "CREATE TEMP TABLE box (n int PRIMARY KEY)")
    monkeypatch.setattr(base, "send_together", send)
    return said


class Lost(Exception):
    """Somebody else was quicker."""


def ask(wrapper: Any, sql: str) -> list[Any]:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def begin(wrapper: Any) -> None:
    wrapper.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)


def commit(wrapper: Any) -> None:
    wrapper.commit()
    wrapper.set_autocommit(True)


def roll_back(wrapper: Any) -> None:
    wrapper.rollback()
    wrapper.set_autocommit(True)


def put(wrapper: Any, number: int) -> None:
    wrapper.execute_later("INSERT INTO box VALUES (%s)", [number])


def numbers(wrapper: Any) -> list[int]:
    return [row[0] for row in ask(wrapper, "SELECT n FROM box ORDER BY n")]


def test_rows_that_nobody_reads_travel_with_the_commit(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    put(wrapper, 2)
    commit(wrapper)

    assert trips == [["BEGIN", "INSERT", "INSERT", "COMMIT"]]
    assert numbers(wrapper) == [1, 2]


def test_statement_sees_what_was_given_before_it(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    seen = numbers(wrapper)
    commit(wrapper)

    assert seen == [1]
    assert trips == [["BEGIN", "INSERT", "SELECT"]]


def test_refused_row_is_told_at_the_commit_and_nothing_is_kept(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    put(wrapper, 1)
    with pytest.raises(IntegrityError):
        wrapper.commit()
    roll_back(wrapper)

    assert numbers(wrapper) == []


def test_refused_row_is_told_by_the_next_statement(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    put(wrapper, 1)
    with pytest.raises(IntegrityError):
        ask(wrapper, "SELECT 1")
    roll_back(wrapper)

    assert numbers(wrapper) == []


@pytest.mark.parametrize("next_statement", ["SELECT 1", ""])
def test_update_that_met_no_row_is_told_before_anything_is_committed(
    wrapper: Any, trips: list[list[str]], next_statement: str
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    wrapper.execute_later("UPDATE box SET n = 9 WHERE n = %s", [5], Lost())
    with pytest.raises(Lost):
        if next_statement:
            ask(wrapper, next_statement)
        wrapper.commit()
    roll_back(wrapper)

    assert numbers(wrapper) == []


def test_update_that_met_no_row_is_told_before_what_a_later_row_says(
    wrapper: Any, trips: list[list[str]]
) -> None:
    ask(wrapper, "INSERT INTO box VALUES (5)")
    begin(wrapper)
    wrapper.execute_later("UPDATE box SET n = 9 WHERE n = %s", [8], Lost())
    put(wrapper, 5)
    with pytest.raises(Lost):
        ask(wrapper, "SELECT 1")
    roll_back(wrapper)

    assert numbers(wrapper) == [5]
    assert trips == [["BEGIN", "UPDATE", "INSERT", "SELECT"]]


def test_update_that_met_its_row_stands(wrapper: Any, trips: list[list[str]]) -> None:
    ask(wrapper, "INSERT INTO box VALUES (5)")
    begin(wrapper)
    wrapper.execute_later("UPDATE box SET n = 9 WHERE n = %s", [5], Lost())
    commit(wrapper)

    assert numbers(wrapper) == [9]
    assert trips == [["BEGIN", "UPDATE"], ["COMMIT"]]


def test_answer_asked_for_later_comes_with_the_next(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    first = wrapper.execute_later("SELECT %s::int", [7])
    ask(wrapper, "SELECT 1")

    assert first() == (7,)
    assert wrapper.execute_later("SELECT %s::int", [8])() == (8,)
    assert trips == [["BEGIN", "SELECT", "SELECT"], ["SELECT"]]
    commit(wrapper)


def test_what_waits_is_dropped_with_its_savepoint_or_transaction(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    wrapper._savepoint("here")
    put(wrapper, 2)
    wrapper._savepoint_rollback("here")
    commit(wrapper)
    begin(wrapper)
    put(wrapper, 3)
    roll_back(wrapper)

    assert numbers(wrapper) == [1]


def test_transaction_that_did_nothing_makes_no_trip(
    wrapper: Any, trips: list[list[str]]
) -> None:
    begin(wrapper)
    commit(wrapper)

    assert trips == []


def test_two_outside_a_transaction_are_one_of_their_own(
    wrapper: Any, trips: list[list[str]]
) -> None:
    put(wrapper, 1)
    with pytest.raises(IntegrityError):
        ask(wrapper, "INSERT INTO box VALUES (1)")

    assert numbers(wrapper) == []
    assert trips == [["INSERT", "INSERT"]]


@pytest.mark.parametrize("way", ["executemany", "copy", "named", "stream"])
def test_every_way_to_the_server_takes_along_what_waits(
    wrapper: Any, trips: list[list[str]], way: str
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    if way == "named":
        with wrapper.chunked_cursor() as cursor:
            cursor.execute("SELECT n FROM box")
            assert cursor.fetchall() == [(1,)]
    else:
        raw = wrapper.create_cursor()
        if way == "executemany":
            raw.executemany("INSERT INTO box VALUES (%s)", [(2,), (3,)])
        elif way == "copy":
            with raw.copy("COPY box FROM STDIN") as copy:
                copy.write_row((2,))
        else:
            assert list(raw.stream("SELECT n FROM box")) == [(1,)]
    roll_back(wrapper)

    assert trips[0] == ["BEGIN", "INSERT"]
    assert numbers(wrapper) == []


@pytest.mark.parametrize("later", [True, False])
def test_value_that_cannot_be_sent_is_refused_at_once_and_nothing_is_lost(
    wrapper: Any, trips: list[list[str]], later: bool
) -> None:
    begin(wrapper)
    put(wrapper, 1)
    with pytest.raises(ProgrammingError), wrapper.cursor() as cursor:
        execute = wrapper.execute_later if later else cursor.execute
        execute("INSERT INTO box VALUES (%s)", [object()])
    commit(wrapper)

    assert numbers(wrapper) == [1]


def test_statement_that_is_sent_often_is_prepared(
    wrapper: Any, trips: list[list[str]]
) -> None:
    for number in range(6):
        begin(wrapper)
        put(wrapper, number)
        commit(wrapper)

    known = ask(wrapper, "SELECT statement FROM pg_prepared_statements")
    assert [row[0] for row in known] == ["INSERT INTO box VALUES ($1)"]


def test_connection_that_was_just_used_is_not_asked_again(
    wrapper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polar_site.postgresql import base

    checked: list[Any] = []
    monkeypatch.setattr(base.ConnectionPool, "check_connection", checked.append)
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    ask(wrapper, "SELECT 1")
    wrapper.close()
    checked.clear()
    ask(wrapper, "SELECT 1")
    assert not checked
    wrapper.close()

    monkeypatch.setattr(clock, "monotonic", lambda: now + base.TRUSTED_SECONDS)
    ask(wrapper, "SELECT 1")

    assert len(checked) == 1


def test_pool_when_all_of_it_died_then_the_first_who_asks_gets_a_live_one(
    wrapper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wrapper.get_connection_params()
    lent = [wrapper.get_new_connection(asked) for _ in range(5)]
    processes = [raw.info.backend_pid for raw in lent]
    for raw in lent:
        wrapper.pool.putconn(raw)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(p) FROM unnest(%s) p", [processes])
    later = clock.monotonic() + 1.0
    monkeypatch.setattr(clock, "monotonic", lambda: later)

    raw = wrapper.get_new_connection(asked)

    assert raw.execute("SELECT 1").fetchone() == (1,)
    assert not {raw.info.backend_pid} & set(processes)
    assert wrapper.pool.get_stats()["connections_lost"] == 4
    wrapper.pool.putconn(raw)


def test_connection_that_is_found_dead_ends_the_trust_in_all(
    wrapper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polar_site.postgresql import base

    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    monkeypatch.setattr(base.DatabaseWrapper, "broken_at", 0.0)
    asked = wrapper.get_connection_params()
    rested = wrapper.get_new_connection(asked)
    rested.put_back_at = now
    assert wrapper._was_just_used(rested)
    ask(wrapper, "SELECT 1")
    [[process]] = ask(wrapper, "SELECT pg_backend_pid()")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [process])
    with pytest.raises(OperationalError):
        ask(wrapper, "SELECT 1")
    wrapper.close()

    assert not wrapper._was_just_used(rested)
    wrapper.pool.putconn(rested)
