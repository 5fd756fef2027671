"""Drills: ask for one, look for what is due, cancel, hand out the evidence.

Invariants: of one drill one is under way, of live ones one at all; a live drill is
asked for by an administrator who typed its name, with a cap on what it may touch.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.reliability import ports
from apps.reliability.engine import evidence, freshness, livefaults, shelf
from apps.reliability.engine.basis import Bases
from apps.reliability.engine.freshness import OPEN
from apps.reliability.engine.freshness import Shelved as Shelved
from apps.reliability.engine.freshness import shelf_of_drills as shelf_of_drills
from apps.reliability.engine.shelf import Drill as Drill
from apps.reliability.errors import DrillFailed
from apps.reliability.models import DRILL_LIFECYCLE, DrillMode, DrillRun, DrillState
from apps.runs import queries as runs_queries
from apps.runs import services as runs
from apps.runs.models import SETTLED, Schedule
from apps.runs.ports import Finish, RunContext

DRILL_KIND = "reliability.drill"
#: The planned look for a drill that is due, and its schedule.
DRILLS_DUE_KIND = "reliability.drills_due"
DRILLS_SCHEDULE = "drills"
#: The longest that a fault of a live drill may stand. Units: seconds.
LONGEST_FAULT = 300


@dataclass(frozen=True, slots=True)
class Cap:
    """How much a live drill may touch before it ends by itself: its own turns, the
    seconds of its fault, and how many of others' runs may be hurt."""

    turns: int = 60
    seconds: int = 90
    hurt: int = 0


MOST = Cap(turns=200, seconds=LONGEST_FAULT, hurt=50)


