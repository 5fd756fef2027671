"""Kept statements do what the ORM's would."""

import pytest
from django.db import IntegrityError, transaction

from apps.access.models import Workspace
from apps.common import statements
from apps.common.statements import Reading

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

    gone = statements.delete(Workspace, {"slug": "north"})

    assert gone == 1
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
