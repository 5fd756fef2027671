"""Kept statements do what the ORM's would."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import (
    BigIntegerField,
    BooleanField,
    CharField,
    DateTimeField,
    IntegerField,
    JSONField,
    Model,
    TextField,
    UUIDField,
)
from django.test.utils import CaptureQueriesContext

from apps.access.models import Membership, Role, Workspace
from apps.audit.models import Event
from apps.common import statements
from apps.common.columns import preparing
from apps.common.statements import Reading
from apps.runs.models import Run, State
from tests import people

pytestmark = pytest.mark.django_db

BY_SLUG = Reading(Workspace.objects.all, "WHERE slug = %s")


def make(*slugs: str) -> list[Workspace]:
    rows = [Workspace(slug=slug, name=slug.title()) for slug in slugs]
    statements.insert(*rows)
    return rows


def test_insert_when_several_then_all_are_as_given() -> None:
    made = make("north", "south")

    found = Workspace.objects.filter(slug__in=["north", "south"]).order_by("slug")

    assert [(row.id, row.name, row.created_at) for row in found] == [
        (row.id, row.name, row.created_at) for row in made
    ]
    assert not made[0]._state.adding


def test_insert_when_already_stored_then_refused() -> None:
    [row] = make("north")

    with pytest.raises(TypeError, match="inserted once"):
        statements.insert(row)


def test_insert_when_a_constraint_forbids_then_django_says_so() -> None:
    make("north")

    with pytest.raises(IntegrityError), transaction.atomic():
        make("north")


def test_update_when_the_row_moved_on_then_counts_none() -> None:
    [row] = make("north")
    where = {"id": row.id, "name": "North"}

    first = statements.update(Workspace, where, {"name": "Nord"})
    second = statements.update(Workspace, where, {"name": "Norte"})

    assert (first, second) == (1, 0)
    assert Workspace.objects.get(id=row.id).name == "Nord"


def test_delete_when_equal_then_only_those_are_gone() -> None:
    make("north", "south")

    statements.delete(Workspace, {"slug": "north"})

    assert not BY_SLUG.fetch("north")
    assert BY_SLUG.fetch("south")


def test_reading_when_fetched_then_rows_equal_the_querysets() -> None:
    make("north")

    [read] = BY_SLUG.fetch("north")

    stored = Workspace.objects.get(slug="north")
    assert (read.id, read.name, read.created_at) == (
        stored.id,
        stored.name,
        stored.created_at,
    )
    assert BY_SLUG.fetch("nowhere") == []


SAMPLES: dict[type, tuple[Any, ...]] = {
    CharField: ("plain", State.QUEUED, 5),
    TextField: ("long", State.QUEUED),
    BooleanField: (True, 1, None),
    IntegerField: (7, True, "7", None),
    BigIntegerField: (7, "7", None),
    UUIDField: (UUID(int=9), str(UUID(int=9)), None),
    DateTimeField: (
        datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
        datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=5))),
        None,
    ),
    JSONField: ({"a": [1, "x"]}, [], None, "text"),
}


@pytest.mark.parametrize("model", [Run, Event, Workspace, Membership])
def test_every_value_is_prepared_as_its_field_would(model: type[Model]) -> None:
    for field in model._meta.local_concrete_fields:
        kind: Any = field.target_field if field.is_relation else field
        short = preparing(field, connection.vendor)
        for value in SAMPLES.get(type(kind), ()):
            expected = field.get_db_prep_save(value, connection)  # type: ignore[arg-type]  # the proxy stands for it
            found = short(value, connection)
            assert _shown(found) == _shown(expected), (field, value)


def _shown(value: Any) -> Any:
    return getattr(value, "obj", value)


def test_fetch_when_related_then_they_are_as_the_orm_makes_them() -> None:
    [north] = make("north")
    human = people.person("ann", Role.OPERATOR, north)
    kept = Reading(
        lambda: Membership.objects.select_related("user", "workspace"),
        "WHERE access_membership.user_id = %s",
    )

    [found] = kept.fetch(human.id)

    [expected] = Membership.objects.select_related("user", "workspace").filter(
        user_id=human.id
    )
    assert found == expected
    with CaptureQueriesContext(connection) as asked:
        assert found.user.username == expected.user.username
        assert found.workspace.slug == expected.workspace.slug
    assert not asked.captured_queries
    assert not found._state.adding
    found.role = "viewer"
    found.save(update_fields=["role"])
    assert Membership.objects.get(id=found.id).role == "viewer"