def start_drill(*, by: Principal, slug: str) -> DrillRun:
    """Ask for a rehearsal; a run carries it.

    Raises: RoleRequired, NotFound; DrillFailed where this machine lacks something;
    Conflict while the same drill is under way.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    drill = shelf.get(slug)
    if lacks := ports.stage().lacks(drill.scenery):
        raise DrillFailed(f"{drill.title} cannot be rehearsed: {lacks}.")
    return _enqueue(by, drill)


def start_live_drill(
    *, by: Principal, slug: str, confirm: str, cap: Cap | None = None
) -> DrillRun:
    """Ask for a drill on the install itself.

    Raises: RoleRequired below admin; NotFound; Invalid without the typed words, with
    an impossible cap, or for a drill that is only rehearsed; Conflict while it, or
    another live one, is under way.
    """
    check_role(by, Role.ADMIN, access.default_workspace())
    drill, cap = shelf.get(slug), cap or Cap()
    if drill.live is None:
        raise Invalid(f"{drill.title} is only rehearsed: {drill.not_live}")
    problems = [
        FieldProblem(name, "out of range", f"{int(name != 'hurt')} to {most}")
        for name, most in asdict(MOST).items()
        if not int(name != "hurt") <= getattr(cap, name) <= most
    ]
    if confirm.strip() != drill.confirmation:
        problems.append(FieldProblem("confirm", "not typed", drill.confirmation))
    if problems:
        raise Invalid("This drill does not begin so.", fields=tuple(problems))
    return _enqueue(by, drill, mode=DrillMode.LIVE, cap=asdict(cap))


def _enqueue(by: Principal, drill: Drill, **facts: Any) -> DrillRun:
    if settings.POLAR_CLONE:
        raise Conflict("This is a clone; drills are started in the install itself.")
    close_orphans()
    try:
        with transaction.atomic():
            run = runs.enqueue(
                kind=DRILL_KIND,
                payload={"drill": drill.slug},
                principal=by,
                workspace=access.default_workspace(),
                trigger="drill",
                origin="drill",
                max_attempts=2,
            )
            row = DrillRun.objects.create(
                slug=drill.slug,
                run_id=run.id,
                asked_by=by.label[:160],
                definition=drill.digest,
                basis=Bases().of(drill),
                **facts,
            )
            said = {"mode": row.mode, **row.cap}
            record(row, "drill.started", by.actor, definition=drill.digest, **said)
    except IntegrityError as error:
        words = f"The drill {drill.slug} is under way, or a live one is; watch that."
        raise Conflict(words) from error
    return row


def carry_due_drill(context: RunContext) -> Finish:
    """Carry the schedule's run: start the one drill that is due, if any.

    Again: the drill that was started is under way, so none is due.
    """
    close_orphans()
    drill = freshness.next_due()
    if drill is None:
        return Finish({"note": "no drill is due, or one is under way"})
    try:
        row = start_drill(by=access_services.system_principal(), slug=drill.slug)
    except Conflict as error:  # somebody was quicker, or this is a clone
        return Finish({"note": error.detail})
    return Finish({"drill": str(row.id), "slug": drill.slug})


def drill_schedule(*, workspace: Workspace) -> Schedule | None:
    return Schedule.objects.filter(workspace=workspace, slug=DRILLS_SCHEDULE).first()


def install_drill_schedule(*, workspace: Workspace) -> bool:
    """Plan the nightly look. False when it was planned before and stays as it is."""
    if drill_schedule(workspace=workspace) is not None:
        return False
    runs.create_schedule(
        by=access_services.system_principal(),
        workspace=workspace,
        slug=DRILLS_SCHEDULE,
        when=("cron", "0 3 * * *"),
        run_kind=DRILLS_DUE_KIND,
        title="Rehearse the drill that is due",
    )
    return True


def cancel_drill(*, by: Principal, drill_id: UUID) -> DrillRun:
    """End a drill now. What it started dies with it within a second.

    Raises: RoleRequired, NotFound; Conflict when it is over.
    """
    check_role(by, Role.OPERATOR, access.default_workspace())
    row = get_drill(drill_id)
    with transaction.atomic():
        DRILL_LIFECYCLE.check(row.state, DrillState.CANCELLED)
        if not move(row, DrillState.CANCELLED, finished_at=clock.now()):
            raise Conflict("The drill ended meanwhile.")
        record(row, "drill.cancelled", by.actor)
        run = runs_queries.find_run(row.run_id)
        if run is not None and run.state not in SETTLED:
            runs.cancel(by=by, run_id=run.id, reason="drill cancelled")
    row.refresh_from_db()
    return row


def get_drill(drill_id: UUID) -> DrillRun:
    """Raises: NotFound."""
    row = DrillRun.objects.filter(id=drill_id).first()
    if row is None:
        raise NotFound("There is no such drill run.")
    return row


def newest_drills(limit: int) -> list[DrillRun]:
    return list(DrillRun.objects.order_by("-id")[:limit])


def drill_named(slug: str) -> Drill:
    """Raises: NotFound, naming what there is."""
    return shelf.get(slug)


def definition_of(row: DrillRun) -> Drill:
    """The drill as it stands on the shelf now."""
    return shelf.get(row.slug)


def verify_evidence(*, drill_id: UUID) -> dict[str, Any]:
    """Read the evidence and see that it is the file that the log names.

    Raises: NotFound, EvidenceBroken.
    """
    row = get_drill(drill_id)
    if not row.evidence_sha256:
        raise NotFound("This drill left no evidence.")
    return evidence.check(evidence.path_of(row.id), row.evidence_sha256)


def evidence_path(row: DrillRun) -> Path:
    return evidence.path_of(row.id)


def close_orphans() -> int:
    """End drills whose run ended without them, and take back what they left."""
    closed = 0
    for row in DrillRun.objects.filter(state__in=OPEN):
        run = runs_queries.find_run(row.run_id)
        if run is None or run.state in SETTLED:
            why = (run.error_detail or run.reason or run.state) if run else "it is gone"
            words = f"The run that carried it ended: {why}"
            closed += end(row, DrillState.FAILED, words)
    return closed


def take_back_faults() -> int:
    """Undo what a live drill left that nobody carries any more: the clock's job.

    Again: nothing.   Returns how many things there were to undo.
    """
    if not livefaults.standing():
        return 0
    close_orphans()
    if DrillRun.objects.filter(mode=DrillMode.LIVE, state__in=OPEN).exists():
        return 0
    found = livefaults.take_back("its drill is over")
    with transaction.atomic():
        audit.record(type="drill.fault_mended", actor=SYSTEM, data={"left": found[:10]})
    return len(found)


@transaction.atomic
def end(row: DrillRun, state: DrillState, problem: str, **facts: Any) -> int:
    changes = {"problem": problem[:500], "finished_at": clock.now(), **facts}
    moved = move(row, state, **changes)
    if moved:
        sha = facts.get("evidence_sha256", "")
        record(row, "drill.finished", None, grade=state, evidence=sha)
    return moved


def move(row: DrillRun, state: DrillState, **facts: Any) -> int:
    sources = [*DRILL_LIFECYCLE.sources(state)]
    if state == DrillState.RUNNING:
        sources.append(DrillState.RUNNING)  # begun anew after its worker was lost
    return DrillRun.objects.filter(id=row.id, state__in=sources).update(
        state=state, **facts
    )


@transaction.atomic
def record(row: DrillRun, event: str, by: Actor | None, **data: Any) -> None:
    audit.record(
        type=event,
        actor=by or SYSTEM,
        subject=("drill", str(row.id)),
        run_id=row.run_id,
        data={"drill": row.slug, **{name: str(value) for name, value in data.items()}},
    )
