"""Drills: ask for one, carry it in a clone, grade it, keep signed evidence.

Invariants: the install's own store is only read; of one drill one is under way;
a process tree of a drill never outlives the run that carries it; the grade is
what the journals of both rehearsals say.
"""

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import SYSTEM, Actor
from apps.common.errors import Conflict, NotFound
from apps.reliability import ports
from apps.reliability.engine import cloning, evidence, freshness, shelf
from apps.reliability.engine.drilling import notebook
from apps.reliability.engine.freshness import OPEN
from apps.reliability.engine.freshness import Shelved as Shelved
from apps.reliability.engine.freshness import shelf_of_drills as shelf_of_drills
from apps.reliability.engine.shelf import Drill as Drill
from apps.reliability.errors import DrillFailed, EvidenceBroken
from apps.reliability.models import DRILL_LIFECYCLE, DrillRun, DrillState, DrillStep
from apps.runs import queries as runs_queries
from apps.runs import services as runs
from apps.runs.models import SETTLED, Schedule
from apps.runs.ports import Again, Finish, Outcome, RunContext

DRILL_KIND = "reliability.drill"
#: The planned look for a drill that is due, and its schedule.
DRILLS_DUE_KIND = "reliability.drills_due"
DRILLS_SCHEDULE = "drills"
#: The longest one rehearsal may take. Units: seconds.
LONGEST = 180.0
STEP_SECONDS = 2 * LONGEST + 60


def start_drill(*, by: Principal, slug: str) -> DrillRun:
    """Ask for a drill; a run carries it.

    Raises: RoleRequired, NotFound; Conflict while the same drill is under way.
    """
    workspace = access.default_workspace()
    check_role(by, Role.OPERATOR, workspace)
    drill = shelf.get(slug)
    if settings.POLAR_CLONE:
        raise Conflict("This is a clone; drills are started in the install itself.")
    close_orphans()
    try:
        with transaction.atomic():
            run = runs.enqueue(
                kind=DRILL_KIND,
                payload={"drill": slug},
                principal=by,
                workspace=workspace,
                trigger="drill",
                origin="drill",
                max_attempts=2,
            )
            row = DrillRun.objects.create(
                slug=slug,
                run_id=run.id,
                asked_by=by.label[:160],
                definition=drill.digest,
            )
            _record(row, "drill.started", by.actor, definition=drill.digest)
    except IntegrityError as error:
        raise Conflict(f"The drill {slug} is under way; watch that one.") from error
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
        if not _move(row, DrillState.CANCELLED, finished_at=clock.now()):
            raise Conflict("The drill ended meanwhile.")
        _record(row, "drill.cancelled", by.actor)
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
    """End drills whose run ended without them."""
    closed = 0
    for row in DrillRun.objects.filter(state__in=OPEN):
        run = runs_queries.find_run(row.run_id)
        if run is None or run.state in SETTLED:
            closed += _end(row, DrillState.FAILED, "The run that carried it ended.")
    return closed


def carry_drill(ctx: RunContext) -> Outcome:
    """Rehearse, rehearse without the protection, grade, sign.

    Again: a drill that was interrupted begins anew.
    """
    row = DrillRun.objects.filter(run_id=ctx.run_id, state__in=OPEN).first()
    if row is None:
        return Finish({"note": "the drill is over"})
    isolation = ports.stage().isolation()
    row.steps.all().delete()
    _move(row, DrillState.RUNNING, started_at=clock.now(), isolation=isolation)
    drill = shelf.get(row.slug)
    home = settings.POLAR_DRILLS_DIR / str(row.id)
    folders = {part: home / part for part in evidence.PARTS}
    try:
        sources = {}
        for part, folder in folders.items():
            sources[part] = _rehearse(ctx, row, part, folder)
            if not sources[part]:
                return _left(ctx, row)
        return _conclude(row, drill, folders, sources)
    except (DrillFailed, EvidenceBroken) as error:
        _end(row, DrillState.FAILED, error.detail)
        return Finish(state="failed", error_code=error.code, error_detail=error.detail)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _left(ctx: RunContext, row: DrillRun) -> Outcome:
    row.refresh_from_db()
    if row.state in OPEN and ctx.stopping():
        return Again()
    return Finish({"state": row.state})


