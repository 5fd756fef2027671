"""Sockets of the run machinery: handlers, periodic jobs, the doorbell.

Invariants: a kind has one handler; a handler gets a context and returns what
becomes of the run; ringing the doorbell may fail without losing work.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.runs.errors import NoHandler

DEFAULT_QUEUE = "default"
#: How long one step may take before its lease is no longer renewed.
STEP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over: `succeeded`, `failed` or `truncated`."""

    result: dict[str, Any] = field(default_factory=dict)
    state: str = "succeeded"
    reason: str = ""
    error_code: str = ""
    error_detail: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """The run waits and holds no worker until it is woken, or until `until`."""

    state: str
    waiting_on: str = ""
    reason: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The run did its part and goes back to the queue, counted as no attempt."""

    after_seconds: float = 0.0


Outcome = Finish | Park | Again


def _never() -> bool:
    return False


def _nothing() -> None:
    return None


def _no_step(seconds: float) -> None:
    return None


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a handler knows of its run. Ids and plain values only.

    `stopping()` turns true when the process is asked to leave or the lease is
    lost: return `Again()` soon. `check_fence()` raises Fenced when the run is no
    longer ours; inside a transaction it also holds the run until the commit.
    `begin_step(seconds)` says how long the next step may take.
    """

    run_id: uuid.UUID
    fence: int
    attempt: int
    trace_id: str
    payload: dict[str, Any]
    stopping: Callable[[], bool] = _never
    check_fence: Callable[[], None] = _nothing
    begin_step: Callable[[float], None] = _no_step
    kind: str = ""
    reason: str = ""
    trigger: str = ""
    origin: str = "real"
    epoch: str = ""
    workspace_id: uuid.UUID | None = None
    principal_id: uuid.UUID | None = None
    parent_id: uuid.UUID | None = None
    root_id: uuid.UUID | None = None
    deadline_at: datetime | None = None


