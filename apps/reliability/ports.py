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


class Double(Protocol):
    """A vendor on a loopback port, played inside a rehearsal."""

    #: Its host:port.
    place: str
    #: What it was asked to do, oldest first.
    heard: list[dict[str, Any]]
    #: How it behaves; which words there are depends on its kind.
    manner: dict[str, Any]

    def cut(self) -> None:
        """Refuse every connection, as a vendor that is gone. Again: nothing."""

    def mend(self) -> None:
        """Listen again. Again: nothing."""


class Broker(Troupe, Protocol):
    """A broker of the rehearsal's own."""

    def holds(self) -> int:
        """Count the hints that wait in it."""

    def wipe(self) -> None:
        """Lose everything in it."""


#: The folder of a clone in which a disk of its own is mounted.
DISK = "disk"


@dataclass(frozen=True, slots=True)
class Scenery:
    """What a drill's clone needs beyond a folder."""

    #: A broker of its own, at its first place.
    has_broker: bool = False
    #: A log host that its log is copied to, at its first place.
    has_log_host: bool = False
    #: A disk of this size for its store; 0 for the folder's own. Units: bytes.
    disk_bytes: int = 0


class Stage(Protocol):
    """Where rehearsals run. Each raises DrillFailed in words."""

    def isolation(self) -> str:
        """Say how a rehearsal is kept apart here."""

    def lacks(self, scenery: Scenery) -> str:
        """Say what this machine lacks for it, or ""."""

    def free_ports(self, count: int) -> list[int]:
        """Find loopback ports that nobody uses."""

    def start(self, folder: Path, scenery: Scenery, *arguments: str) -> Troupe:
        """Start a rehearsal in the clone of this folder."""

    def start_live(self, folder: Path, *arguments: str) -> Troupe:
        """Start a live drill, in the install's own environment."""

    def spawn(self, *arguments: str) -> Troupe:
        """Inside a rehearsal: start one of Polar's own processes."""

    def serve(self, place: str) -> Troupe:
        """Inside a rehearsal: start the web on a host:port."""

    def broker(self, place: str) -> Broker:
        """Inside a rehearsal: start a broker on a host:port."""

    def double(self, kind: str, place: str) -> Double:
        """Inside a rehearsal: play a vendor on a host:port."""

    def order(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Inside a rehearsal: give one command and return its code and words."""

    def status_of(self, url: str, bearer: str) -> int:
        """Inside a rehearsal: ask for a page; 0 where nobody answers."""

    def play(self, experiment: dict[str, Any]) -> dict[str, Any]:
        """Run a Chaos Toolkit experiment; return its journal."""

    def abort(self) -> None:
        """End the experiment that is played in this process, now."""


_stages: list[Stage] = []


def plug_stage(stage: Stage) -> None:
    """Again: the last one counts."""
    _stages[:] = [stage]


def stage() -> Stage:
    """Raises: DrillFailed."""
    if not _stages:
        raise DrillFailed("No stage is plugged in.")
    return _stages[0]
