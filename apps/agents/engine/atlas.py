"""Agents as people see them: who may hand over to whom, and how a profile changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.agents.models import AgentProfile, ProfileVersion

#: A box, and how far boxes stand from one another. Units: pixels.
BOX_WIDTH, BOX_HEIGHT, ACROSS, DOWN = 168, 40, 264, 58
#: A profile's page compares so many of its newest versions.
MOST_VERSIONS = 20
MOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Box:
    """One agent of the graph. Units: pixels, the upper left corner."""

    name: str
    x: int
    y: int
    #: None where a profile names an agent that is not there.
    profile: AgentProfile | None

    @property
    def is_gone(self) -> bool:
        return self.profile is None or not self.profile.is_active

    @property
    def about(self) -> str:
        if self.profile is None:
            return "not there"
        return self.profile.lane if self.profile.is_active else "inactive"


@dataclass(frozen=True, slots=True)
class Line:
    """One allowed handoff, drawn from caller to called. `path` is SVG's."""

    source: str
    target: str
    path: str
    #: The target is missing or inactive: asking it would be refused.
    is_broken: bool


@dataclass(frozen=True, slots=True)
class Graph:
    boxes: list[Box]
    lines: list[Line]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Change:
    """What one field said before and after."""

    field: str
    before: str
    after: str


def graph(profiles: Sequence[AgentProfile]) -> Graph:
    """Lay out who may hand over to whom: callers left, called right."""
    known = {profile.slug: profile for profile in profiles}
    edges = [
        (profile.slug, str(target))
        for profile in profiles
        for target in profile.allowed_handoff_targets
    ]
    columns = _columns(edges)
    boxes = {
        name: Box(name, 1 + place * ACROSS, 1 + row * DOWN, known.get(name))
        for place, column in enumerate(columns)
        for row, name in enumerate(column)
    }
    lines = [
        Line(source, target, _path(boxes[source], boxes[target]), boxes[target].is_gone)
        for source, target in edges
    ]
    tallest = max(map(len, columns), default=0)
    width = max(len(columns) - 1, 0) * ACROSS + BOX_WIDTH + 2
    return Graph(list(boxes.values()), lines, width, tallest * DOWN + 14)


def _columns(edges: list[tuple[str, str]]) -> list[list[str]]:
    """Put each agent one column right of the first that may ask it.

    Where all are asked by others, those who ask most begin.
    """
    asks: dict[str, list[str]] = {}
    for source, target in edges:
        asks.setdefault(source, []).append(target)
    asked = {target for _, target in edges}
    column = sorted(set(asks) - asked)
    columns, placed = [], set[str]()
    while len(placed) < len(set(asks) | asked):
        if not column:
            left = sorted(set(asks) - placed, key=lambda name: -len(asks[name]))
            column = left[:1]
        columns.append(column)
        placed |= set(column)
        following = (target for name in column for target in asks.get(name, ()))
        column = [name for name in dict.fromkeys(following) if name not in placed]
    return columns


def _path(source: Box, target: Box) -> str:
    """A curve to the right; back or beside goes below both."""
    middle = BOX_HEIGHT // 2
    if target.x > source.x:
        x1, y1 = source.x + BOX_WIDTH, source.y + middle
        x2, y2 = target.x - 3, target.y + middle
        bend = (x2 - x1) // 2
        return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    x1, y1 = source.x + BOX_WIDTH // 2, source.y + BOX_HEIGHT
    x2, y2 = target.x + BOX_WIDTH // 2, target.y + BOX_HEIGHT + 3
    low = max(y1, y2) + BOX_HEIGHT // 2
    return f"M{x1} {y1}C{x1} {low} {x2} {low} {x2} {y2}"


def history(profile: AgentProfile) -> list[dict[str, Any]]:
    """Return the newest versions, each with what it changed."""
    found = ProfileVersion.objects.filter(profile=profile).order_by("-version")
    versions = list(found[: MOST_VERSIONS + 1])
    older: list[ProfileVersion | None] = [*versions[1:], None]
    return [
        {"version": each, "changes": changes(before.body if before else {}, each.body)}
        for each, before in zip(versions, older, strict=True)
    ][:MOST_VERSIONS]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Compare two versions field by field; a first version changes nothing."""
    if not before:
        return []
    names = sorted({*before, *after})
    return [
        Change(name, _said(before.get(name)), _said(after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _said(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if value in (None, "", []):
        return "nothing"
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
