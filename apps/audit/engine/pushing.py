"""Sending sealed events to the sinks, at least once and without gaps.

A sink is asked for its last contiguous number and gets what follows. It never gets
an event before the database has committed it. Events stay in the database, so a
sink that is down loses nothing; its cursor shows the lag and the problem.
"""

from apps.audit import ports
from apps.audit.engine import ocsf
from apps.audit.errors import SinkRefused
from apps.audit.models import Event, Head, SinkCursor
from apps.common import clock

BATCH = 500


def push(name: str, sink: ports.Sink, *, batches: int) -> int:
    """Send up to `batches` batches. Returns how many events went out."""
    cursor, _ = SinkCursor.objects.get_or_create(name=name)
    sent = 0
    try:
        last = sink.last_contiguous_seq()
        if last is None:
            return 0
        size = Head.load().size
        if last >= size:
            problem = f"the sink holds event {last}, the log ends at {size}"
            _note(cursor, problem=problem)
            return 0
        while last + 1 < size and sent < batches * BATCH:
            lines = _lines(last + 1)
            last = sink.append(lines)
            sent += len(lines)
    except (OSError, SinkRefused) as error:
        _note(cursor, problem=str(error)[:300])
        return sent
    if cursor.problem or cursor.last_seq != last:
        _note(cursor, last=last)
    return sent


def _lines(first: int) -> list[ports.Line]:
    events = Event.objects.filter(gseq__gte=first, gseq__lt=first + BATCH)
    return [
        ports.Line(int(event.gseq or 0), ocsf.line(event))
        for event in events.order_by("gseq")
    ]


def _note(cursor: SinkCursor, *, last: int | None = None, problem: str = "") -> None:
    cursor.problem = problem
    if last is not None:
        cursor.last_seq = last
        cursor.last_ack_at = clock.now()
    cursor.save()
