"""Whether the store agrees with itself: what must hold whatever was killed when.

Each rule reads and returns the words of what breaks it, at most `SHOWN` of them.
Invariants: nothing is written; a rule may be asked while work goes on, so what is
settled a moment later by a sweep counts only once it is overdue.
Source: docs/architecture.md, "What no storm may break"
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from apps.agents.models import Turn, TurnState
from apps.audit import ports as audit_ports
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import clock
from apps.gateway.models import HOLDING, Budget, Call, CallState, OnExceed
from apps.runs.models import FINISHED, SETTLED, Run, Slot, SlotState, State

#: Sweeps settle what a dead process left well within this.
OVERDUE = timedelta(minutes=2)
SHOWN = 20
TURN_KIND = "agents.turn"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that always holds."""

    name: str
    says: str
    broken: Callable[[], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A rule that does not hold, and where."""

    rule: str
    says: str
    where: tuple[str, ...]


def contradictions() -> list[Contradiction]:
    """Ask every rule. Empty when the store agrees with itself."""
    found = []
    for rule in RULES:
        where = tuple(words for _, words in zip(range(SHOWN), rule.broken()))  # noqa: B905 (ends with the shorter)
        if where:
            found.append(Contradiction(rule.name, rule.says, where))
    return found


def names() -> list[str]:
    return [rule.name for rule in RULES]


def _log() -> Iterator[str]:
    verdict = audit.verify()
    if not verdict.ok:
        at = "" if verdict.first_bad is None else f"event {verdict.first_bad}: "
        yield f"{at}{verdict.problem}"


def _sinks() -> Iterator[str]:
    """A sink may be behind; it never has what the log has not."""
    size = audit_queries.head().size
    acknowledged = {row.name: row.last_seq for row in audit_queries.sink_cursors()}
    for name, sink in audit_ports.sinks().items():
        last = sink.last_contiguous_seq()
        if last is None:
            continue
        if last >= size:
            yield f"{name} holds event {last}, the log ends at {size - 1}"
        if acknowledged.get(name, -1) > last:
            yield f"{name} acknowledged {acknowledged[name]} and holds {last}"


def _leases() -> Iterator[str]:
    """I2, the first half: whoever carries a run renews its lease."""
    late = Run.objects.expired(clock.now() - OVERDUE)
    return _told(late, "is running and its lease lapsed long ago")


def _waits() -> Iterator[str]:
    """I2, the second half: who waits says for what."""
    silent = Run.objects.waiting().filter(
        reason="", waiting_on="", wake_at__isnull=True
    )
    return _told(silent, "waits and names nothing that it waits for")


def _ends() -> Iterator[str]:
    """A run ends once, and its end is in the log."""
    ends = Event.objects.filter(type="run.finished")
    twice = ends.values("run_id").annotate(times=Count("id")).filter(times__gt=1)
    for row in twice.order_by("run_id").iterator():
        yield f"run {row['run_id']} ended {row['times']} times"
    finished = Run.objects.filter(state__in=FINISHED)
    told = ends.filter(run_id__isnull=False).values("run_id")
    yield from _told(finished.exclude(id__in=told), "ended without an event")


def _turns() -> Iterator[str]:
    """Every run of a turn has its one turn, and both end together."""
    runs = Run.objects.filter(kind=TURN_KIND)
    counted = runs.annotate(turns_of=Count("turns")).exclude(turns_of=1)
    yield from _told(counted.exclude(state=State.DEAD_LETTER), "has not one turn")
    early = Turn.objects.exclude(state=TurnState.OPEN).exclude(run__state__in=SETTLED)
    since = clock.now() - OVERDUE
    for turn in early.filter(finished_at__lt=since).order_by("id").iterator():
        yield f"turn {turn.id} is over and its run is not"
    late = Turn.objects.filter(
        state=TurnState.OPEN, run__state__in=FINISHED, run__finished_at__lt=since
    )
    for turn in late.order_by("id").iterator():
        yield f"turn {turn.id} is open and its run ended"


def _effects() -> Iterator[str]:
    """I3 as far as the store knows: one effect per key."""
    holding = Call.objects.filter(state__in=HOLDING).values("idempotency_key")
    twice = holding.annotate(times=Count("id")).filter(times__gt=1)
    for row in twice.order_by("idempotency_key").iterator():
        yield f"key {row['idempotency_key']} holds {row['times']} effects"


def _fences() -> Iterator[str]:
    """I6: what a run wrote under a fence comes before what it wrote under the next."""
    told = Event.objects.filter(
        Q(type__startswith="call.") | Q(type="run.finished"), run_id__isnull=False
    )
    at, highest = None, 0
    rows = told.order_by("run_id", "run_seq").values_list("run_id", "run_seq", "body")
    for run_id, seq, body in rows.iterator(chunk_size=2000):
        fence = int(json.loads(body)["data"].get("fence") or 0)
        if run_id != at:
            at, highest = run_id, 0
        if 0 < fence < highest:
            yield f"run {run_id}: event {seq} has fence {fence} after {highest}"
        highest = max(highest, fence)


def _budgets() -> Iterator[str]:
    """What is set aside is what calls have set aside."""
    open_ones = Sum(
        "reservation__amount", filter=Q(reservation__settled_amount__isnull=True)
    )
    held = Budget.objects.annotate(held=Coalesce(open_ones, 0))
    for row in held.exclude(reserved=F("held")).order_by("id").iterator():
        yield f"budget {row.id} sets {row.reserved} aside, its calls {row.held}"
    rolling = Budget.objects.filter(is_rolling=True)
    counted = rolling.annotate(counted=Coalesce(Sum("slices__amount"), 0))
    for row in counted.exclude(spent=F("counted")).order_by("id").iterator():
        yield f"budget {row.id} spent {row.spent}, its slices {row.counted}"


def _limits() -> Iterator[str]:
    """I10: only a settlement above its reservation passes a limit that blocks.

    One that a person has changed since may stand below what was spent before, and
    a rolling one forgets an overrun before its slice; neither is judged.
    """
    blocking = Budget.objects.filter(
        on_exceed=OnExceed.BLOCK, is_rolling=False, version=1
    )
    passed = blocking.filter(limit__lt=F("spent") + F("reserved") - F("overrun"))
    for row in passed.order_by("id").iterator():
        yield (
            f"budget {row.id} allows {row.limit}: {row.spent} spent, {row.overrun} of"
            f" it above what was set aside, {row.reserved} set aside"
        )


def _reservations() -> Iterator[str]:
    """What a call set aside is settled with the call."""
    over = Call.objects.filter(
        state__in=(CallState.SUCCEEDED, CallState.FAILED, CallState.DENIED),
        finished_at__lt=clock.now() - OVERDUE,
        reservations__settled_amount__isnull=True,
        reservations__isnull=False,
    )
    for call_id in over.order_by("id").values_list("id", flat=True).distinct():
        yield f"call {call_id} is over and still sets something aside"


def _slots() -> Iterator[str]:
    """I11: a moment of a schedule fired once, and what it fired is there."""
    runs = Counter(
        Slot.objects.filter(state=SlotState.FIRED, run__isnull=False)
        .values_list("run_id", flat=True)
        .iterator()
    )
    yield from (f"run {run} stands for {n} slots" for run, n in runs.items() if n > 1)


def _told(runs: "QuerySet[Run]", what: str) -> Iterator[str]:
    for run_id in runs.order_by("id").values_list("id", flat=True).iterator():
        yield f"run {run_id} {what}"


RULES = (
    Rule("log", "the log, its tree and the witness agree", _log),
    Rule("sinks", "a sink holds the log from its start without a gap", _sinks),
    Rule("leases", "no run is running without a worker", _leases),
    Rule("waits", "who waits says for what", _waits),
    Rule("ends", "a run ends once, and its end is in the log", _ends),
    Rule("turns", "a turn has one run, and both end together", _turns),
    Rule("effects", "a key has one effect", _effects),
    Rule("fences", "the fences of a run never fall", _fences),
    Rule("budgets", "what is set aside is what calls set aside", _budgets),
    Rule("limits", "no limit that blocks is passed, but by an overrun", _limits),
    Rule(
        "reservations", "nothing stays set aside for a call that is over", _reservations
    ),
    Rule("slots", "a slot is one run", _slots),
)
