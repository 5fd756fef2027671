"""What the models themselves say: keys point down, records cannot be rewritten."""

import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command

from apps.common.models import AppendOnly, AppendOnlyError
from tests.house.rules import points_down

ROOT = Path(__file__).resolve().parents[2]
OURS = [model for model in apps.get_models() if model.__module__.startswith("apps.")]
RECORDS = [model for model in OURS if issubclass(model, AppendOnly)]


def test_foreign_keys_point_down():
    up = [
        f"{model.__name__}.{field.name} -> {field.related_model.__name__}"
        for model in OURS
        for field in model._meta.get_fields()
        if field.is_relation and field.concrete and field.related_model
        if not points_down(model._meta.app_label, field.related_model._meta.app_label)
    ]

    assert up == []


def test_there_are_append_only_tables():
    assert {"Event"} <= {model.__name__ for model in RECORDS}


@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_record_refuses_a_second_save(model):
    row = model()
    row._state.adding = False

    with pytest.raises(AppendOnlyError):
        row.save()


@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_record_refuses_delete(model):
    with pytest.raises(AppendOnlyError):
        model().delete()


@pytest.mark.parametrize("verb", ["update", "delete"])
@pytest.mark.parametrize("model", RECORDS, ids=lambda model: model.__name__)
def test_record_refuses_writes_of_its_queryset(model, verb):
    rows = model.objects.all()

    with pytest.raises(AppendOnlyError):
        getattr(rows, verb)()


@pytest.mark.django_db
def test_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_migrations_are_named_by_hand():
    ours = list((ROOT / "apps").glob("*/migrations/[0-9]*.py"))

    assert [
        path.name for path in ours if re.search(r"_auto_|_initial_\d", path.name)
    ] == []


def test_every_app_with_tables_has_migrations():
    labels = {model._meta.app_label for model in OURS}

    missing = {
        label
        for label in labels
        if not list((ROOT / "apps" / label / "migrations").glob("0001_*.py"))
    }

    assert missing == set()


def test_every_table_has_an_admin_page():
    from django.contrib import admin

    missing = {model.__name__ for model in OURS if not admin.site.is_registered(model)}

    assert missing == set()
