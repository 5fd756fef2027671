"""What a rehearsal writes down while it goes on, and the caller reads.

One JSON line per fact, appended and flushed, so that it can be followed from the
outside and survives the process that wrote it.
"""

import json
from pathlib import Path
from typing import Any

from django.conf import settings

from apps.common import clock
from apps.reliability.engine import cloning


class Notebook:
    """The open notebook of this process."""

    def __init__(self) -> None:
        self.began = clock.monotonic()
        self.seen: dict[str, tuple[bool, str]] = {}
        #: What one step keeps for the next. Patience: units: seconds.
        self.kept: dict[str, Any] = {"patience": 30.0}
        #: Where it lies: the clone's folder, or that of a live drill.
        self.folder = Path(settings.POLAR_CLONE)

    def tell(self, tone: str, text: str, **data: Any) -> None:
        """Write one line. Shape: tone is a word of the look: ok, attention, ..."""
        at = round((clock.monotonic() - self.began) * 1000)
        line = {"at_ms": at, "tone": tone, "text": text, "data": data}
        with (self.folder / cloning.PROGRESS).open("a") as file:
            file.write(json.dumps(line, default=str, sort_keys=True) + "\n")

    def observe(self, name: str, held: bool, found: str) -> bool:
        """Note whether a hypothesis held under the fault."""
        self.seen[name] = (held, found)
        self.tell("ok" if held else "critical", found, probe=name, held=held)
        return held

    def fault(self, text: str) -> None:
        """Note that the fault is made, and when."""
        self.kept["fault_at"] = clock.monotonic()
        self.tell("critical", f"Fault: {text}")

    def since_fault(self) -> float:
        """Tell how long ago the fault was made. Units: seconds."""
        return clock.monotonic() - float(self.kept.get("fault_at", self.began))

    @property
    def is_control(self) -> bool:
        return bool(self.kept.get("control"))

    def all_held(self) -> bool:
        """Before the fault nothing was observed, and that holds."""
        return all(held for held, _ in self.seen.values())


notebook = Notebook()


def read(folder: Path, since: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole lines after byte `since`, and where to go on."""
    try:
        with (folder / cloning.PROGRESS).open("rb") as file:
            file.seek(since)
            raw = file.read()
    except FileNotFoundError:
        return [], since
    whole = raw[: raw.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], since + len(whole)
