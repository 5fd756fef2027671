"""How old each drill's proof is."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.common import clock
from apps.reliability.engine import shelf
from apps.reliability.engine.shelf import Drill
from apps.reliability.models import DrillRun, DrillState

OPEN = (DrillState.QUEUED, DrillState.RUNNING)
#: How long before its proof lapses a planned drill is rehearsed again.
AHEAD = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Shelved:
    """A drill on the shelf, its newest run, and whether its proof is fresh."""

    drill: Drill
    newest: DrillRun | None
    passed_at: datetime | None
    stale: str

    @property
    def is_fresh(self) -> bool:
        return not self.stale


def shelf_of_drills() -> list[Shelved]:
    """List the drills with their freshness. DRILL_OVERDUE is what `stale` says."""
    found = []
    for drill in shelf.every():
        rows = DrillRun.objects.filter(slug=drill.slug).order_by("-id")
        passed = rows.filter(state=DrillState.PASSED).first()
        newest = ended = rows.first()
        if newest and newest.state in OPEN:
            ended = rows.exclude(state__in=OPEN).first()
        at = passed.finished_at if passed else None
        found.append(Shelved(drill, newest, at, _stale(drill, ended, passed)))
    return found


def next_due() -> Drill | None:
    """The drill to rehearse next: proof lapsed or soon to lapse, longest not tried.

    None while one is under way, so that two never share the machine.
    """
    found = shelf_of_drills()
    if any(each.newest and each.newest.state in OPEN for each in found):
        return None
    fresh_until = clock.now() + AHEAD - timedelta(days=shelf.FRESH_DAYS)
    due = [
        each
        for each in found
        if each.stale or (each.passed_at and each.passed_at < fresh_until)
    ]
    tried = {each.drill.slug: each.newest.id.int if each.newest else 0 for each in due}
    return min((each.drill for each in due), key=lambda d: tried[d.slug], default=None)


def _stale(drill: Drill, ended: DrillRun | None, passed: DrillRun | None) -> str:
    if passed is None or passed.finished_at is None:
        return "never passed"
    if passed.definition != drill.digest:
        return "the drill changed since it passed"
    if clock.now() - passed.finished_at > timedelta(days=shelf.FRESH_DAYS):
        return f"passed more than {shelf.FRESH_DAYS} days ago"
    if ended and ended.state in (DrillState.DEVIATED, DrillState.FAILED):
        return f"the last one {ended.state}"
    return ""
