"""When schedules fall due, in both directions of daylight saving."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from apps.runs.engine import slots
from apps.runs.errors import BadSchedule
from apps.runs.models import Schedule

BERLIN = "Europe/Berlin"


def planned(kind: str, expression: str, zone: str = BERLIN) -> Schedule:
    created_at = datetime(2026, 1, 1, 8, tzinfo=UTC)
    return Schedule(
        kind=kind, expression=expression, timezone=zone, created_at=created_at
    )


def moments(schedule: Schedule, after: datetime, count: int) -> list[str]:
    found = islice(slots.moments_after(schedule, after), count)
    return [moment.strftime("%d %H:%M") for moment in found]


def test_cron_when_clocks_go_forward_then_the_local_hour_stays() -> None:
    daily = planned("cron", "0 9 * * *")

    found = moments(daily, datetime(2026, 3, 27, 12, tzinfo=UTC), 3)

    assert found == ["28 08:00", "29 07:00", "30 07:00"]


def test_cron_when_the_local_hour_is_left_out_then_it_fires_once() -> None:
    daily = planned("cron", "30 2 * * *")

    found = moments(daily, datetime(2026, 3, 28, 12, tzinfo=UTC), 2)

    assert found == ["29 01:00", "30 00:30"]


def test_cron_when_the_local_hour_comes_twice_then_it_fires_once() -> None:
    daily = planned("cron", "30 2 * * *")

    found = moments(daily, datetime(2026, 10, 24, 12, tzinfo=UTC), 2)

    assert found == ["25 00:30", "26 01:30"]


def test_rule_when_the_local_hour_comes_twice_then_it_fires_once() -> None:
    daily = planned("rrule", "DTSTART:20260101T023000\nRRULE:FREQ=DAILY")

    found = moments(daily, datetime(2026, 10, 24, 12, tzinfo=UTC), 2)

    assert found == ["25 00:30", "26 01:30"]


def test_rule_when_the_local_hour_is_left_out_then_it_fires_after_the_gap() -> None:
    daily = planned("rrule", "DTSTART:20260101T023000\nRRULE:FREQ=DAILY")

    found = moments(daily, datetime(2026, 3, 28, 12, tzinfo=UTC), 2)

    assert found == ["29 01:30", "30 00:30"]


def test_interval_when_started_then_counts_from_its_anchor() -> None:
    quarter = planned("interval", "900")

    found = moments(quarter, datetime(2026, 1, 1, 8, 20, tzinfo=UTC), 2)

    assert found == ["01 08:30", "01 08:45"]


def test_once_when_past_then_there_is_no_next() -> None:
    once = planned("once", "2026-02-01T10:00:00")

    assert slots.next_moment(once, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(
        2026, 2, 1, 9, tzinfo=UTC
    )
    assert slots.next_moment(once, datetime(2026, 2, 2, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("kind", "expression", "zone"),
    [
        ("cron", "0 0 9 * * *", BERLIN),
        ("cron", "@daily", BERLIN),
        ("cron", "61 * * * *", BERLIN),
        ("cron", "0 9 * * *", "Mars/Base"),
        ("interval", "0", BERLIN),
        ("interval", "5 minutes", BERLIN),
        ("once", "tomorrow", BERLIN),
        ("rrule", "FREQ=SOMETIMES", BERLIN),
    ],
)
def test_schedule_when_it_cannot_be_read_then_refused(
    kind: str, expression: str, zone: str
) -> None:
    with pytest.raises(BadSchedule):
        slots.check(planned(kind, expression, zone))


def test_due_moments_when_many_passed_then_bounded() -> None:
    minutely = planned("cron", "* * * * *")
    minutely.next_at = datetime(2026, 1, 1, 8, 1, tzinfo=UTC)

    found = slots.due_moments(minutely, minutely.next_at + timedelta(hours=5), 10)

    assert len(found) == 10
