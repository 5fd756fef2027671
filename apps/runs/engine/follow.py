"""What happens to one run, as it happens: its audit events as server-sent events.

The id of each is its place in the run, without gaps, so `Last-Event-ID` resumes.
Invariants: no database connection is held between two looks; a stream ends when its
run does, after `LONGEST_SECONDS`, or the moment its credential does.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from apps.audit import queries as audit
from apps.common import clock
from apps.runs.models import FINISHED, Run, State

POLL_SECONDS = 0.5
#: The reader asks again after that; a forgotten one cannot hold a stream forever.
LONGEST_SECONDS = 600.0
#: Something is said at least so often, so that a lost feed is noticed.
QUIET_SECONDS = 15.0
#: How many events one look takes.
MOST = 200

#: A dead letter may be taken up again; its stream ends, and a new one follows on.
OVER = (*FINISHED, State.CANCELLED, State.DEAD_LETTER, State.DISMISSED)

Found = tuple[list[str], int, str]


async def follow(
    *, run_id: UUID, after: int, may_read: Callable[[], bool]
) -> AsyncIterator[str]:
    """Yield the events of a run after a place in it, then how it ended."""
    until = clock.monotonic() + LONGEST_SECONDS
    spoken, state = clock.monotonic(), ""
    while clock.monotonic() < until:
        found = await sync_to_async(_look)(run_id, after, may_read)
        if found is None:
            yield _event("closed", {"reason": "this credential reads it no more"})
            return
        lines, after, now_in = found
        for line in lines:
            yield line
        if now_in != state:
            state = now_in
            yield _event("state", {"state": state})
        if state in OVER and len(lines) < MOST:
            yield _event("done", {"state": state})
            return
        if lines:
            spoken = clock.monotonic()
        elif clock.monotonic() - spoken > QUIET_SECONDS:
            spoken = clock.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(POLL_SECONDS)


def _look(run_id: UUID, after: int, may_read: Callable[[], bool]) -> Found | None:
    """Read what is new, with the state read first: what ended said all it had."""
    try:
        state = Run.objects.filter(id=run_id).values_list("state", flat=True).first()
        if state is None or not may_read():
            return None
        rows = (
            audit.events_of_run(run_id)
            .filter(run_seq__gt=after)
            .order_by("run_seq")[:MOST]
        )
        lines = []
        for row in rows:
            after = row.run_seq or after
            told = {
                "type": row.type,
                "actor": row.actor_label,
                "at": row.occurred_at.isoformat(),
                "decision": row.decision,
                "reason": row.reason,
                "traceId": row.trace_id,
            }
            lines.append(_event("event", told, after))
        return lines, after, state
    finally:
        close_old_connections()


def _event(name: str, data: dict[str, str], seq: int | None = None) -> str:
    head = f"id: {seq}\n" if seq is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n"
