"""What a list of the admin offers to narrow by, at a price that no history raises.

Hides: that Django would read a whole table for its dates and for a filter's choices.
Invariants: the dates cost two look-ups by key; the choices one short read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter, FieldListFilter
from django.contrib.admin.templatetags.admin_list import date_hierarchy
from django.db.models import CharField, Field
from django.utils import timezone

from apps.common import clock
from apps.common.units import whole_number

#: A filter without fixed choices offers the values of so many newest records.
NEWEST = 1_000
#: So many records are counted; more are said to be at least so many.
COUNTED = 10_000


class NewestValues(AllValuesFieldListFilter):
    """The values of the newest records; the list itself may hold older ones."""

    def __init__(  # noqa: PLR0913, PLR0917  # Django's own signature
        self,
        field: Any,
        request: Any,
        params: Any,
        model: Any,
        model_admin: Any,
        field_path: str,
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        rows = model_admin.get_queryset(request).order_by("-pk")
        found = set(rows.values_list(field.name, flat=True)[:NEWEST])
        choices: Any = sorted(found, key=lambda value: (value is not None, value))
        self.lookup_choices = choices

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Name also what is empty, so that its link can be seen and heard."""
        for choice in super().choices(changelist):
            yield choice | {"display": choice["display"] or "empty"}


def _has_open_values(field: "Field[Any, Any]") -> bool:
    return isinstance(field, CharField) and not field.flatchoices


FieldListFilter.register(_has_open_values, NewestValues, take_priority=True)


@dataclass(frozen=True, slots=True)
class Span:
    """Stands for a queryset where only its dates are asked for: all of a span."""

    first: date | None
    last: date | None

    def aggregate(self, **_: Any) -> dict[str, datetime | None]:
        ends = {"first": self.first, "last": self.last}
        zone = timezone.get_current_timezone()
        return {
            name: None if at is None else datetime.combine(at, time.min, zone)
            for name, at in ends.items()
        }

    def datetimes(self, field: str, kind: str) -> list[date]:
        return self.dates(field, kind)

    def dates(self, _: str, kind: str) -> list[date]:
        """Each first day of a `kind` from the first to the last."""
        found: dict[date, None] = {}
        for day in self._days():
            if kind == "year":
                found[day.replace(month=1, day=1)] = None
            else:
                found[day.replace(day=1) if kind == "month" else day] = None
        return list(found)

    def _days(self) -> Iterator[date]:
        if self.first is None or self.last is None:
            return
        for at in range((self.last - self.first).days + 1):
            yield self.first + timedelta(days=at)

    def within(self, chosen: dict[str, int]) -> "Span":
        """Keep what is of the chosen year and month."""
        days = [
            day
            for day in self._days()
            if all(getattr(day, part) == value for part, value in chosen.items())
        ]
        return Span(days[0], days[-1]) if days else Span(None, None)


def dates_of(changelist: Any) -> Any:
    """Offer years, months or days as Django does, from the span of the table.

    Shape: each day between the oldest record and today, with records or without.
    """
    field, chosen = changelist.date_hierarchy, {}
    for part in ("year", "month"):
        given = changelist.params.get(f"{field}__{part}", "")
        if (number := whole_number(given, most=9999)) is not None:
            chosen[part] = number
    stand_in: Any = SimpleNamespace(
        date_hierarchy=field,
        model=changelist.model,
        params=changelist.params,
        get_query_string=changelist.get_query_string,
        queryset=_span(changelist.model, field).within(chosen),
    )
    return date_hierarchy(stand_in)


def _span(model: Any, field: str) -> Span:
    """From the first record's date to today's, or later where the last one's is.

    Ids sort by creation, so both ends are looked up by key.
    """
    rows = model._default_manager.order_by("pk").values_list(field, flat=True)
    ends = [_day(value) for value in (rows.first(), rows.last()) if value is not None]
    return Span(min(ends), max(*ends, _day(clock.now()))) if ends else Span(None, None)


def _day(moment: Any) -> date:
    if isinstance(moment, datetime):
        return timezone.localtime(moment).date()
    day: date = moment
    return day
