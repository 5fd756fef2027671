"""May something be delivered unasked, here and now?

Hides: quiet hours across midnight, the recipient's day, the count of that day.
Invariants: it binds proactive delivery alone, never a run, a reply, an approval
or an alert; the cap is held by one conditional UPDATE.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.db.models import F

from apps.runs.engine import slots
from apps.runs.models import DeliveryDay, Schedule

QUIET_FROM, QUIET_TO = time(22), time(7)
DAILY_CAP = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it may be delivered; if not, why and from when on."""

    allowed: bool
    reason: str = ""
    until: datetime | None = None


def verdict(schedule: Schedule, recipient: str, now: datetime) -> Verdict:
    """Say whether a delivery would be let through. Writes nothing."""
    zone = slots.zone_of(schedule.timezone)
    begins, ends = quiet_hours(schedule)
    local = now.astimezone(zone)
    if _within(local.time(), begins, ends):
        return Verdict(False, "quiet_hours", _next(local, ends, zone))
    day = DeliveryDay.objects.filter(
        workspace_id=schedule.workspace_id, recipient=recipient, day=local.date()
    )
    count = day.values_list("delivered", flat=True).first() or 0
    if count >= cap_of(schedule):
        morning = ends if begins != ends else time(0)
        tomorrow = datetime.combine(local.date(), time(23, 59, 59), zone)
        return Verdict(False, "daily_cap", _next(tomorrow, morning, zone))
    return Verdict(True)


def take(schedule: Schedule, recipient: str, now: datetime) -> Verdict:
    """Count one delivery, if it is let through. Call it in the sender's transaction.

    Writes: DeliveryDay, one conditional UPDATE.
    """
    found = verdict(schedule, recipient, now)
    if not found.allowed:
        return found
    local = now.astimezone(slots.zone_of(schedule.timezone))
    row, _ = DeliveryDay.objects.get_or_create(
        workspace_id=schedule.workspace_id, recipient=recipient, day=local.date()
    )
    counted = DeliveryDay.objects.filter(
        id=row.id, delivered__lt=cap_of(schedule)
    ).update(delivered=F("delivered") + 1)
    return found if counted else verdict(schedule, recipient, now)


def quiet_hours(schedule: Schedule) -> tuple[time, time]:
    """Return the schedule's quiet hours; equal ends mean that there are none."""
    if schedule.quiet_from is None or schedule.quiet_to is None:
        return QUIET_FROM, QUIET_TO
    return schedule.quiet_from, schedule.quiet_to


def cap_of(schedule: Schedule) -> int:
    return DAILY_CAP if schedule.daily_cap is None else schedule.daily_cap


def _within(moment: time, begins: time, ends: time) -> bool:
    if begins <= ends:
        return begins <= moment < ends
    return moment >= begins or moment < ends


def _next(local: datetime, at: time, zone: ZoneInfo) -> datetime:
    found = datetime.combine(local.date(), at, zone)
    if found <= local:
        found = datetime.combine(local.date() + timedelta(days=1), at, zone)
    return found.astimezone(UTC)
