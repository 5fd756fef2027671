"""The words of the search box and what they hit; each app's queries `find`.

Invariants: a finder reads for one principal, a bounded number of rows; a hit
that is exact is where Enter goes.
"""

import re
from dataclasses import dataclass
from uuid import UUID

#: How many hits one finder gives, and how many letters are looked at.
MOST_HITS = 5
LONGEST = 100
SHORTEST = 2

_HEX = re.compile(r"^[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that was found, and where it is."""

    kind: str
    label: str
    url: str
    detail: str = ""
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """What somebody typed. `id` is set when it reads as an id."""

    text: str
    id: UUID | None

    @classmethod
    def of(cls, typed: str) -> "Words":
        text = " ".join(typed.replace("\0", " ").split())[:LONGEST]
        compact = text.lower().replace("-", "")
        return cls(text, UUID(compact) if _HEX.match(compact) else None)

    @property
    def name(self) -> str:
        """The words as a slug may be spelled."""
        return self.text.removeprefix("@").lower()
