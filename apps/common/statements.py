"""Statements of the hot paths, whose text is built once.

The ORM builds a statement's text anew each time it runs; for a small statement
that costs several times what the database takes. Here the text is kept per table
and per choice of columns; the values go through the fields as ever.
Invariants: the same rows and the same conditional writes as the ORM's; only a
table's owner calls these on it (R7); reading goes through a queryset's own select.
Source: docs/decisions/0014-kept-statements.md
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connection, connections, models
from django.db.models.query import get_related_populators

from apps.common.columns import Maker, Prepare, preparing, shorten

Row = TypeVar("Row", bound=models.Model)


def insert(*rows: models.Model) -> None:
    """Insert new rows of one table, defaults and all, in one statement.

    In a transaction it travels with the next statement or the COMMIT, and a row that
    the database refuses is told there.
    """
    if not rows:
        return
    here = connections[DEFAULT_DB_ALIAS]
    text, marks, columns = _insert_text(type(rows[0]), here.vendor)
    values: list[Any] = []
    for row in rows:
        if not row._state.adding:
            raise TypeError(f"{type(row).__name__} rows are inserted once")
        values += [prepare(getattr(row, name), here) for name, prepare in columns]
    _without_answer(here, text + ", ".join([marks] * len(rows)), values)
    for row in rows:
        row._state.adding, row._state.db = False, here.alias


def update(
    table: type[models.Model], where: Mapping[str, Any], values: Mapping[str, Any]
) -> int:
    """Set columns where others are equal to these values. Returns how many rows.

    Values are plain; what is computed from columns goes the ORM's way.
    """
    if _is_computed(values):
        return table._base_manager.filter(**where).update(**values)
    here = connections[DEFAULT_DB_ALIAS]
    with here.cursor() as cursor:
        cursor.execute(*_updating(here, table, where, values))
        return int(cursor.rowcount)


def update_one(
    table: type[models.Model],
    where: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    otherwise: Exception,
) -> None:
    """Update the one row that stands so.

    In a transaction it travels with the next statement, at the latest before the
    COMMIT.   Raises: `otherwise`, here or there, when there is no such row.
    """
    here: Any = connections[DEFAULT_DB_ALIAS]
    if here.in_atomic_block and not _is_computed(values):
        here.execute_later(*_updating(here, table, where, values), otherwise)
    elif update(table, where, values) != 1:
        raise otherwise


def _is_computed(values: Mapping[str, Any]) -> bool:
    return any(hasattr(value, "resolve_expression") for value in values.values())


def _updating(
    here: Any,
    table: type[models.Model],
    where: Mapping[str, Any],
    values: Mapping[str, Any],
) -> tuple[str, list[Any]]:
    text, prepares = _update_text(table, tuple(where), tuple(values), here.vendor)
    given = [*values.values(), *where.values()]
    return text, [
        prepare(value, here) for prepare, value in zip(prepares, given, strict=True)
    ]


def delete(table: type[models.Model], where: Mapping[str, Any]) -> None:
    """Delete the rows whose columns are equal to these; nothing may refer to them.

    In a transaction it travels as an insert does.
    """
    here = connections[DEFAULT_DB_ALIAS]
    text, prepares = _delete_text(table, tuple(where), here.vendor)
    given = where.values()
    params = [
        prepare(value, here) for prepare, value in zip(prepares, given, strict=True)
    ]
    _without_answer(here, text, params)


class Reading(Generic[Row]):
    """A queryset's select with a written end, such as `WHERE id = %s`.

    The queryset says columns and joins; the tail filters, orders and limits.
    """

    def __init__(self, rows: Callable[[], models.QuerySet[Row]], tail: str) -> None:
        self._rows, self._tail = rows, tail
        self._kept: dict[str, _Select] = {}

    def fetch(self, *params: Any) -> list[Row]:
        """Return the rows for these values of the tail's marks."""
        here = connections[DEFAULT_DB_ALIAS]
        select = self._kept.get(here.vendor)
        if select is None:
            select = self._kept[here.vendor] = _Select(self._rows(), self._tail)
        with here.cursor() as cursor:
            given = [*select.params, *(_plain(value) for value in params)]
            cursor.execute(select.text, given)
            found = cursor.fetchall()
        return select.build(found)


