"""Sending sealed events to the sinks, at least once and without gaps.

A sink is asked for its last contiguous number and gets what follows. It never gets
an event before the database has committed it. Events stay in the database, so a
sink that is down loses nothing; its cursor shows the lag and the problem. After an
accepted recovery a sink is first told where the log goes on.
"""

import json
from datetime import timedelta

from apps.audit import ports
from apps.audit.engine import ocsf
from apps.audit.errors import SinkRefused
from apps.audit.models import Event, Head, SinkCursor
from apps.common import clock, failpoints

BATCH = 500


def push(name: str, sink: ports.Sink, *, batches: int) -> int:
    """Send up to `batches` batches. Returns how many events went out."""
    if not sink.is_on():
        return 0
    cursor, _ = SinkCursor.objects.get_or_create(name=name)
    sent = 0
    try:
        head = Head.load()
        _follow(cursor, sink, head)
        last = sink.last_contiguous_seq()
        if last is None:
            return 0
        if last >= head.size:
            problem = f"the sink holds event {last}, the log ends at {head.size}"
            _note(cursor, problem=problem)
            return 0
        while last + 1 < head.size and sent < batches * BATCH:
            lines = _lines(last + 1)
            if _may_wait(sink, lines):
                break
            failpoints.reach("sink.asked")
            last = sink.append(lines)
            failpoints.reach("sink.appended")
            sent += len(lines)
    except (OSError, SinkRefused) as error:
        _note(cursor, problem=str(error)[:300])
        return sent
    if cursor.problem or cursor.last_seq != last:
        _note(cursor, last=last)
    return sent


def _follow(cursor: SinkCursor, sink: ports.Sink, head: Head) -> None:
    """Tell the sink of an epoch that began since it was last heard of."""
    if cursor.epoch == head.epoch or not head.epoch:
        return
    if cursor.epoch:
        begun = Event.objects.filter(type="audit.epoch_begun", epoch=head.epoch)
        event = begun.order_by("id").first()
        if event is not None:
            seq = int(json.loads(event.body)["data"]["fork"])
            sink.fork(epoch=head.epoch, seq=seq)
            cursor.last_seq = min(cursor.last_seq, seq - 1)
    cursor.epoch = head.epoch
    cursor.save(update_fields=["epoch", "last_seq"])


def _may_wait(sink: ports.Sink, lines: list[ports.Line]) -> bool:
    """Let a sink of few large parts wait for a part to fill."""
    if not sink.patience_seconds or len(lines) == BATCH:
        return False
    oldest = Event.objects.filter(gseq=lines[0].seq).values_list("occurred_at")
    since = oldest.first()
    patience = timedelta(seconds=sink.patience_seconds)
    return since is not None and clock.now() - since[0] < patience


def _lines(first: int) -> list[ports.Line]:
    events = Event.objects.filter(gseq__gte=first, gseq__lt=first + BATCH)
    return [
        ports.Line(int(event.gseq or 0), ocsf.line(event))
        for event in events.order_by("gseq")
    ]


def _note(cursor: SinkCursor, *, last: int | None = None, problem: str = "") -> None:
    if problem and cursor.problem == problem:
        return
    cursor.problem = problem
    if last is not None:
        cursor.last_seq = last
        cursor.last_ack_at = clock.now()
    cursor.save()
