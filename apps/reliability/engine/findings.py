"""What a detector is, and what it says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.reliability.models import AlertCode

#: A detector names at most so many things at once.
MOST = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector says: which rule fired, how badly, and on what."""

    code: str
    level: str
    summary: str
    key: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Detector:
    name: str
    codes: tuple[AlertCode, ...]
    look: Callable[[datetime], Iterable[Finding]]
    every_seconds: float = 10.0
    in_doubt: bool = False
    #: What it says of a live drill, while one is under way.
    of_drills: Callable[[datetime], Iterable[Finding]] | None = None
