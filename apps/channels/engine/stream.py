"""Answers on their way to open pages.

Hides: one poller per process that reads the new deltas of all its streams with one
query. Invariants: no database connection is held between two polls; a stream ends
when its turn is no longer open, when nobody listens, or after `LONGEST_SECONDS`.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from django.db import connection
from django.db.models import FilteredRelation, Q

from apps.agents.models import Turn, TurnState
from apps.common import clock

POLL_SECONDS = 0.2
#: The page asks again after that, so a forgotten tab cannot hold a stream forever.
LONGEST_SECONDS = 600.0
#: No news for so long means the poller is gone: end, and let the page ask again.
SILENCE_SECONDS = 15.0


@dataclass(frozen=True)
class Piece:
    """One thing an open page has not seen yet."""

    seq: int
    kind: str
    text: str


@dataclass(frozen=True)
class News:
    """What one poll found for one turn."""

    pieces: tuple[Piece, ...] = ()
    state: str = ""
    waiting: str = ""

    @property
    def is_over(self) -> bool:
        return self.state != TurnState.OPEN


def poll(wanted: dict[UUID, int]) -> dict[UUID, News]:
    """Read what is new for each turn after its seq, with one query.

    Shape: turns that are gone are absent, which ends their streams."""
    unseen = Q()
    for turn_id, seq in wanted.items():
        unseen |= Q(deltas__turn_id=turn_id, deltas__seq__gt=seq)
    rows = (
        Turn.objects.filter(id__in=wanted)
        .annotate(fresh=FilteredRelation("deltas", condition=unseen))
        .order_by("id", "fresh__seq")
        .values_list(
            "id", "state", "run__state", "fresh__seq", "fresh__kind", "fresh__text"
        )
    )
    found: dict[UUID, News] = {}
    for turn_id, state, run_state, seq, kind, text in rows:
        before = found.get(turn_id, News()).pieces
        piece = () if seq is None else (Piece(seq, kind, text),)
        found[turn_id] = News(before + piece, state, run_state)
    return found


@dataclass
class Hub:
    """All streams of this process on one event loop."""

    listeners: dict[UUID, dict[asyncio.Queue[News], int]] = field(default_factory=dict)
    task: "asyncio.Task[None] | None" = None
    executor: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="stream")
    )

    def join(self, turn_id: UUID, seq: int) -> "asyncio.Queue[News]":
        queue: asyncio.Queue[News] = asyncio.Queue()
        self.listeners.setdefault(turn_id, {})[queue] = seq
        if self.task is None or self.task.done():
            # A fresh context: the poller must outlive the request that starts it.
            self.task = asyncio.get_running_loop().create_task(
                self._run(), context=contextvars.Context()
            )
        return queue

    def leave(self, turn_id: UUID, queue: "asyncio.Queue[News]") -> None:
        queues = self.listeners.get(turn_id, {})
        queues.pop(queue, None)
        if not queues:
            self.listeners.pop(turn_id, None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.listeners:
            wanted = {turn: min(seen.values()) for turn, seen in self.listeners.items()}
            found = await loop.run_in_executor(self.executor, _poll_and_close, wanted)
            self._tell(wanted, found)
            await asyncio.sleep(POLL_SECONDS)

    def _tell(self, wanted: dict[UUID, int], found: dict[UUID, News]) -> None:
        for turn_id in wanted:
            news = found.get(turn_id, News(state=TurnState.CANCELLED))
            for queue, seen in self.listeners.get(turn_id, {}).items():
                fresh = tuple(piece for piece in news.pieces if piece.seq > seen)
                if fresh:
                    self.listeners[turn_id][queue] = fresh[-1].seq
                queue.put_nowait(News(fresh, news.state, news.waiting))


def _poll_and_close(wanted: dict[UUID, int]) -> dict[UUID, News]:
    try:
        return poll(wanted)
    finally:
        connection.close()


_HUBS: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """Return this event loop's hub, dropping those of loops that ended."""
    loop = asyncio.get_running_loop()
    for ended in [old for old in _HUBS if old.is_closed()]:
        _HUBS.pop(ended).executor.shutdown(wait=False)
    return _HUBS.setdefault(loop, Hub())


async def follow(turn_id: UUID, seq: int) -> AsyncIterator[News]:
    """Yield what is new for one turn until it is over."""
    here = hub()
    queue = here.join(turn_id, seq)
    until = clock.monotonic() + LONGEST_SECONDS
    try:
        while clock.monotonic() < until:
            try:
                news = await asyncio.wait_for(queue.get(), SILENCE_SECONDS)
            except TimeoutError:
                return
            yield news
            if news.is_over:
                return
    finally:
        here.leave(turn_id, queue)
