"""Fixtures of the whole suite: the cast, and no network."""

import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test import TransactionTestCase, override_settings
from pytest_django import DjangoDbBlocker

from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from apps.audit.engine import memory, opened, recording, triggers
from apps.common import clock
from tests import network, people


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Block everything but loopback and Unix sockets, from first test to last."""
    with network.blocked():
        yield


@pytest.fixture(autouse=True, scope="session")
def static_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the static files a root of their own; nothing was collected here."""
    with override_settings(STATIC_ROOT=tmp_path_factory.mktemp("static")):
        yield


@pytest.fixture(autouse=True, scope="session")
def flush_past_the_log() -> Iterator[None]:
    """Let a transactional test empty the append-only tables behind it."""
    flush = TransactionTestCase._fixture_teardown

    def lifted(case: TransactionTestCase) -> None:
        triggers.remove(connection)
        flush(case)
        triggers.install(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lifted)
        yield


@pytest.fixture(scope="session")
def django_db_setup(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """Send away the sessions of threads that ended with their tests, so that the
    test database can be dropped."""
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(autouse=True)
def clock_asks_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL the clock measures the database's time every few seconds through
    an open connection: one statement more, now and then, in a page whose statements
    are counted. A test that wants it says so (`tests/common/test_clock.py`)."""
    monkeypatch.setattr(clock, "_connection_is_open", lambda: False)
    monkeypatch.setattr(clock, "_database_zero", None)


@pytest.fixture(autouse=True)
def a_process_that_remembers_nothing() -> Iterator[None]:
    """Each test has a store of its own, which no earlier one may contradict."""
    memory.forget()
    yield
    memory.forget()


@pytest.fixture(autouse=True)
def transaction_of_the_test_counts_for_nothing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most tests run in a transaction of their own, and would hide that code which
    records an event forgot to open one. A test itself may record in its own."""
    mark = request.node.get_closest_marker("django_db")
    is_alone = "transactional_db" in request.fixturenames
    if is_alone or (mark.kwargs.get("transaction") if mark else False):
        return
    if mark is None and "db" not in request.fixturenames:
        return
    request.getfixturevalue("db")
    depth, mine = len(connection.savepoint_ids), threading.get_ident()
    usual = recording.has_transaction

    def has_transaction() -> bool:
        is_shallow = len(connection.savepoint_ids) <= depth
        if is_shallow and threading.get_ident() == mine:
            return _is_told_by_a_test()
        return usual()

    monkeypatch.setattr(recording, "has_transaction", has_transaction)


def _is_told_by_a_test() -> bool:
    frame = sys._getframe(2)
    while frame.f_back is not None and "/apps/audit/" in frame.f_code.co_filename:
        frame = frame.f_back
    return "/tests/" in frame.f_code.co_filename


@pytest.fixture
def on_a_file(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """SQLite as it is deployed, for tests of several threads: the suite's store in
    memory locks whole tables at once and lets nobody wait. Ask for it first."""
    if connection.vendor != "sqlite":
        yield
        return
    name, path = connection.settings_dict["NAME"], tmp_path / "polar.db"
    connection.ensure_connection()
    with closing(sqlite3.connect(path)) as empty:
        connection.connection.backup(empty)
    in_memory, connection.connection = connection.connection, None
    connection.settings_dict["NAME"] = str(path)
    try:
        yield
    finally:
        connections.close_all()
        connection.drop_idle()
        connection.settings_dict["NAME"] = name
        connection.connection = in_memory
        opened.note_opened(connections["default"])


@pytest.fixture
def workspace(db: None) -> Workspace:
    """The workspace of a fresh install."""
    return access.ensure_default_workspace()


@pytest.fixture
def alice(workspace: Workspace) -> User:
    """Alice operates."""
    return people.person("alice", Role.OPERATOR, workspace)


@pytest.fixture
def bob(workspace: Workspace) -> User:
    """Bob approves."""
    return people.person("bob", Role.APPROVER, workspace)


@pytest.fixture
def charlie(db: None) -> User:
    """Charlie operates another workspace."""
    return people.outsider("charlie")


@pytest.fixture
def rob(workspace: Workspace) -> Principal:
    """Rob is an agent."""
    return people.agent("rob", workspace)


@pytest.fixture
def folders(settings: Any, tmp_path: Path) -> None:
    """Give a store the folders that an installation has beside it."""
    for name in ("POLAR_WITNESS_DIR", "POLAR_SNAPSHOT_DIR", "POLAR_EXTENSIONS_DIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        setattr(settings, name, folder)
