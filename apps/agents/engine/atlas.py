"""Agents as people see them: who may hand over to whom, and how a profile changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.agents.models import AgentProfile, ProfileVersion

ROW_PIXELS = 40
#: A profile's page compares so many of its newest versions.
MOST_VERSIONS = 20
MOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Line:
    """One allowed handoff. Units: per cent across, pixels down."""

    source: str
    target: str
    x: float
    y1: int
    y2: int
    #: The target is missing or inactive: asking it would be refused.
    is_broken: bool


@dataclass(frozen=True, slots=True)
class Graph:
    names: list[tuple[str, int]]
    lines: list[Line]
    height: int


@dataclass(frozen=True, slots=True)
class Change:
    """What one field said before and after."""

    field: str
    before: str
    after: str


def graph(profiles: Sequence[AgentProfile]) -> Graph:
    """Lay out who may hand over to whom, one column per allowed handoff."""
    active = {profile.slug for profile in profiles if profile.is_active}
    edges = [
        (profile.slug, str(target))
        for profile in profiles
        for target in profile.allowed_handoff_targets
    ]
    names = sorted({p.slug for p in profiles} | {target for _, target in edges})
    y_of = {name: n * ROW_PIXELS + ROW_PIXELS // 2 for n, name in enumerate(names)}
    step = 80 / max(len(edges), 1)
    lines = [
        Line(
            source,
            target,
            round(18 + (n + 0.5) * step, 2),
            y_of[source],
            y_of[target],
            target not in active,
        )
        for n, (source, target) in enumerate(edges)
    ]
    return Graph(list(y_of.items()), lines, max(len(names), 1) * ROW_PIXELS)


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
