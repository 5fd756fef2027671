"""Ids sort by time and stay apart; trace ids travel with the work."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from apps.common import clock, ids

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_ids_sort_in_the_order_they_were_made():
    made = [ids.new_id() for _ in range(10_000)]

    assert made == sorted(set(made))


def test_ids_sort_even_within_one_frozen_moment():
    with clock.frozen(AT + timedelta(days=3650)):
        made = [ids.new_id() for _ in range(5_000)]

    assert made == sorted(set(made))


def test_ids_of_many_threads_stay_apart():
    made: list = []
    threads = [
        threading.Thread(target=lambda: made.extend(ids.new_id() for _ in range(2_000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 8_000


def test_id_is_a_version_7_uuid_of_its_millisecond(monkeypatch):
    monkeypatch.setattr(ids, "_last_tick", 0)

    with clock.frozen(AT):
        made = ids.new_id()

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(AT.timestamp() * 1000)


def test_trace_id_is_32_hex_digits():
    trace_id = ids.new_trace_id()

    assert len(trace_id) == 32
    assert int(trace_id, 16)


def test_token_has_256_bits():
    assert len(ids.new_token()) == 43


def test_trace_is_current_inside_and_not_after():
    with ids.use_trace("a" * 32):
        assert ids.current_trace_id() == "a" * 32

    assert ids.current_trace_id() == ""


def test_request_is_current_inside_and_not_after():
    with ids.use_request("r1"):
        assert ids.current_request_id() == "r1"

    assert ids.current_request_id() == ""


def test_traceparent_gives_its_trace_id():
    header = f"00-{'ab' * 16}-{'cd' * 8}-01"

    assert ids.trace_from_traceparent(header) == "ab" * 16


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", f"00-{'0' * 32}-{'cd' * 8}-01", f"00-{'AB' * 16}-{'cd' * 8}-01"],
)
def test_bad_traceparent_gives_none(header):
    assert ids.trace_from_traceparent(header) == ""
