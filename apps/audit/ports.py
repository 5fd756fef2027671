"""Where other apps declare their event types and plug in sinks for events.

An event type is `area.verb` (`run.claimed`); recording an undeclared one is
refused. A sink keeps a copy of the log and acknowledges contiguously.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from apps.common.errors import Invalid

_TYPE = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")
_types: set[str] = set()
_whole: set[str] = set()
_sinks: dict[str, "Sink"] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """One sealed event as sinks receive it: its number and its export record."""

    seq: int
    text: str


@dataclass(frozen=True, slots=True)
class Keeping:
    """How safe a copy is from being changed, read back from whoever keeps it."""

    is_immutable: bool
    detail: str


class Sink(Protocol):
    """Keeps a copy of the log outside the database."""

    #: A sink of few large parts waits so long for a part to fill. Units: seconds.
    patience_seconds: float

    def is_on(self) -> bool:
        """Tell whether it is set up; asks nobody."""

    def keeping(self) -> Keeping:
        """Read back how the copy is kept.   Raises: OSError, SinkRefused."""

    def last_contiguous_seq(self) -> int | None:
        """Tell the last number it holds without a gap: -1 for none, None when off."""

    def append(self, lines: Sequence[Line]) -> int:
        """Store the lines and return the new last contiguous number.

        Raises: SinkRefused when the first is not last + 1.
        """

    def fork(self, *, epoch: str, seq: int) -> None:
        """Note that an accepted recovery goes on at `seq`, in a new epoch."""


def declare(*types: str) -> None:
    """Make event types known. Again: the same type twice is fine.

    Raises: Invalid for a name that is not `area.verb`.
    """
    for type_ in types:
        if not _TYPE.match(type_):
            raise Invalid(f"{type_!r} is not an event type: write area.verb")
    _types.update(types)


def keep_whole(*types: str) -> None:
    """Let the witness keep such events whole, so that a lost future can be told:
    what was sent, what was fired, which work had begun. Again: fine."""
    declare(*types)
    _whole.update(types)


def kept_whole() -> list[str]:
    return sorted(_whole)


def is_declared(type_: str) -> bool:
    return type_ in _types


def choices() -> list[tuple[str, str]]:
    """Shape: Django choices. Callable, so a new type makes no migration."""
    return [(type_, type_) for type_ in sorted(_types)]


def plug_sink(name: str, sink: Sink) -> None:
    """Send every sealed event to this sink. Again: replaces the named one."""
    _sinks[name] = sink


def sinks() -> dict[str, Sink]:
    return dict(_sinks)


declare(
    "audit.checkpoint_signed",
    "audit.epoch_begun",
    "audit.exported",
    "audit.payloads_erased",
    "store.alarm_ended",
)
