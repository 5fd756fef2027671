"""Rows summed up by the hour, once, up to a mark: what all such sums have in common.

Hides: how the mark moves and how an hour is summed again.
Invariants: an hour counts either by its sums or by its rows, as the mark says, never
by both; the mark moves by one conditional UPDATE in the transaction that writes the
sums, so of two clocks one sums, and a crash leaves the hour to its rows.
Source: docs/decisions/0036-windows-are-summed-by-the-hour.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from apps.agents.models import RecursionMark, UsageMark
from apps.common import clock
from apps.common.periods import LONG_AGO, hour_of

#: Hours so young are looked at again: a clock that was set back writes into them.
LOOKED_AT_AGAIN = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlySums:
    """Sums by the hour and the mark that says where they end."""

    marks: type[UsageMark] | type[RecursionMark]
    #: The sums' rows; their `hour` says of when they are.
    rows: Callable[[], QuerySet[Any]]
    #: Sums up the hours of a span and inserts what it finds.
    write: Callable[[datetime, datetime], None]
    #: When the first was made of what is summed.
    oldest: Callable[[], datetime | None]
    #: An hour is summed up so long after its end: who writes late has written by then.
    settles: timedelta
    #: One transaction sums up so much, one call so many of them.
    chunk: timedelta
    most_chunks: int

    def mark(self) -> datetime:
        """Return where the sums end; without any, before everything."""
        found = self.marks._default_manager.filter(id=1)
        return found.values_list("summed_to", flat=True).first() or LONG_AGO

    def first(self, until: datetime) -> datetime:
        """Return the hour of the first thing that is summed, at the latest `until`."""
        oldest = self.oldest()
        return min(hour_of(oldest), until) if oldest else until

    def sum_up(self) -> int:
        """Sum up the hours that are over; return how many chunks were summed.

        Again: begins where the last one ended.
        """
        held: datetime | None = self.marks.load().summed_to
        until = hour_of(clock.now() - self.settles)
        since, done = held or self.first(until), 0
        while since < until and done < self.most_chunks:
            upto = min(since + self.chunk, until)
            if not self._close(since, upto, held):
                break
            held = since = upto
            done += 1
        return done

    def young(self) -> tuple[datetime, datetime]:
        """Return the span of the summed hours that are looked at again."""
        until = self.mark()
        return max(until - LOOKED_AT_AGAIN, LONG_AGO), until

    def again(self, since: datetime, upto: datetime) -> None:
        """Sum hours again that were summed before."""
        with transaction.atomic():
            # takes the row, so that two who sum the same do it one after the other
            self.marks._default_manager.filter(id=1).update(summed_to=F("summed_to"))
            self.rows().filter(hour__gte=since, hour__lt=upto).delete()
            self.write(since, upto)

    def _close(self, since: datetime, upto: datetime, held: datetime | None) -> bool:
        with transaction.atomic():
            mine = self.marks._default_manager.filter(id=1, summed_to=held)
            if not mine.update(summed_to=upto):
                return False
            self.write(since, upto)
        return True