class _Select:
    """One compiled select and how its rows become models.

    Source: django.db.models.query.ModelIterable, which compiles for each run.
    """

    def __init__(self, rows: models.QuerySet[Any], tail: str) -> None:
        compiler = rows.query.get_compiler(connection=connection)
        text, self.params = compiler.as_sql()
        self.text = f"{text} {tail}"
        self._compiler = compiler
        fields = compiler.klass_info["select_fields"]
        self._columns = slice(fields[0], fields[-1] + 1)
        names = [col[0].target.attname for col in compiler.select[self._columns]]
        alias = connection.alias
        self._make = Maker(compiler.klass_info["model"], names, alias).make
        related: Any = get_related_populators(  # type: ignore[call-arg]  # the stubs are of a later Django
            compiler.klass_info, compiler.select, alias
        )
        self._related = shorten(related, alias)
        wanted = [column[0] for column in compiler.select[: compiler.col_count]]
        self._converters = compiler.get_converters(wanted)

    def build(self, found: Iterable[Sequence[Any]]) -> list[Any]:
        if self._converters:
            found = self._compiler.apply_converters(found, self._converters)
        made = []
        for row in found:
            one = self._make(row[self._columns])
            for populator in self._related:
                populator.populate(row, one)
            made.append(one)
        return made


def _plain(value: Any) -> Any:
    """Give a value as the driver takes it."""
    if isinstance(value, UUID):
        return value if connection.features.has_native_uuid_field else value.hex
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def _without_answer(here: Any, text: str, params: list[Any]) -> None:
    """Execute what nobody reads the answer of: in a transaction, with the next."""
    if here.in_atomic_block:
        here.execute_later(text, params)
        return
    with here.cursor() as cursor:
        cursor.execute(text, params)


@lru_cache(maxsize=64)
def _insert_text(
    table: type[models.Model], vendor: str
) -> tuple[str, str, list[tuple[str, Prepare]]]:
    fields: Any = table._meta.local_concrete_fields
    quote = connection.ops.quote_name
    names = ", ".join(quote(field.column) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    text = f"INSERT INTO {quote(table._meta.db_table)} ({names}) VALUES "  # noqa: S608
    return text, f"({marks})", [(f.attname, preparing(f, vendor)) for f in fields]


@lru_cache(maxsize=64)
def _delete_text(
    table: type[models.Model], where: tuple[str, ...], vendor: str
) -> tuple[str, list[Prepare]]:
    quote = connection.ops.quote_name
    fields: list[Any] = [table._meta.get_field(name) for name in where]
    asks = " AND ".join(f"{quote(field.column)} = %s" for field in fields)
    text = f"DELETE FROM {quote(table._meta.db_table)} WHERE {asks}"  # noqa: S608
    return text, [preparing(field, vendor) for field in fields]


@lru_cache(maxsize=256)
def _update_text(
    table: type[models.Model],
    where: tuple[str, ...],
    values: tuple[str, ...],
    vendor: str,
) -> tuple[str, list[Prepare]]:
    quote = connection.ops.quote_name
    fields: list[Any] = [table._meta.get_field(name) for name in (*values, *where)]
    columns = [f"{quote(field.column)} = %s" for field in fields]
    sets, asks = columns[: len(values)], columns[len(values) :]
    text = (
        f"UPDATE {quote(table._meta.db_table)}"  # noqa: S608
        f" SET {', '.join(sets)} WHERE {' AND '.join(asks)}"
    )
    return text, [preparing(field, vendor) for field in fields]