def _rehearse(ctx: RunContext, row: DrillRun, part: str, folder: Path) -> str:
    """Play one rehearsal to its end. Returns what it was made from, "" if stopped."""
    stage, drill = ports.stage(), shelf.get(row.slug)
    places = [f"127.0.0.1:{n}" for n in stage.free_ports(cloning.MOST_DOUBLES)]
    source = cloning.make(folder, places, drill.scenery)
    said = [row.slug, *(["--control"] if part == "control" else [])]
    troupe = stage.start(folder, drill.scenery, *said)
    at, until = 0, clock.monotonic() + LONGEST
    try:
        while True:
            code = troupe.code
            lines, at = notebook.read(folder, at)
            if not _keep(row, part, lines) or ctx.stopping():
                return ""
            if code is not None:
                break
            if clock.monotonic() > until:
                raise DrillFailed(f"The {part} rehearsal took over {LONGEST:.0f} s.")
            connection.close()
            clock.sleep(0.5)
    finally:
        troupe.end()
    if code:
        raise DrillFailed(
            f"The {part} rehearsal ended with code {code}: {_tail(folder)}"
        )
    return source


def _keep(row: DrillRun, part: str, lines: list[dict[str, Any]]) -> bool:
    """Store what was told. False when the drill was cancelled meanwhile."""
    if not DrillRun.objects.filter(id=row.id, state=DrillState.RUNNING).exists():
        return False
    DrillStep.objects.bulk_create(
        DrillStep(
            drill=row,
            part=part,
            at_ms=line["at_ms"],
            tone=line["tone"][:12],
            text=line["text"][:300],
            data=line["data"],
        )
        for line in lines
    )
    return True


def _conclude(
    row: DrillRun, drill: Drill, folders: dict[str, Path], sources: dict[str, str]
) -> Finish:
    journals = {part: evidence.journal_of(at) for part, at in folders.items()}
    grade = evidence.grade(journals["main"], journals["control"])
    verdict = {
        part: {
            "deviated": journal["deviated"],
            "status": journal["status"],
            "seconds": round(journal.get("duration", 0), 1),
            "source": sources[part],
            "observed": evidence.facts_of(folders[part]).get("observed", {}),
        }
        for part, journal in journals.items()
    }
    now = clock.now()
    report = {
        "drill": drill.slug,
        "title": drill.title,
        "definition": drill.digest,
        "grade": grade,
        "isolation": row.isolation,
        "asked_by": row.asked_by,
        "drill_id": str(row.id),
        "finished_at": now.isoformat(),
        "verdict": verdict,
    }
    digest = evidence.write(evidence.path_of(row.id), folders, report)
    _end(row, DrillState(grade), "", verdict=verdict, evidence_sha256=digest)
    return Finish({"grade": grade, "evidence": digest})


@transaction.atomic
def _end(row: DrillRun, state: DrillState, problem: str, **facts: Any) -> int:
    changes = {"problem": problem[:500], "finished_at": clock.now(), **facts}
    moved = _move(row, state, **changes)
    if moved:
        sha = facts.get("evidence_sha256", "")
        _record(row, "drill.finished", None, grade=state, evidence=sha)
    return moved


def _move(row: DrillRun, state: DrillState, **facts: Any) -> int:
    sources = [*DRILL_LIFECYCLE.sources(state)]
    if state == DrillState.RUNNING:
        sources.append(DrillState.RUNNING)  # begun anew after its worker was lost
    return DrillRun.objects.filter(id=row.id, state__in=sources).update(
        state=state, **facts
    )


def _record(row: DrillRun, event: str, by: Actor | None, **data: Any) -> None:
    audit.record(
        type=event,
        actor=by or SYSTEM,
        subject=("drill", str(row.id)),
        run_id=row.run_id,
        data={"drill": row.slug, **{name: str(value) for name, value in data.items()}},
    )


def _tail(folder: Path) -> str:
    try:
        lines = (folder / "output.txt").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return " ".join(lines[-2:])[-300:]
