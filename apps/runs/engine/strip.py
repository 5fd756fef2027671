"""The newest moments of a schedule as a strip: what ran, what failed, the gaps."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from apps.runs.models import Slot, SlotState, State

#: Width of one moment and of the space to the next. Units: SVG user units.
STEP, WIDTH = 12, 9
FAILED = frozenset({State.FAILED, State.DEAD_LETTER, State.CANCELLED, State.DISMISSED})


@dataclass(frozen=True, slots=True)
class Mark:
    """One moment: where it stands, how it is drawn, what it says."""

    x: int
    look: str
    says: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of marks, oldest left; gaps are moments that started nothing."""

    marks: list[Mark]
    width: int
    says: str


def drawn(slots: Sequence[Slot], *, has_next: bool) -> Strip:
    """Draw slots, oldest first, and the one to come."""
    marks = [
        Mark(place * STEP, look_of(slot), says_of(slot))
        for place, slot in enumerate(slots)
    ]
    if has_next:
        marks.append(Mark(len(slots) * STEP, "slot-next", "next"))
    gaps = sum(slot.state != SlotState.FIRED for slot in slots)
    failed = sum(slot.outcome in FAILED for slot in slots)
    says = f"The newest {len(slots)} moments: {gaps} without a run, {failed} failed."
    return Strip(marks, max(len(marks), 1) * STEP, says)


def look_of(slot: Slot) -> str:
    if slot.state != SlotState.FIRED:
        return "slot-missed"
    return "slot-fail" if slot.outcome in FAILED else "slot-ok"


def says_of(slot: Slot) -> str:
    here = timezone.localtime(slot.slot_at)
    return f"{here:%d %b %H:%M}: {slot.outcome or slot.state}"
