"""Usage by day, provider, model, lane and agent; nobody sees a stranger's."""

import csv
import io
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.test import Client

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.agents.engine import usage
from apps.agents.models import Turn
from apps.common import clock
from apps.providers.models import UsageRow


@pytest.fixture
def spent(turn: Turn, workspace: Workspace) -> Turn:
    values: dict[str, Any] = {
        "workspace_id": workspace.id,
        "turn_id": turn.id,
        "requested_lane": "worker",
        "served_lane": "worker",
        "served_provider": "acme",
        "served_model": "=one",
        "tokens_in": 10,
        "tokens_out": 4,
        "duration_ms": 100,
    }
    UsageRow.objects.create(**values, micros=500)
    UsageRow.objects.create(**values, micros=700, ok=False)
    UsageRow.objects.create(**values | {"served_lane": "brain"}, micros=300)
    UsageRow.objects.create(**values, micros=9_999, origin="drill")
    return turn


def test_usage_is_grouped_with_its_agent(spent: Turn) -> None:
    rows = usage.table(principal=spent.principal, days=7)

    worker = next(row for row in rows if row["lane"] == "worker")
    assert (worker["profile"], worker["calls"], worker["failures"]) == ("primary", 2, 1)
    assert usage.totals(rows)["micros"] == 1500


def test_usage_of_a_stranger_is_empty(spent: Turn, charlie: User) -> None:
    stranger = access.principal_for_user(user=charlie)

    assert usage.table(principal=stranger, days=7) == []


def test_usage_file_has_every_group_and_no_formula(
    spent: Turn, client: Client, alice: User
) -> None:
    client.force_login(alice)

    answer = client.get("/usage.csv")

    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [row["micros"] for row in rows] == ["300", "1200"]
    assert {row["model"] for row in rows} == {"'=one"}


def test_usage_page_and_answer_agree(spent: Turn, client: Client, alice: User) -> None:
    client.force_login(alice)

    page = client.get("/usage/")
    api = client.get("/api/v1/usage/summary").json()

    assert b"3 model calls in 7 days" in page.content
    assert sum(row["calls"] for row in api) == 3


def test_usage_page_without_usage_says_what_comes_here(
    client: Client, alice: User
) -> None:
    client.force_login(alice)

    assert b"Nothing to count yet" in client.get("/usage/").content


def test_latency_is_a_line_once_there_are_two_days():
    row = {"day": date(2030, 1, 1), "average_ms": 100, "calls": 3}
    slow = {"day": date(2030, 1, 2), "average_ms": 300, "calls": 1}
    with clock.frozen(datetime(2030, 1, 2, 9, tzinfo=UTC)):
        line = usage.latency([slow, row, {**row, "average_ms": 200}], 2)

    assert usage.latency([row], 2) is None
    assert line == usage.Latency("0.0,12.0 100.0,2.0", 300, 300)


def test_chart_stays_inside_and_stacks_lanes(spent: Turn) -> None:
    rows = usage.table(principal=spent.principal, days=7)

    drawn = usage.chart(rows, 7)

    assert (drawn.unit, len(drawn.pieces)) == ("micros", 2)
    assert all(p.y >= 0 and p.x + p.width <= 100 for p in drawn.pieces)
    assert drawn.pieces[0].y == drawn.pieces[1].y + drawn.pieces[1].height
