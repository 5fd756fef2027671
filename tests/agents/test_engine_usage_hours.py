"""Sums by the hour are the rows' own sums, written once, at any moment."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.test import Client

from apps.access.models import Principal, User, Workspace
from apps.agents.engine import usage, usage_hours
from apps.agents.models import Turn, UsageHour, UsageMark
from apps.common import clock, statements
from apps.common.periods import LONG_AGO
from apps.providers.models import UsageRow

NOW = datetime(2030, 5, 20, 13, 40, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_noon() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


def row(turn: Turn, workspace: Workspace, at: datetime, **also: Any) -> UsageRow:
    values: dict[str, Any] = {
        "workspace_id": workspace.id,
        "turn_id": turn.id,
        "requested_lane": "worker",
        "served_lane": "worker",
        "served_provider": "acme",
        "served_model": "one",
        "created_at": at,
    }
    return UsageRow(**values | also)


@pytest.fixture
def weeks(turn: Turn, workspace: Workspace) -> Turn:
    """Eight days of calls, on the edges of hours and days too."""
    draw = random.Random(7)
    edges = [
        NOW - timedelta(days=7),
        datetime(2030, 5, 18, tzinfo=UTC),
        datetime(2030, 5, 18, tzinfo=UTC) - timedelta(microseconds=1),
        datetime(2030, 5, 20, 12, tzinfo=UTC),
        NOW - timedelta(minutes=5),
    ]
    spread = [NOW - timedelta(minutes=draw.randrange(8 * 24 * 60)) for _ in range(150)]
    rows = [
        row(
            turn,
            workspace,
            at,
            turn_id=draw.choice([turn.id, None]),
            origin=draw.choice(["real", "real", "drill"]),
            served_lane=draw.choice(["worker", "brain"]),
            ok=draw.random() < 0.8,
            fallback_used=draw.random() < 0.3,
            degraded=draw.random() < 0.2,
            tokens_in=draw.randrange(900),
            tokens_out=draw.randrange(900),
            micros=draw.randrange(9_000),
            duration_ms=draw.randrange(5_000),
        )
        for at in (*edges, *spread)
    ]
    statements.insert(*rows)
    return turn


def told(principal: Principal, days: int = 7) -> Any:
    return [
        usage.groups(principal=principal, days=days, origin=origin)
        for origin in ("real", "drill")
    ]


def test_sums_say_what_the_rows_say_at_any_mark(weeks: Turn) -> None:
    raw = told(weeks.principal)
    assert sum(each["calls"] for each in raw[0]) > 50

    with mock.patch.object(
        usage_hours, "SUMMED", replace(usage_hours.SUMMED, most_chunks=1)
    ):
        while usage_hours.sum_up():
            assert told(weeks.principal) == raw

    assert UsageMark.load().summed_to == datetime(2030, 5, 20, 12, tzinfo=UTC)
    assert usage_hours.differing(LONG_AGO, NOW) == [
        datetime(2030, 5, 20, 12, tzinfo=UTC),
        datetime(2030, 5, 20, 13, tzinfo=UTC),
    ]


def test_a_second_clock_and_a_second_time_add_nothing(weeks: Turn) -> None:
    usage_hours.sum_up()
    before = list(UsageHour.objects.order_by("id").values())
    mark = UsageMark.load()

    assert usage_hours.sum_up() == 0
    assert not usage_hours.SUMMED._close(NOW - timedelta(days=1), NOW, None)
    assert list(UsageHour.objects.order_by("id").values()) == before
    assert UsageMark.load().summed_to == mark.summed_to


def test_a_crash_between_mark_and_sums_leaves_the_rows(weeks: Turn) -> None:
    raw = told(weeks.principal)

    with (
        mock.patch.object(UsageHour.objects, "bulk_create", side_effect=OSError),
        pytest.raises(OSError),
    ):
        usage_hours.sum_up()

    assert UsageMark.load().summed_to is None
    assert told(weeks.principal) == raw


def test_what_a_set_back_clock_writes_is_found_again(
    weeks: Turn, workspace: Workspace
) -> None:
    usage_hours.sum_up()
    row(weeks, workspace, NOW - timedelta(hours=9), micros=77).save()

    with clock.frozen(NOW + timedelta(hours=1)):
        assert usage_hours.sum_up() == 1

    mark = usage_hours.SUMMED.mark()
    assert usage_hours.differing(LONG_AGO, mark) == []


def test_sums_are_made_again_from_the_rows(weeks: Turn) -> None:
    raw = told(weeks.principal)
    usage_hours.sum_up()
    lost = UsageHour.objects.order_by("hour").first()
    assert lost is not None
    UsageHour.objects.filter(hour=lost.hour).delete()
    assert told(weeks.principal, 30) != raw

    assert usage_hours.rebuild() == 1
    assert usage_hours.rebuild() == 0
    assert told(weeks.principal) == raw


def test_an_empty_install_has_nothing_to_sum(db: None) -> None:
    assert usage_hours.sum_up() == 0
    assert usage_hours.mend() == 0
    assert usage_hours.rebuild() == 0
    assert UsageHour.objects.count() == 0


def test_the_page_adds_the_hours_to_what_came_after_them(
    weeks: Turn, workspace: Workspace, client: Client, alice: User
) -> None:
    usage_hours.sum_up()
    statements.insert(
        *(
            row(weeks, workspace, NOW - timedelta(minutes=at % 50), ok=True)
            for at in range(20)
        )
    )
    client.force_login(alice)

    page = client.get("/usage/?days=30").content.decode()

    calls = UsageRow.objects.filter(origin="real").count()
    assert f"{calls} model calls in 30 days" in page