Handler = Callable[[RunContext], Outcome]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of run: who carries it, on which queue, with how long a step."""

    name: str
    handler: Handler
    queue: str = DEFAULT_QUEUE
    step_seconds: float = STEP_SECONDS


class Handlers:
    """The kinds of run that this install can carry."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}

    def register(
        self,
        kind: str,
        handler: Handler,
        *,
        queue: str = DEFAULT_QUEUE,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        """Plug in the handler of a kind. Again: the last one counts."""
        self._kinds[kind] = Kind(kind, handler, queue, step_seconds)

    def get(self, kind: str) -> Kind:
        """Raises: NoHandler."""
        try:
            return self._kinds[kind]
        except KeyError:
            raise NoHandler(f"No handler for runs of kind {kind!r}.") from None

    def queue_of(self, kind: str) -> str:
        known = self._kinds.get(kind)
        return known.queue if known else DEFAULT_QUEUE

    def names(self) -> list[str]:
        return sorted(self._kinds)


@dataclass(frozen=True, slots=True)
class Tick:
    """A job that the clock does every so often. It must be safe to repeat."""

    name: str
    job: Callable[[], object]
    every_seconds: float
    #: Whether it is done while the store is in doubt.
    in_doubt: bool = False


class Ticks:
    """The clock's jobs."""

    def __init__(self) -> None:
        self._ticks: dict[str, Tick] = {}

    def register(
        self,
        name: str,
        job: Callable[[], object],
        every_seconds: float,
        *,
        in_doubt: bool = False,
    ) -> None:
        """Plug in a periodic job. Again: the last one of a name counts."""
        self._ticks[name] = Tick(name, job, every_seconds, in_doubt)

    def __iter__(self) -> Iterator[Tick]:
        return iter(list(self._ticks.values()))


class WarmUps:
    """What a worker loads ahead of its first run, so that nobody waits for it."""

    def __init__(self) -> None:
        self._jobs: dict[str, Callable[[], object]] = {}

    def register(self, name: str, job: Callable[[], object]) -> None:
        """Plug in a job. Again: the last one of a name counts."""
        self._jobs[name] = job

    def do_all(self) -> None:
        for job in list(self._jobs.values()):
            job()


class Doorbell:
    """Wakes workers sooner. With nothing plugged in, their own watch finds work."""

    def __init__(self) -> None:
        self._ring: Callable[[uuid.UUID, str], None] | None = None

    def plug(self, ring: Callable[[uuid.UUID, str], None] | None) -> None:
        self._ring = ring

    def ring(self, run_id: uuid.UUID, queue: str) -> None:
        """Say that a run may be claimed. Call it after the commit."""
        if self._ring is not None:
            self._ring(run_id, queue)


@dataclass(frozen=True, slots=True)
class Planned:
    """A kind of run that a person may put on a schedule.

    `fields` are the names of its payload and what a form says of them; `check`
    raises Invalid for a payload that could not be carried.
    """

    kind: str
    title: str
    fields: tuple[tuple[str, str], ...]
    check: Callable[[dict[str, Any], Any], None]
    #: The names that may stay empty.
    optional: frozenset[str] = frozenset()


class Plannable:
    """The kinds of run that may be planned. Others are planned by code alone."""

    def __init__(self) -> None:
        self._kinds: dict[str, Planned] = {}

    def register(self, planned: Planned) -> None:
        """Plug in a kind. Again: the last one counts."""
        self._kinds[planned.kind] = planned

    def find(self, kind: str) -> Planned | None:
        return self._kinds.get(kind)

    def all(self) -> list[Planned]:
        return sorted(self._kinds.values(), key=lambda planned: planned.title)

    def check(self, kind: str, payload: dict[str, Any], workspace: Any) -> None:
        """Refuse a payload of a known kind that could not be carried.

        Raises: Invalid.
        """
        if planned := self.find(kind):
            planned.check(payload, workspace)


#: Re-runs a finished run's journal from what was recorded. Executes nothing.
Replayer = Callable[[uuid.UUID], dict[str, Any]]


class Replayers:
    """Who keeps the journal of a kind of run."""

    def __init__(self) -> None:
        self._kinds: dict[str, Replayer] = {}

    def register(self, kind: str, replayer: Replayer) -> None:
        """Plug in. Again: the last one of a kind counts."""
        self._kinds[kind] = replayer

    def knows(self, kind: str) -> bool:
        return kind in self._kinds

    def get(self, kind: str) -> Replayer:
        """Raises: NoHandler."""
        try:
            return self._kinds[kind]
        except KeyError:
            raise NoHandler(f"Runs of kind {kind!r} keep no journal.") from None


#: Says in a few words what runs are about, by run, to who may see that.
Teller = Callable[[list[uuid.UUID], Any], dict[uuid.UUID, "About"]]


@dataclass(frozen=True, slots=True)
class About:
    """What a run is about, and who does it: "What time is it?", "@primary"."""

    title: str
    who: str = ""


class Subjects:
    """Who knows what a kind of run is about."""

    def __init__(self) -> None:
        self._tellers: dict[str, Teller] = {}

    def register(self, kind: str, teller: Teller) -> None:
        """Plug in. Again: the last one of a kind counts."""
        self._tellers[kind] = teller

    def of(self, runs: Any, principal: Any) -> dict[uuid.UUID, About]:
        """Ask once for each kind; a run that nobody knows of is left out."""
        by_kind: dict[str, list[uuid.UUID]] = {}
        for run in runs:
            by_kind.setdefault(run.kind, []).append(run.id)
        found: dict[uuid.UUID, About] = {}
        for kind, ids in by_kind.items():
            if teller := self._tellers.get(kind):
                found |= teller(ids, principal)
        return found


handlers = Handlers()
subjects = Subjects()
plannable = Plannable()
replayers = Replayers()
ticks = Ticks()
warm_ups = WarmUps()
doorbell = Doorbell()


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What the broker says of itself; `problem` when it does not answer."""

    version: str = ""
    policy: str = ""
    problem: str = ""


class Broker:
    """Where the broker's adapter plugs in; without one there is no broker."""

    def __init__(self) -> None:
        self._ask: Callable[[], BrokerFacts] | None = None

    def plug(self, ask: Callable[[], BrokerFacts] | None) -> None:
        self._ask = ask

    def ask(self) -> BrokerFacts:
        """Ask it now, for a second at most."""
        return self._ask() if self._ask else BrokerFacts(problem="none is set")


broker = Broker()
