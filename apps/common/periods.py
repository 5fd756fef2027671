"""Days and hours of UTC, cut by the store itself.

Django's own TruncDay and TruncHour call back into Python for each row on SQLite.
"""

from datetime import UTC, datetime, time
from typing import Any

from django.db.models import DateField, DateTimeField, Func

#: Before everything.
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def hour_of(moment: datetime) -> datetime:
    """Return the beginning of the hour that a moment lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def midnight_of(moment: datetime) -> datetime:
    """Return the beginning of the UTC day that a moment lies in."""
    return datetime.combine(moment.astimezone(UTC).date(), time.min, UTC)


class UtcDay(Func):
    """The day of a moment."""

    function = "date"
    arity = 1
    output_field = DateField()

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        template = "(%(expressions)s AT TIME ZONE 'UTC')::date"
        return self.as_sql(compiler, connection, template=template)


class UtcHour(Func):
    """The hour of a moment, as the moment at which it begins."""

    arity = 1
    output_field = DateTimeField()

    def as_sqlite(
        self, compiler: Any, connection: Any, **extra_context: Any
    ) -> tuple[str, Any]:
        template = "strftime('%%%%Y-%%%%m-%%%%d %%%%H:00:00', %(expressions)s)"
        return self.as_sql(compiler, connection, template=template)

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        template = (
            "date_trunc('hour', %(expressions)s AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"
        )
        return self.as_sql(compiler, connection, template=template)
