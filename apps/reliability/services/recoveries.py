"""How long bringing the store back takes and what it would give up, measured.

A rehearsal restores a snapshot beside the store, wholly, and recomputes its log; the
store goes on meanwhile. A real restore is measured the same way. Each leaves a row,
so that continuity is a figure with a date and not a promise.
"""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role
from apps.access.policies import check_role
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import clock
from apps.common.errors import NotFound
from apps.reliability.engine import snapshotting
from apps.reliability.errors import SnapshotBroken, SnapshotFailed
from apps.reliability.models import Recovery, RecoveryKind
from apps.runs import services as runs
from apps.runs.models import Run
from apps.runs.ports import Finish, RunContext

REHEARSAL_KIND = "reliability.restore_rehearsal"
#: A large store takes long to copy and to recompute. Units: seconds.
COPY_SECONDS = 3600.0


@dataclass(slots=True)
class Stopwatch:
    """Runs from the first step of a restore."""

    began_at: datetime = field(default_factory=clock.now)
    _began: float = field(default_factory=clock.monotonic)

    def elapsed_ms(self) -> int:
        return round((clock.monotonic() - self._began) * 1000)

    def age_of(self, taken_at: datetime) -> int:
        return max(0, round((self.began_at - taken_at).total_seconds()))


def rehearse_restore(*, by: Principal, name: str = "") -> Recovery:
    """Restore a snapshot beside the store and recompute its log; the newest unless
    named. The store and everything that uses it stay as they are.

    Shape: `ok`, `problem`, `took_ms` (RTO), `age_seconds` and `events_lost` (RPO).
    A snapshot that fails is a row that says why, not an error.
    Raises: RoleRequired; NotFound where there is no snapshot.
    Again: another row, measured anew.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    name = name or next((each.name for each in snapshotting.every()), "")
    if not name:
        raise NotFound("There is no snapshot yet: ./polar snapshot create")
    watch, problem = Stopwatch(), ""
    snapshot = None
    try:
        snapshot = snapshotting.read(name)
        snapshotting.verify(name)
    except (SnapshotBroken, SnapshotFailed) as error:
        problem = error.detail[:500]
    took = watch.elapsed_ms()
    head = audit_queries.head()
    row = Recovery(
        kind=RecoveryKind.REHEARSED,
        source=name,
        vendor=snapshotting.vendor(),
        ok=not problem,
        problem=problem,
        took_ms=took,
        by=by.label,
    )
    if snapshot is not None:
        row.age_seconds = watch.age_of(snapshot.taken_at)
        row.events = snapshot.events
        row.events_lost = max(0, head.size - snapshot.events)
        row.bytes = snapshot.bytes
    return _keep(row, "store.rehearsed", by)


def note_restore(
    watch: Stopwatch, *, by: str, source: str, events_lost: int
) -> Recovery:
    """Note what a real restore took, in the store that it brought back."""
    head = audit_queries.head()
    newest = Event.objects.filter(gseq__lt=head.size).order_by("-gseq")
    known = newest.exclude(occurred_at__gte=watch.began_at).first()
    row = Recovery(
        kind=RecoveryKind.RESTORED,
        source=source[:500],
        vendor=snapshotting.vendor(),
        ok=True,
        took_ms=watch.elapsed_ms(),
        age_seconds=watch.age_of(known.occurred_at) if known else 0,
        events=head.size,
        events_lost=events_lost,
        by=by[:160],
    )
    row.save(force_insert=True)
    return row


def start_restore_rehearsal(*, by: Principal) -> Run:
    """Let a worker rehearse the newest snapshot; the row appears when it ends.

    Raises: RoleRequired, QueueFull.
    """
    workspace = access.default_workspace()
    check_role(by, Role.OPERATOR, workspace)
    return runs.enqueue(
        kind=REHEARSAL_KIND, payload={}, principal=by, workspace=workspace
    )


def carry_rehearsal(context: RunContext) -> Finish:
    """Carry a rehearsal that was asked for. Again: measured anew."""
    row = rehearse_restore(by=access_services.system_principal())
    return Finish(figures(row))


def figures(row: Recovery) -> dict[str, object]:
    """What one recovery says, for an event, a run's result or a command."""
    return {
        "source": row.source,
        "ok": row.ok,
        "problem": row.problem,
        "took_ms": row.took_ms,
        "age_seconds": row.age_seconds,
        "events": row.events,
        "events_lost": row.events_lost,
        "bytes": row.bytes,
    }


@transaction.atomic
def _keep(row: Recovery, event: str, by: Principal) -> Recovery:
    row.save(force_insert=True)
    audit.record(
        type=event,
        actor=by.actor,
        subject=("snapshot", row.source),
        decision="ok" if row.ok else "failed",
        reason=row.problem,
        data=figures(row),
    )
    return row
