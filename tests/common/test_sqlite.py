"""Writers take turns at the SQLite file; closed connections are used again."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from polar_site.sqlite3.base import MOST_IDLE, DatabaseWrapper, Idle, file_identity
from polar_site.sqlite3.turns import NEXT, Seats, Turns, Turnstile


def test_turnstile_when_many_wait_then_in_order() -> None:
    turnstile, order = Turnstile(), []
    turnstile.enter(1)

    def wait(number: int) -> None:
        assert turnstile.enter(30)
        order.append(number)
        turnstile.leave()

    threads = []
    for number in range(20):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        while len(turnstile._waiting) <= number:
            pass
        threads.append(thread)
    turnstile.leave()
    for thread in threads:
        thread.join()

    assert order == list(range(20))


def test_turnstile_when_its_turn_does_not_come_then_gives_up() -> None:
    turnstile = Turnstile()
    turnstile.enter(1)

    assert not turnstile.enter(0.01)

    turnstile.leave()
    assert turnstile.enter(0.01)


#: A process that asks for its turn, takes it, and says what it does.
OTHER = """
import sys
from polar_site.sqlite3.turns import Turns
turns = Turns(sys.argv[1])
assert turns.enter(60)
sys.stdout.write("came")
sys.stdout.flush()
if sys.argv[2] == "stay":
    sys.stdin.read()
turns.leave()
"""


@contextmanager
def another(path: Path, then: str) -> Iterator[subprocess.Popen[bytes]]:
    asked = [sys.executable, "-c", OTHER, str(path), then]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(asked, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.read(4)


def test_turns_when_another_process_waits_then_it_is_not_passed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    mine, look = Turns(str(path)), Seats(str(path))
    assert mine.enter(60)
    with another(path, "go") as other:
        while look._take(NEXT, 0, 1):
            look._give(NEXT)
        assert other.stdout is not None
        os.set_blocking(other.stdout.fileno(), False)
        assert said(other) is None, "it came while somebody else had the turn"

        mine.leave()
        assert mine.enter(60)

        assert said(other) == b"came"
    mine.leave()


def test_turns_when_who_had_it_is_killed_then_the_next_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    seats = Seats(str(path))
    with another(path, "stay") as other:
        assert said(other) == b"came"
        assert not seats.enter(0.01), "two have the turn"
        assert not seats.enter(60), "it waits in vain a second time"
        other.kill()
        other.wait()

        assert seats.enter(60)


def test_turns_when_no_seat_can_be_had_then_the_file_decides(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path / "gone" / "a.db"))

    assert turns.enter(60)

    turns.leave()
    assert turns.enter(60)


def opened(path: Path) -> sqlite3.Connection:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return raw


def test_idle_when_kept_then_the_next_gets_it(tmp_path: Path) -> None:
    path, idle = tmp_path / "a.db", Idle()
    raw = opened(path)
    assert idle.keep(str(path), file_identity(str(path)), raw)

    taken = idle.take(str(path))

    assert taken is not None
    assert taken[0] is raw
    assert idle.take(str(path)) is None


def test_idle_when_the_file_was_exchanged_then_not_given(tmp_path: Path) -> None:
    path, other, idle = tmp_path / "a.db", tmp_path / "b.db", Idle()
    raw = opened(path)
    idle.keep(str(path), file_identity(str(path)), raw)
    opened(other).close()
    other.rename(path)

    assert idle.take(str(path)) is None


def test_idle_when_its_log_was_deleted_then_not_given(tmp_path: Path) -> None:
    path, idle = tmp_path / "a.db", Idle()
    raw = opened(path)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.execute("INSERT INTO t VALUES (1)")
    assert idle.keep(str(path), file_identity(str(path)), raw)

    (tmp_path / "a.db-wal").unlink()

    assert idle.take(str(path)) is None


def test_idle_when_dropped_then_closed(tmp_path: Path) -> None:
    path, idle = tmp_path / "a.db", Idle()
    raw = opened(path)
    idle.keep(str(path), file_identity(str(path)), raw)

    idle.drop(str(tmp_path / "another.db"))
    idle.drop(str(path))

    assert idle.take(str(path)) is None
    with pytest.raises(sqlite3.ProgrammingError):
        raw.execute("SELECT 1")


def test_idle_when_in_a_transaction_or_full_then_refused(tmp_path: Path) -> None:
    path, idle = tmp_path / "a.db", Idle()
    busy = opened(path)
    busy.execute("BEGIN")
    identity = file_identity(str(path))

    assert not idle.keep(str(path), identity, busy)
    kept = [idle.keep(str(path), identity, opened(path)) for _ in range(MOST_IDLE + 1)]
    assert kept == [True] * MOST_IDLE + [False]


@pytest.fixture
def loose(tmp_path: Path) -> Iterator[Path]:
    """A store of an older install, which everybody may read, and its log."""
    before = os.umask(0o022)
    path = tmp_path / "old.db"
    with closing(opened(path)) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("INSERT INTO t VALUES (1)")
        yield path
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def connect(path: Path) -> Any:
    settings = {
        **connections["default"].settings_dict,
        "NAME": str(path),
        "OPTIONS": {},
    }
    wrapper = DatabaseWrapper(settings)
    return wrapper.get_new_connection(wrapper.get_connection_params())


def test_store_when_new_then_its_owner_alone_reads_it_and_its_log(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        with closing(connect(tmp_path / "new.db")) as raw:
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute("CREATE TABLE t (x)")
            assert len(list(tmp_path.iterdir())) == 3
            assert modes(tmp_path) == {0o600}
    finally:
        os.umask(before)


def test_store_when_strangers_could_read_it_then_no_longer(loose: Path) -> None:
    assert modes(loose.parent) == {0o644}

    connect(loose).close()

    assert modes(loose.parent) == {0o640}


def test_store_when_shared_with_a_group_then_left_so(loose: Path) -> None:
    loose.chmod(0o660)

    connect(loose).close()

    assert loose.stat().st_mode & 0o777 == 0o660
