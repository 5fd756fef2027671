"""Ids that sort by time, trace ids, tokens, and the ids of the work at hand.

Row ids are UUIDv7 (RFC 9562): they sort by creation and stay unique across
hosts. Trace ids are W3C trace ids. Tokens are 256 random bits, never UUIDs.
"""

import os
import re
import secrets
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from . import clock

_lock = threading.Lock()
_last_tick = 0

_trace_id: ContextVar[str] = ContextVar("trace_id", default="")
_request_id: ContextVar[str] = ContextVar("request_id", default="")

_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$")


def new_id() -> uuid.UUID:
    """Make a UUIDv7 that is larger than every earlier one of this process.

    Shape: 48 bits of milliseconds, then 12 bits of the sub-millisecond
    fraction counted up when two ids fall into the same tick.
    Source: RFC 9562 section 6.2, method 3.
    """
    global _last_tick
    tick = int(clock.now().timestamp() * 1_000_000) * 4096 // 1000
    with _lock:
        _last_tick = tick = max(tick, _last_tick + 1)
    millis, fraction = tick >> 12, tick & 0xFFF
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    value = (millis & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | fraction << 64
    return uuid.UUID(int=value | 0b10 << 62 | tail)


def first_at(moment: datetime) -> uuid.UUID:
    """Return an id that sorts before those made at a moment, and after the earlier."""
    millis = int(moment.timestamp() * 1000) & 0xFFFF_FFFF_FFFF
    return uuid.UUID(int=millis << 80 | 0x7 << 76 | 0b10 << 62)


def new_trace_id() -> str:
    """Make a W3C trace id: 32 hex digits."""
    return secrets.token_hex(16)


def new_token() -> str:
    """Make a bearer token of 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def current_trace_id() -> str:
    """Return the trace id of the work at hand, or "" outside any."""
    return _trace_id.get()


def current_request_id() -> str:
    """Return the id of the HTTP request at hand, or "" outside any."""
    return _request_id.get()


@contextmanager
def use_trace(trace_id: str) -> Iterator[str]:
    """Mark everything inside as part of one trace."""
    mark = _trace_id.set(trace_id)
    try:
        yield trace_id
    finally:
        _trace_id.reset(mark)


@contextmanager
def use_request(request_id: str) -> Iterator[str]:
    """Mark everything inside as part of one HTTP request."""
    mark = _request_id.set(request_id)
    try:
        yield request_id
    finally:
        _request_id.reset(mark)


def trace_from_traceparent(header: str) -> str:
    """Return the trace id of a `traceparent` header, or "" for a bad one."""
    found = _TRACEPARENT.match(header.strip())
    return found.group(1) if found and set(found.group(1)) != {"0"} else ""
