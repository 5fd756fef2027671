"""The hours around now, to scale: what each schedule did in them, and what comes.

Hides: the window, and that moments which share a place are drawn as their worst.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from uuid import UUID

from django.utils import timezone

from apps.common import clock
from apps.runs.engine import slots, strip
from apps.runs.errors import BadSchedule
from apps.runs.models import Schedule, ScheduleState, Slot, SlotState

#: So far back, so far ahead, in so many places.
BACK, AHEAD, PLACES = timedelta(hours=18), timedelta(hours=6), 72
#: The axis names every hour that this divides.
EVERY_HOURS = 6
#: Of one schedule at most so many moments to come, of all at most so many past.
MOST_COMING, MOST_PAST = 100, 3_000
#: Of moments that share a place, the worst is drawn.
WORST = ("slot-next", "slot-ok", "slot-fail", "slot-missed")


@dataclass(frozen=True, slots=True)
class Spot:
    """One place of a row. Units: `x` in per cent."""

    x: float
    look: str
    says: str


@dataclass(frozen=True, slots=True)
class Line:
    """One schedule's hours."""

    schedule: Schedule
    words: str
    spots: list[Spot]
    missed: int
    failed: int

    @property
    def says(self) -> str:
        """The row for those who do not see it."""
        fired = sum(spot.look == "slot-ok" for spot in self.spots)
        return f"ran {fired}, missed {self.missed}, failed {self.failed}"


@dataclass(frozen=True, slots=True)
class Day:
    """All rows, and the hours above them. Units: per cent across."""

    lines: list[Line]
    labels: list[tuple[float, str]]
    now: float


def drawn(schedules: Iterable[Schedule], *, most: int | None = None) -> Day:
    """Draw the hours around now; of more than `most`, those with a gap and the next.

    Reads: slots, one statement.
    """
    rows, now = list(schedules), _drawn_at(clock.now())
    since, until = now - BACK, now + AHEAD
    past: dict[UUID, list[Slot]] = {row.id: [] for row in rows}
    inside = Slot.objects.filter(schedule__in=rows, slot_at__gte=since)
    for slot in inside.order_by("-slot_at")[:MOST_PAST]:
        past[slot.schedule_id].append(slot)
    if most is not None:
        rows = sorted(rows, key=lambda row: _urgency(row, past[row.id]))[:most]
    lines = [_line(row, past[row.id], since, until) for row in rows]
    return Day(lines, _hours(since, until), _across(now, since))


def _drawn_at(now: datetime) -> datetime:
    """Now, to the five minutes: a drawing that stays the same is sent once."""
    return now.replace(minute=now.minute // 5 * 5, second=0, microsecond=0)


def _urgency(schedule: Schedule, past: list[Slot]) -> tuple[bool, bool, float]:
    coming = schedule.next_at
    is_calm = not any(_is_gap(slot) or slot.outcome in strip.FAILED for slot in past)
    return is_calm, coming is None, coming.timestamp() if coming else 0.0


def _is_gap(slot: Slot) -> bool:
    return slot.state == SlotState.MISSED


def _line(
    schedule: Schedule, past: list[Slot], since: datetime, until: datetime
) -> Line:
    found = [(slot.slot_at, strip.look_of(slot), strip.says_of(slot)) for slot in past]
    for moment in _coming(schedule, until):
        says = f"{timezone.localtime(moment):%H:%M} to come"
        found.append((moment, "slot-next", says))
    places: dict[int, list[tuple[str, str]]] = {}
    for moment, look, says in found:
        place = int(_across(moment, since) * PLACES / 100)
        places.setdefault(place, []).append((look, says))
    spots = [_spot(place, held) for place, held in sorted(places.items())]
    missed = sum(map(_is_gap, past))
    failed = sum(slot.outcome in strip.FAILED for slot in past)
    return Line(schedule, _words(schedule), spots, missed, failed)


def _coming(schedule: Schedule, until: datetime) -> list[datetime]:
    first = schedule.next_at
    if schedule.state != ScheduleState.ACTIVE or first is None or first > until:
        return []
    try:
        later = slots.moments_after(schedule, first)
        inside = takewhile(lambda moment: moment <= until, later)
        return [first, *islice(inside, MOST_COMING)]
    except BadSchedule:
        return [first]


def _words(schedule: Schedule) -> str:
    try:
        return slots.in_words(schedule)
    except BadSchedule as error:
        return error.detail


def _spot(place: int, held: list[tuple[str, str]]) -> Spot:
    look, says = max(held, key=lambda each: WORST.index(each[0]))
    more = f", with {len(held) - 1} more" if len(held) > 1 else ""
    return Spot(round(place * 100 / PLACES, 2), look, says + more)


def _hours(since: datetime, until: datetime) -> list[tuple[float, str]]:
    """Name full hours of the reader's zone."""
    hour = timezone.localtime(since).replace(minute=0, second=0, microsecond=0)
    labels = []
    while (hour := hour + timedelta(hours=1)) < until:
        if hour.hour % EVERY_HOURS == 0:
            labels.append((_across(hour, since), f"{hour:%H:%M}"))
    return labels


def _across(moment: datetime, since: datetime) -> float:
    return round((moment - since) * 100 / (BACK + AHEAD), 2)
