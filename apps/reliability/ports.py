"""Where the programs plug in that dump, load and check a store from outside."""

from pathlib import Path
from typing import Any, Protocol

from apps.reliability.errors import SnapshotFailed


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
