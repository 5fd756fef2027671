"""Time is told in one place, never backwards, and can be held."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import connection

from apps.common import clock

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_now_is_utc():
    assert clock.now().tzinfo is UTC


def test_now_never_runs_backwards():
    told = [clock.now() for _ in range(2_000)]

    assert told == sorted(told)


def test_now_keeps_going_when_the_wall_clock_is_set_back(monkeypatch):
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: before.timestamp() - 3600)

    assert clock.now() >= before


def test_now_follows_a_wall_clock_that_is_set_forward(monkeypatch):
    ahead = float(round(time.time()) + 3600)
    monkeypatch.setattr(time, "time", lambda: ahead)

    assert clock.now().timestamp() >= ahead


def test_frozen_holds_the_clock_and_lets_go():
    with clock.frozen(AT):
        assert clock.now() == clock.now() == AT

    assert clock.now() != AT


def test_frozen_inside_frozen_returns_to_the_outer_time():
    with clock.frozen(AT):
        with clock.frozen(AT + timedelta(days=1)):
            pass
        assert clock.now() == AT


def test_frozen_time_is_told_in_utc():
    paris = timezone(timedelta(hours=1))

    with clock.frozen(datetime(2026, 3, 1, 13, tzinfo=paris)):
        assert clock.now() == AT
        assert clock.now().tzinfo is UTC


def test_advance_moves_a_frozen_clock():
    with clock.frozen(AT):
        clock.advance(90)

        assert clock.now() == AT + timedelta(seconds=90)


def test_advance_refuses_a_running_clock():
    with pytest.raises(RuntimeError):
        clock.advance(1)


def test_monotonic_moves_forward():
    first = clock.monotonic()
    clock.sleep(0.001)

    assert clock.monotonic() > first


@pytest.fixture
def measured(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no clock of its own")
    monkeypatch.setattr(clock, "_connection_is_open", lambda: True)
    clock.now()


@pytest.mark.postgres
@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_jump_of_this_hosts_wall_clock_moves_no_lease_on_postgresql(
    measured: None, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    really, before = time.time, clock.now()
    monkeypatch.setattr(time, "time", lambda: really() + jump)

    told = [clock.now(), clock.now()]  # the jump has it measured anew

    assert all(0 <= (each - before).total_seconds() < 60 for each in told)
    assert clock.offset_seconds() == pytest.approx(-jump, abs=60)


@pytest.mark.postgres
def test_clock_of_the_database_decides_on_postgresql(
    measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = clock._database_zero
    assert zero is not None
    monkeypatch.setattr(clock, "_measure", lambda: zero + 7200)
    monkeypatch.setattr(clock, "_measured_at", (0.0, 0.0))  # long ago

    assert (clock.now() - datetime.now(UTC)).total_seconds() == pytest.approx(
        7200, abs=60
    )
    assert clock.offset_seconds() == pytest.approx(7200, abs=60)
