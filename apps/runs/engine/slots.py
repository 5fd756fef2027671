"""When a schedule falls due: its moments, in the person's time zone.

Hides: cron, interval, one-off and recurrence rules, and what daylight saving does
to them: a local time that does not exist fires once, just after the gap; one that
exists twice fires once.
Source: cronsim; RFC 5545 for rules; docs of zoneinfo.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrule, rrulestr
from dateutil.tz import resolve_imaginary

from apps.common.units import whole_number
from apps.runs.errors import BadSchedule
from apps.runs.models import Schedule, ScheduleKind

CRON_FIELDS = 5
#: Finer rules would be expanded second by second; an interval says the same.
RULE_STEPS = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
#: One rule, with or without its own start, in the form of RFC 5545.
RULE = re.compile(
    r"\A(?:DTSTART:20\d{6}T\d{6}\s+)?"
    r"(?:RRULE:)?[A-Z]+=[A-Z0-9,+:-]+(?:;[A-Z]+=[A-Z0-9,+:-]+)*\Z"
)
#: How far ahead a rule is searched for its next moment.
RULE_HORIZON = timedelta(days=366 * 10)


def moments_after(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the schedule's moments later than `after`, in UTC, ascending.

    Raises: BadSchedule.
    """
    zone = zone_of(schedule.timezone)
    match schedule.kind:
        case ScheduleKind.CRON:
            found = _cron(schedule.expression, zone, after)
        case ScheduleKind.INTERVAL:
            found = _interval(schedule.expression, schedule.created_at, after)
        case ScheduleKind.ONCE:
            found = iter([_once(schedule.expression, zone)])
        case _:
            found = _rule(schedule, zone, after)
    return _ascending(found, after)


def next_moment(schedule: Schedule, after: datetime) -> datetime | None:
    """Return the first moment later than `after`, or None when there is none."""
    return next(moments_after(schedule, after), None)


def due_moments(schedule: Schedule, now: datetime, limit: int) -> list[datetime]:
    """Return the moments from `next_at` up to now, at most `limit`."""
    if schedule.next_at is None or schedule.next_at > now:
        return []
    found = [schedule.next_at]
    for moment in islice(moments_after(schedule, schedule.next_at), limit - 1):
        if moment > now:
            break
        found.append(moment)
    return found


def check(schedule: Schedule) -> None:
    """Refuse an expression that cannot be read or a zone that is unknown.

    Raises: BadSchedule.
    """
    next_moment(schedule, schedule.created_at)


def in_words(schedule: Schedule) -> str:
    """Say in plain words when a schedule falls due. Raises: BadSchedule."""
    zone = f"({schedule.timezone})"
    match schedule.kind:
        case ScheduleKind.CRON:
            check(schedule)
            now = schedule.created_at
            return f"{CronSim(schedule.expression, now).explain()} {zone}"
        case ScheduleKind.INTERVAL:
            return f"Every {_span(int(schedule.expression))}"
        case ScheduleKind.ONCE:
            moment = _once(schedule.expression, zone_of(schedule.timezone))
            local = moment.astimezone(zone_of(schedule.timezone))
            return f"Once, on {local:%d %B %Y at %H:%M} {zone}"
        case _:
            return f"By the rule {schedule.expression} {zone}"


def _span(seconds: int) -> str:
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            count = seconds // size
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds} seconds"


def zone_of(name: str) -> ZoneInfo:
    """Raises: BadSchedule."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule(f"Unknown time zone {name!r}.") from None


def _ascending(found: Iterator[datetime], after: datetime) -> Iterator[datetime]:
    last = after
    for moment in found:
        if moment > last:
            last = moment
            yield moment


def _cron(expression: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    if len(expression.split()) != CRON_FIELDS:
        raise BadSchedule("A cron expression has five fields.")
    try:
        found = CronSim(expression, after.astimezone(zone))
    except CronSimError as error:
        raise BadSchedule(f"Cron expression {expression!r}: {error}.") from None
    return (moment.astimezone(UTC) for moment in found)


def _interval(expression: str, anchor: datetime, after: datetime) -> Iterator[datetime]:
    seconds = whole_number(expression)
    if not seconds or seconds > 366 * 86_400:
        raise BadSchedule("An interval is a whole number of seconds, up to a year.")
    step = timedelta(seconds=seconds)
    count = max(0, (after - anchor) // step)
    while True:
        count += 1
        yield anchor + count * step


def _once(expression: str, zone: ZoneInfo) -> datetime:
    try:
        moment = datetime.fromisoformat(expression)
    except ValueError:
        raise BadSchedule("A one-off is an ISO 8601 date and time.") from None
    return (
        _from_local(moment, zone) if moment.tzinfo is None else moment.astimezone(UTC)
    )


def _rule(schedule: Schedule, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    # Rules count in local wall time (RFC 5545), so they are expanded without a zone.
    start = schedule.created_at.astimezone(zone).replace(tzinfo=None, microsecond=0)
    _check_rule(schedule.expression)
    try:
        rule = rrulestr(schedule.expression, dtstart=start)
        if (
            isinstance(rule, rrule)
            and "UNTIL=" not in schedule.expression
            and "COUNT=" not in schedule.expression
        ):
            # A rule that never matches would be searched to the year 9999.
            rule = rule.replace(until=after.replace(tzinfo=None) + RULE_HORIZON)
        local = rule.xafter(
            after.astimezone(zone).replace(tzinfo=None) - timedelta(hours=3)
        )
        return (_from_local(moment, zone) for moment in local)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadSchedule(f"Recurrence rule: {error}.") from None


def _check_rule(expression: str) -> None:
    if not RULE.match(expression):
        raise BadSchedule(
            "A recurrence rule is one line such as FREQ=WEEKLY;BYDAY=MO,FR;BYHOUR=9."
        )
    if not any(f"FREQ={step}" in expression for step in RULE_STEPS):
        raise BadSchedule(
            f"A rule's FREQ is one of {', '.join(RULE_STEPS)};"
            " for less than a day use an interval or cron."
        )


def _from_local(moment: datetime, zone: ZoneInfo) -> datetime:
    return resolve_imaginary(moment.replace(tzinfo=zone)).astimezone(UTC)
