"""Money and durations in words; failpoints and loops at the edge of a process."""

import threading
from types import SimpleNamespace

import pytest

from apps.common import failpoints, loops, units


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "$0.00"), (1_230_000, "$1.23"), (1_500, "$0.0015"), (10**12, "$1,000,000.00")],
)
def test_money_is_written_for_people(micros, text):
    assert units.format_usd(micros) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (310, "310 ms"),
        (4_100, "4.1 s"),
        (192_000, "3 min 12 s"),
        (7_260_000, "2 h 1 min"),
    ],
)
def test_duration_is_written_for_people(ms, text):
    assert units.format_duration(ms) == text


def test_failpoint_does_nothing_unless_armed():
    reached = []
    failpoints.reach("a")
    failpoints.install(reached.append)
    failpoints.reach("b")
    failpoints.install(None)
    failpoints.reach("c")

    assert reached == ["b"]


def test_loop_goes_on_after_a_step_failed(monkeypatch, caplog):
    stop, calls = threading.Event(), []
    monkeypatch.setattr(stop, "wait", lambda seconds: None)

    def step():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("passing fault")
        stop.set()

    loops.run_forever("test", step, interval=0, stop=stop)

    assert len(calls) == 2
    assert [record.loop for record in caplog.records] == ["test"]


def test_loop_lets_go_of_its_connection_after_a_step_failed(monkeypatch):
    stop, closed = threading.Event(), []
    monkeypatch.setattr(stop, "wait", lambda seconds: stop.set())
    outside = SimpleNamespace(in_atomic_block=False, close=lambda: closed.append(1))
    inside = SimpleNamespace(in_atomic_block=True, close=lambda: closed.append(2))
    all_of_them = SimpleNamespace(all=lambda initialized_only: [outside, inside])
    monkeypatch.setattr(loops, "connections", all_of_them)

    def step():
        raise ValueError

    loops.run_forever("test", step, interval=0, stop=stop)

    assert closed == [1]


def test_loop_waits_no_longer_than_it_may(monkeypatch):
    stop, waits = threading.Event(), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 4:
            stop.set()

    monkeypatch.setattr(stop, "wait", wait)

    def step():
        raise ValueError

    loops.run_forever("test", step, interval=0, stop=stop, longest=3)

    assert waits == [1, 2, 3, 3]


def test_loop_waits_longer_after_each_failure(monkeypatch):
    stop, waits = threading.Event(), []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 7:
            stop.set()

    monkeypatch.setattr(stop, "wait", wait)

    def step():
        raise ValueError

    loops.run_forever("test", step, interval=0, stop=stop)

    assert waits == [1, 2, 4, 8, 16, 30, 30]
