"""Where the programs plug in that dump, load and check a store from outside, the
courier of alerts, and whoever can tell people of one over a channel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from apps.common.errors import Unavailable
from apps.common.redaction import SecretStr
from apps.gateway.ports import Permit
from apps.reliability.errors import DrillFailed, SnapshotFailed


class Tools(Protocol):
    """Programs beside this process. Each raises SnapshotFailed in words.

    Shape: `store` is Django's settings of the database.
    """

    def dump(self, store: dict[str, Any], into: Path) -> None:
        """Write the PostgreSQL store into one file."""

    def load(self, store: dict[str, Any], path: Path) -> None:
        """Replace the PostgreSQL store by that of the file, wholly or not at all."""

    def verify(self, store: dict[str, Any], path: Path) -> dict[str, Any]:
        """Open a copy as a store of its own and recompute its log.

        Shape: ok, size, root, problem.
        """


_plugged: list[Tools] = []


def plug(tools: Tools) -> None:
    """Again: the last one counts."""
    _plugged[:] = [tools]


def tools() -> Tools:
    """Raises: SnapshotFailed."""
    if not _plugged:
        raise SnapshotFailed("No tools are plugged in.")
    return _plugged[0]


@dataclass(frozen=True, slots=True)
class Letter:
    """What is posted: {"url", "body"}, the key it is signed with, an address of
    the inside that an administrator allowed, and the id of this delivery."""

    arguments: dict[str, Any]
    key: SecretStr
    local: str
    delivery: str


class Courier(Protocol):
    """Posts signed letters behind the wall."""

    def post(self, permit: Permit, letter: Letter) -> int:
        """Spend the permit and post. Returns the status; raises UpstreamError."""


#: Tells the operators something: the words, and the id by which a repeat is known.
Messenger = Callable[[str, str], None]

#: Tells whether a channel is there to tell anybody.
Ready = Callable[[], bool]

_couriers: list[Courier] = []
_messengers: list[tuple[Messenger, Ready]] = []


def _always() -> bool:
    return True


def plug_courier(courier: Courier) -> None:
    """Again: the last one counts."""
    _couriers[:] = [courier]


def courier() -> Courier:
    """Raises: Unavailable."""
    if not _couriers:
        raise Unavailable("No courier is plugged in.")
    return _couriers[0]


def plug_messenger(messenger: Messenger | None, ready: Ready = _always) -> None:
    """Say how operators are told over a channel. Again: the last one counts."""
    _messengers[:] = [(messenger, ready)] if messenger else []


def has_messenger() -> bool:
    return any(ready() for _, ready in _messengers)


def messenger() -> Messenger:
    """Raises: Unavailable."""
    if not _messengers:
        raise Unavailable("No channel can tell operators.")
    return _messengers[0][0]


class Troupe(Protocol):
    """A process and what it started."""

    @property
    def code(self) -> int | None: ...

    def end(self) -> None:
        """Kill it with all it started. Again: nothing."""


class Stage(Protocol):
    """Where rehearsals run. Each raises DrillFailed in words."""

    def isolation(self) -> str:
        """Say how a rehearsal is kept apart here."""

    def start(self, folder: Path, *arguments: str) -> Troupe:
        """Start a rehearsal in the clone of this folder."""

    def spawn(self, *arguments: str) -> Troupe:
        """Inside a rehearsal: start one of Polar's own processes."""

    def play(self, experiment: dict[str, Any]) -> dict[str, Any]:
        """Run a Chaos Toolkit experiment; return its journal."""


_stages: list[Stage] = []


def plug_stage(stage: Stage) -> None:
    """Again: the last one counts."""
    _stages[:] = [stage]


def stage() -> Stage:
    """Raises: DrillFailed."""
    if not _stages:
        raise DrillFailed("No stage is plugged in.")
    return _stages[0]
