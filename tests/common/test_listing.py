"""What a list of the admin offers to narrow by."""

from datetime import date

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.access.models import Role
from apps.common.listing import Span
from tests import people


def test_span_when_a_month_is_chosen_then_gives_its_days() -> None:
    span = Span(date(2025, 11, 28), date(2026, 2, 3))

    assert span.dates("", "year") == [date(2025, 1, 1), date(2026, 1, 1)]
    assert len(span.dates("", "month")) == 4
    assert span.within({"year": 2026, "month": 2}).dates("", "day") == [
        date(2026, 2, 1),
        date(2026, 2, 2),
        date(2026, 2, 3),
    ]
    assert span.within({"year": 1999}).dates("", "day") == []


@pytest.mark.parametrize("chosen", ["", "?created_at__year=2026&created_at__month=1"])
def test_list_when_opened_then_reads_no_whole_table(
    db: None, client: Client, workspace: object, chosen: str
) -> None:
    client.force_login(people.person("ada", Role.ADMIN, workspace))

    with CaptureQueriesContext(
        connection,
    ) as read:
        answer = client.get(f"/admin/runs/run/{chosen}")

    said = [each["sql"].upper() for each in read if "runs_run" in each["sql"]]
    assert answer.status_code == 200
    assert not [sql for sql in said if "DISTINCT" in sql or "MIN(" in sql]
