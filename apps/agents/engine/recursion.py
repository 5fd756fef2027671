"""Who called whom how deep: the heat map of one tree of work, or of a window.

Hides: how the audit log's events become counts and a drawing. Invariant: counts
come from the log alone (`turn.started`, `handoff.*`), a window's by way of sums that
are made from it, so they can be checked by whoever holds an exported copy of it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from apps.access.models import Principal
from apps.access.queries import workspaces_of
from apps.agents.engine import recursion_hours
from apps.agents.engine.failures import LOOP_GUARD
from apps.agents.models import Told
from apps.audit.models import Event
from apps.common import canonical, clock
from apps.common.errors import NotFound
from apps.runs.models import Run

TYPES = ("turn.started", "handoff.started", "handoff.finished")
#: What is read of each.
TOLD = ("type", "subject_id", "decision", "reason", "body")
#: A tree is read so far; more is said to be cut.
MOST_EVENTS = 4_000
#: The drawing shows at most so many turns.
MOST_DOTS = 120
ROW_PIXELS = 48
LEVELS = 5


@dataclass(frozen=True, slots=True)
class Cell:
    """One count and how strongly it is drawn, 0 to 5."""

    count: int
    level: int
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Dot:
    """One turn of the drawing. Units: per cent and pixels."""

    x: float
    y: int
    level: int
    from_x: float | None = None
    from_y: int = 0
    refused: bool = False


@dataclass(slots=True)
class HeatMap:
    """Counts by agent and depth, and by caller and called."""

    root_id: str = ""
    trace_id: str = ""
    depths: Counter[tuple[str, int]] = field(default_factory=Counter)
    edges: Counter[tuple[str, str]] = field(default_factory=Counter)
    cuts: Counter[tuple[str, str]] = field(default_factory=Counter)
    dots: list[Dot] = field(default_factory=list)
    trees: int = 0
    is_cut_off: bool = False

    @property
    def agents(self) -> list[str]:
        named = {a for a, _ in self.depths} | {a for e in self.edges for a in e}
        return sorted(named | {a for edge in self.cuts for a in edge})

    @property
    def turns(self) -> int:
        return sum(self.depths.values())

    @property
    def handoffs(self) -> int:
        return sum(self.edges.values())

    @property
    def refused(self) -> int:
        return sum(self.cuts.values())

    @property
    def columns(self) -> range:
        return range(max((depth for _, depth in self.depths), default=-1) + 1)

    @property
    def height(self) -> int:
        return max(len(self.agents), 1) * ROW_PIXELS

    def by_depth(self) -> list[tuple[str, list[Cell]]]:
        most = max(self.depths.values(), default=0)
        return [
            (agent, [_cell(self.depths[agent, d], most) for d in self.columns])
            for agent in self.agents
        ]

    def by_edge(self) -> list[tuple[str, list[Cell]]]:
        most = max(self.edges.values(), default=0)
        return [
            (
                source,
                [
                    _cell(self.edges[source, t], most, self.cuts[source, t])
                    for t in self.agents
                ],
            )
            for source in self.agents
        ]

    def names_at(self) -> list[tuple[str, int]]:
        return [
            (agent, n * ROW_PIXELS + ROW_PIXELS // 2)
            for n, agent in enumerate(self.agents)
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "root_id": self.root_id,
            "trace_id": self.trace_id,
            "trees": self.trees,
            "turns": self.turns,
            "handoffs": self.handoffs,
            "refused": self.refused,
            "is_cut_off": self.is_cut_off,
            "by_depth": [
                {"agent": agent, "depth": depth, "turns": count}
                for (agent, depth), count in sorted(self.depths.items())
            ],
            "by_edge": [
                {
                    "source": source,
                    "target": target,
                    "handoffs": self.edges[source, target],
                    "cut": self.cuts[source, target],
                }
                for source, target in sorted({*self.edges, *self.cuts})
            ],
        }


def of_root(*, root_id: UUID, principal: Principal) -> HeatMap:
    """Read one tree of work. Raises: NotFound."""
    run = Run.objects.visible_to(principal).filter(id=root_id).first()
    if run is None:
        raise NotFound("There is no such run, or it is not yours to see.")
    events = Event.objects.of_trace(run.trace_id).filter(type__in=TYPES)
    told = events.order_by("id").values_list(*TOLD, named=True)[: MOST_EVENTS + 1]
    drawn = _count(told, root=str(run.root_id))
    drawn.root_id, drawn.trace_id = str(run.root_id), run.trace_id
    return drawn


def of_window(*, hours: int, principal: Principal) -> HeatMap:
    """Count all trees of a window, as far as the principal may see them.

    Reads: the hours that are summed up, and the log from there on.
    """
    mine = list(workspaces_of(principal).values_list("id", flat=True))
    since, found = clock.now() - timedelta(hours=hours), HeatMap()
    told = recursion_hours.counted(since=since, workspaces=mine)
    for (what, a, b), count in told.items():
        if what == Told.TURN:
            found.depths[a, int(b or 0)] += count
        else:
            (found.edges if what == Told.EDGE else found.cuts)[a, b] += count
    # a tree begins with the turn that nobody handed over
    found.trees = sum(count for (_, depth), count in found.depths.items() if not depth)
    return found


def _count(events: Iterable[Any], *, root: str) -> HeatMap:
    found, roots = HeatMap(), set()
    told: list[tuple[str, str, dict[str, Any]]] = []
    for number, event in enumerate(events):
        if number == MOST_EVENTS:
            found.is_cut_off = True
            break
        data = canonical.loads(event.body).get("data", {})
        here = str(data.get("root", ""))
        if here != root:
            continue
        roots.add(here)
        told.append((event.type, event.subject_id, data))
        if event.type == "turn.started":
            found.depths[str(data["agent"]), int(data.get("depth", 0))] += 1
        elif event.type == "handoff.started":
            found.edges[str(data["source"]), str(data["target"])] += 1
        elif event.decision == "refused" and event.reason == LOOP_GUARD:
            found.cuts[str(data["source"]), str(data["target"])] += 1
    found.trees = len(roots)
    found.dots = _dots(found, told)
    return found


def _dots(found: HeatMap, told: list[tuple[str, str, dict[str, Any]]]) -> list[Dot]:
    """Lay the turns of one tree out from left to right, callers joined to called."""
    turns = [(ident, data) for kind, ident, data in told if kind == "turn.started"]
    turns = turns[:MOST_DOTS]
    y_of = dict(found.names_at())
    step = 96 / max(len(turns) - 1, 1)
    places: dict[str, tuple[float, int]] = {}
    dots = []
    for number, (ident, data) in enumerate(turns):
        x, y = round(2 + number * step, 2), y_of[str(data["agent"])]
        above = places.get(str(data.get("parent_turn", "")))
        places[ident] = (x, y)
        depth = int(data.get("depth", 0))
        from_x, from_y = above if above else (None, 0)
        dots.append(Dot(x, y, min(depth + 1, LEVELS), from_x, from_y))
    return dots


def _cell(count: int, most: int, cut: int = 0) -> Cell:
    level = -(-count * LEVELS // max(most, LEVELS))
    return Cell(count, level, cut)
