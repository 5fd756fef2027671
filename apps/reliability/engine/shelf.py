"""The drills on the shelf, read from their experiment files.

A file is a Chaos Toolkit experiment; Polar's own words stand under `x-polar`.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.common.errors import NotFound
from apps.reliability.ports import Scenery

FOLDER = Path(__file__).resolve().parent / "experiments"
#: The quarter that the seed asks for, and a week of grace.
FRESH_DAYS = 92


@dataclass(frozen=True, slots=True)
class Drill:
    """One drill: what it breaks, what must hold, how it proves it can fail."""

    slug: str
    letter: str
    title: str
    description: str
    control: str
    scenery: Scenery
    #: What a change of makes its proof stale: paths below `apps`, and policies.
    code: tuple[str, ...]
    policy: tuple[str, ...]
    experiment: dict[str, Any]
    digest: str
    #: Played on the install itself: what that touches, and the experiment; or why not.
    touches: str = ""
    live: dict[str, Any] | None = None
    not_live: str = ""

    @property
    def confirmation(self) -> str:
        """What is typed before it is played live."""
        return f"LIVE {self.slug}"


@lru_cache(maxsize=1)
def every() -> tuple[Drill, ...]:
    found = [_read(path) for path in sorted(FOLDER.glob("*.json"))]
    return tuple(sorted(found, key=lambda drill: drill.letter))


def get(slug: str) -> Drill:
    """Raises: NotFound, naming what there is."""
    for drill in every():
        if drill.slug == slug:
            return drill
    there = ", ".join(drill.slug for drill in every())
    raise NotFound(f"There is no drill {slug!r}; there are {there}.")


def _read(path: Path) -> Drill:
    raw = path.read_bytes()
    said = json.loads(raw)
    more = said["x-polar"]
    on_install = path.parent / "live" / path.name
    raw += on_install.read_bytes() if on_install.is_file() else b""
    return Drill(
        slug=path.stem,
        letter=more["letter"],
        title=said["title"],
        description=said["description"],
        control=more["control"],
        scenery=Scenery(**more.get("scenery", {})),
        code=tuple(more["code"]),
        policy=tuple(more["policy"]),
        experiment=said,
        digest=hashlib.sha256(raw).hexdigest(),
        touches=more["live"],
        live=json.loads(on_install.read_bytes()) if on_install.is_file() else None,
        not_live=more["not_live"],
    )
