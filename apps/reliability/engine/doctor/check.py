"""What a check of the doctor is, and the one list that all of them stand in.

A check looks and changes nothing. What cannot be looked at is unknown, never fine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DatabaseError

from apps.common.errors import PolarError

OK, WARNING, FAILING = "ok", "warning", "failing"
UNKNOWN, UNUSED = "unknown", "unused"
#: From the worst to the best.
STATES = (FAILING, UNKNOWN, WARNING, OK, UNUSED)
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, in words."""

    state: str
    detail: str = ""


def ok(detail: str = "") -> Found:
    return Found(OK, detail)


def warn(detail: str) -> Found:
    return Found(WARNING, detail)


def fail(detail: str) -> Found:
    return Found(FAILING, detail)


def unused(detail: str) -> Found:
    return Found(UNUSED, detail)


def unknown(detail: str) -> Found:
    return Found(UNKNOWN, detail)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at: what it proves, and how to mend it.

    A slow one reads the whole store; pages leave it to the command.
    """

    name: str
    area: str
    proves: str
    mend: str
    look: Callable[[], Found]
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """A check and what it found now."""

    check: Check
    state: str
    detail: str

    @property
    def mend(self) -> str:
        """How to mend it; "" while there is nothing to mend."""
        return "" if self.state in (OK, UNUSED) else self.check.mend


T = TypeVar("T")
#: What the checks of one round have read already.
_READ: ContextVar[dict[Any, Any] | None] = ContextVar("read", default=None)


@contextmanager
def one_round() -> Iterator[None]:
    """Let the checks in here share what they read `once`."""
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def once(read: Callable[[], T]) -> T:
    """Read this once a round; outside of one, now."""
    known = _READ.get()
    if known is None:
        return read()
    if read not in known:
        known[read] = read()
    found: T = known[read]
    return found


#: Every check by its name, in the order in which the modules name them.
CHECKS: dict[str, Check] = {}


def check(
    name: str, proves: str, *, mend: str, slow: bool = False
) -> Callable[[Callable[[], Found]], Callable[[], Found]]:
    """Put a function into the list. Its area is the first word of its name."""

    def put(look: Callable[[], Found]) -> Callable[[], Found]:
        if name in CHECKS:
            raise ValueError(f"two checks are named {name}")
        area = name.partition("-")[0]
        CHECKS[name] = Check(name, area, proves, mend, look, slow)
        return look

    return put


def look_at(each: Check) -> Result:
    """Carry one check out; one that cannot look says why."""
    try:
        found = each.look()
    except (PolarError, DatabaseError, OSError, ValueError) as error:
        found = unknown(f"{type(error).__name__}: {error}"[:300])
    return Result(each, found.state, found.detail[:500])
