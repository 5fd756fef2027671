"""In which order the routes are tried, and what serving from one means.

Pure: rows in, steps out. The order is the pinned route, or else the lane's first;
the profile's fallbacks; the lane's other routes; the lower lanes, down to local.
The scripted model joins only while no other provider exists, or in a drill.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from apps.providers.models import (
    ESCALATIONS,
    Kind,
    Lane,
    LaneChange,
    LaneReason,
    Origin,
    Route,
)

PINNED, PRIMARY, FALLBACK, LANE, LOWER = (
    "pinned",
    "primary",
    "fallback",
    "lane",
    "lower",
)


@dataclass(frozen=True, slots=True)
class Fallback:
    """A provider that a profile names, and the model wanted there, if any."""

    provider: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks the plan for."""

    lane: str
    pinned_model_id: UUID | None = None
    fallbacks: tuple[Fallback, ...] = ()
    origin: str = Origin.REAL
    #: Why this lane is asked; an escalation says so.
    reason: str = LaneReason.ASKED


@dataclass(frozen=True, slots=True)
class Step:
    """One route of the plan. Without a route: a name that leads nowhere."""

    route: Route | None
    via: str
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    wish: Wish
    steps: tuple[Step, ...]
    #: Whether the asked lane has an enabled route of its own.
    lane_is_staffed: bool

    def lane_change(self, step: Step) -> LaneChange:
        """Say why the answer came from the lane it came from."""
        if step.route is None or step.route.lane == self.wish.lane:
            raised = self.wish.reason in ESCALATIONS
            return LaneChange.PLANNED if raised else LaneChange.NONE
        if step.via == PINNED:
            return LaneChange.OPERATOR_PIN
        if step.via == FALLBACK or not self.lane_is_staffed:
            return LaneChange.PLANNED
        return LaneChange.FALLBACK

    def lane_reason(self, step: Step) -> str:
        """Say in one word why a step of the plan stands in its lane."""
        if step.via == PINNED:
            return LaneReason.OPERATOR_PIN
        if step.via == FALLBACK:
            return LaneReason.PROFILE_FALLBACK
        if step.via != LOWER:
            return self.wish.reason
        staffed = self.lane_is_staffed
        return LaneReason.LANE_FAILED if staffed else LaneReason.LANE_UNSTAFFED

    def is_degraded(self, step: Step) -> bool:
        """A lower lane than asked for, because something better failed."""
        if step.route is None or step.via == PINNED:
            return False
        lower = Lane(step.route.lane).rank < Lane(self.wish.lane).rank
        return lower and (self.lane_is_staffed or step.via == FALLBACK)


def build(wish: Wish, routes: Sequence[Route]) -> Plan:
    """Order the routes for a wish. Each model is tried at most once."""
    usable = [route for route in routes if _may_join(route, routes, wish)]
    usable.sort(key=lambda route: (-Lane(route.lane).rank, route.position))
    steps: list[Step] = []
    seen: set[UUID] = set()
    for step in _ordered(wish, usable):
        if step.route is None:
            steps.append(step)
        elif step.route.model_id not in seen:
            seen.add(step.route.model_id)
            steps.append(step)
    staffed = any(route.lane == wish.lane and _is_on(route) for route in usable)
    return Plan(wish, tuple(steps), staffed)


def _ordered(wish: Wish, routes: list[Route]) -> Iterator[Step]:
    rank = Lane(wish.lane).rank
    lane = [route for route in routes if route.lane == wish.lane]
    if wish.pinned_model_id is not None:
        yield _pinned(wish, routes)
    elif first := next((route for route in lane if _is_on(route)), None):
        yield Step(first, PRIMARY, str(first.model))
    for fallback in wish.fallbacks:
        yield _fallback(fallback, wish, routes)
    for route in lane:
        yield Step(route, LANE, str(route.model))
    for route in routes:
        if Lane(route.lane).rank < rank:
            yield Step(route, LOWER, str(route.model))


def _pinned(wish: Wish, routes: list[Route]) -> Step:
    found = [route for route in routes if route.model_id == wish.pinned_model_id]
    route = _nearest(found, wish.lane)
    return Step(route, PINNED, str(route.model) if route else str(wish.pinned_model_id))


def _fallback(fallback: Fallback, wish: Wish, routes: list[Route]) -> Step:
    found = [
        route
        for route in routes
        if fallback.provider
        in (route.model.provider.slug, str(route.model.provider_id))
        and fallback.model in ("", route.model.name)
    ]
    name = f"{fallback.provider}/{fallback.model}".rstrip("/")
    route = _nearest(found, wish.lane)
    return Step(route, FALLBACK, str(route.model) if route else name)


def _nearest(routes: list[Route], lane: str) -> Route | None:
    """Prefer an enabled route, in the asked lane, then below it, then above."""
    rank = Lane(lane).rank

    def distance(route: Route) -> tuple[bool, int, int]:
        gap = rank - Lane(route.lane).rank
        return (not _is_on(route), gap if gap >= 0 else 10 - gap, route.position)

    return min(routes, key=distance, default=None)


def _is_on(route: Route) -> bool:
    return route.enabled and route.model.provider.enabled


def _may_join(route: Route, routes: Sequence[Route], wish: Wish) -> bool:
    if route.model.provider.kind != Kind.SCRIPTED or wish.origin == Origin.DRILL:
        return True
    return all(other.model.provider.kind == Kind.SCRIPTED for other in routes)
