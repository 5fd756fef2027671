"""How old each drill's proof is, and whether it still is of this system."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from apps.common import clock
from apps.reliability import ports
from apps.reliability.engine import basis, shelf
from apps.reliability.engine.basis import Bases
from apps.reliability.engine.shelf import Drill
from apps.reliability.models import DrillMode, DrillRun, DrillState

OPEN = (DrillState.QUEUED, DrillState.RUNNING)
#: How long before its proof lapses a planned drill is rehearsed again.
AHEAD = timedelta(days=14)
#: So many of the newest runs are read at once; a quarter has fewer.
NEWEST = 300
_UNSOUND = (DrillState.DEVIATED, DrillState.FAILED)


@dataclass(frozen=True, slots=True)
class Shelved:
    """A drill on the shelf, its newest run, and whether its proof is fresh."""

    drill: Drill
    newest: DrillRun | None
    passed_at: datetime | None
    stale: str
    #: Why it is not asked for here, such as a broker that this install has not.
    unused: str = ""
    #: Why it cannot be rehearsed on this machine.
    lacks: str = ""

    @property
    def is_fresh(self) -> bool:
        return not self.stale

    @property
    def is_overdue(self) -> bool:
        """DRILL_OVERDUE: asked for here, possible here, and not proved."""
        return bool(self.stale) and not self.unused and not self.lacks


def shelf_of_drills() -> list[Shelved]:
    """List the drills with their freshness. A live drill has no control: it proves
    nothing here."""
    rehearsed = DrillRun.objects.filter(mode=DrillMode.REHEARSAL).order_by("-id")
    rows, bases = list(rehearsed[:NEWEST]), Bases()
    found = []
    for drill in shelf.every():
        mine = [row for row in rows if row.slug == drill.slug]
        passed = next((row for row in mine if row.state == DrillState.PASSED), None)
        if passed is None and len(rows) == NEWEST:
            older = rehearsed.filter(slug=drill.slug, state=DrillState.PASSED)
            passed = older.first()
        ended = next((row for row in mine if row.state not in OPEN), None)
        stale = _stale(bases.of(drill), ended, passed)
        at = passed.finished_at if passed else None
        newest = mine[0] if mine else None
        lacks = ports.stage().lacks(drill.scenery)
        found.append(Shelved(drill, newest, at, stale, _unused(drill), lacks))
    return found


def _unused(drill: Drill) -> str:
    if drill.scenery.has_broker and not settings.REDIS_URL:
        return "this install has no broker"
    return ""


def next_due() -> Drill | None:
    """The drill to rehearse next: proof lapsed or soon to lapse, longest not tried.

    None while one is under way, so that two never share the machine.
    """
    if DrillRun.objects.filter(state__in=OPEN).exists():
        return None
    found = [each for each in shelf_of_drills() if not each.unused and not each.lacks]
    fresh_until = clock.now() + AHEAD - timedelta(days=shelf.FRESH_DAYS)
    due = [
        each
        for each in found
        if each.stale or (each.passed_at and each.passed_at < fresh_until)
    ]
    tried = {each.drill.slug: each.newest.id.int if each.newest else 0 for each in due}
    return min((each.drill for each in due), key=lambda d: tried[d.slug], default=None)


def _stale(now: dict[str, str], ended: DrillRun | None, passed: DrillRun | None) -> str:
    if passed is None or passed.finished_at is None:
        return "never passed"
    if words := basis.changed(passed.basis, now):
        return words
    if clock.now() - passed.finished_at > timedelta(days=shelf.FRESH_DAYS):
        return f"passed more than {shelf.FRESH_DAYS} days ago"
    if ended and ended.state in _UNSOUND:
        return f"the last one {ended.state}"
    return ""
