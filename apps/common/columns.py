"""Values on their way into and out of kept statements, by the shortest way.

Hides: for a value of exactly the type that a field holds, what the field would
make of it is known beforehand; everything else goes through the field as ever. Rows
become models without `__init__`, which sets field by field what is all given.
Source: docs/decisions/0025-the-shortest-way-to-a-row.md
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models.base import ModelState
from django.utils import timezone

Prepare = Callable[[Any, Any], Any]


def preparing(field: Any, vendor: str) -> Prepare:
    """Return what turns this field's values into what the driver takes."""
    if isinstance(field, models.ForeignKey):
        if field.remote_field.parent_link:
            return _by_field(field)
        return preparing(field.target_field, vendor)
    quick = _QUICK.get((type(field), vendor))
    if quick is None:
        return _by_field(field)
    kind, make = quick
    slow = _by_field(field)

    def prepare(value: Any, connection: Any) -> Any:
        return make(value) if type(value) is kind else slow(value, connection)

    return prepare


def _by_field(field: Any) -> Prepare:
    prepare: Prepare = field.get_db_prep_save
    return prepare


def _as_it_is(value: Any) -> Any:
    return value


def _hex(value: UUID) -> str:
    return value.hex


def _text_of(value: datetime) -> str:
    """What Django writes of a time into SQLite, which knows no zones."""
    known = value if value.tzinfo is not None else timezone.make_aware(value)
    return str(known.astimezone(UTC).replace(tzinfo=None))


def _quick() -> dict[tuple[type, str], tuple[type, Callable[[Any], Any]]]:
    found: dict[tuple[type, str], tuple[type, Callable[[Any], Any]]] = {}
    for vendor in ("sqlite", "postgresql"):
        for text in (models.CharField, models.TextField):
            found[text, vendor] = (str, _as_it_is)
        found[models.BooleanField, vendor] = (bool, _as_it_is)
    for number in (
        models.IntegerField,
        models.BigIntegerField,
        models.PositiveIntegerField,
        models.PositiveSmallIntegerField,
        models.SmallIntegerField,
        models.PositiveBigIntegerField,
    ):
        found[number, "sqlite"] = (int, _as_it_is)
    found[models.UUIDField, "sqlite"] = (UUID, _hex)
    found[models.DateTimeField, "sqlite"] = (datetime, _text_of)
    found[models.UUIDField, "postgresql"] = (UUID, _as_it_is)
    return found


_QUICK = _quick()


class Maker:
    """Makes models of one class from the columns that a select gives."""

    def __init__(self, model: Any, names: Sequence[str], alias: str) -> None:
        self._model, self._names, self._alias = model, tuple(names), alias

    def make(self, values: Sequence[Any]) -> Any:
        """As `Model.from_db`; a column that was not read stays deferred."""
        made = self._model.__new__(self._model)
        state = ModelState()
        state.adding, state.db = False, self._alias
        made.__dict__["_state"] = state
        made.__dict__.update(zip(self._names, values, strict=True))
        return made

    def from_db(self, alias: str, names: Sequence[str], values: Sequence[Any]) -> Any:
        """The shape in which Django's populators of related rows call it."""
        return self.make(values)


def shorten(populators: Sequence[Any], alias: str) -> Sequence[Any]:
    """Let populators of related rows make their models the same way.

    Source: django.db.models.query.RelatedPopulator, whose `populate` asks its
    `model_cls` for nothing but `from_db`.
    """
    for each in populators:
        each.model_cls = Maker(each.model_cls, each.init_list, alias)
        shorten(each.related_populators, alias)
    return populators
