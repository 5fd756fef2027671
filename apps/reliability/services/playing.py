"""Carry a drill: rehearse it and its negative control, or play it live; grade, sign.

Invariants: of a rehearsal the install's own store is only read; a process tree of a
drill never outlives the run that carries it; the grade is what the journals say; a
live drill is never begun a second time, and what it left is taken back.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from apps.common import clock
from apps.reliability import ports
from apps.reliability.engine import cloning, evidence, livefaults, shelf
from apps.reliability.engine.drilling import notebook
from apps.reliability.engine.freshness import OPEN
from apps.reliability.engine.shelf import Drill
from apps.reliability.errors import DrillFailed, EvidenceBroken
from apps.reliability.models import DrillRun, DrillState, DrillStep
from apps.reliability.ports import Troupe
from apps.reliability.services.drills import end, move, record
from apps.runs.ports import Again, Finish, Outcome, RunContext

#: The longest one rehearsal may take. Units: seconds.
LONGEST = 300.0
STEP_SECONDS = 2 * LONGEST + 60
ON_INSTALL = "nothing: it is played on the install itself"


def carry_drill(ctx: RunContext) -> Outcome:
    """Carry a drill's run.

    Again: a rehearsal that was interrupted begins anew; a live drill does not.
    """
    row = DrillRun.objects.filter(run_id=ctx.run_id, state__in=OPEN).first()
    if row is None:
        return Finish({"note": "the drill is over"})
    if row.is_live and row.state == DrillState.RUNNING:
        livefaults.take_back("its worker was lost")
        return _failed(row, DrillFailed("Its worker was lost; it is taken back."))
    play = _play_live if row.is_live else _rehearse_both
    isolation = ON_INSTALL if row.is_live else ports.stage().isolation()
    row.steps.all().delete()
    move(row, DrillState.RUNNING, started_at=clock.now(), isolation=isolation)
    home = settings.POLAR_DRILLS_DIR / str(row.id)
    try:
        return play(ctx, row, home)
    except (DrillFailed, EvidenceBroken) as error:
        return _failed(row, error)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _failed(row: DrillRun, error: DrillFailed | EvidenceBroken) -> Finish:
    end(row, DrillState.FAILED, error.detail)
    return Finish(state="failed", error_code=error.code, error_detail=error.detail)


def _rehearse_both(ctx: RunContext, row: DrillRun, home: Path) -> Outcome:
    drill, stage = shelf.get(row.slug), ports.stage()
    folders, sources = {part: home / part for part in evidence.PARTS}, {}
    for part, folder in folders.items():
        places = [f"127.0.0.1:{n}" for n in stage.free_ports(cloning.MOST_DOUBLES)]
        sources[part] = cloning.make(folder, places, drill.scenery)
        said = [row.slug, *(["--control"] if part == "control" else [])]

        def begin(where: Path = folder, words: list[str] = said) -> Troupe:
            return stage.start(where, drill.scenery, *words)

        if not _follow(ctx, row, (part, folder), begin):
            return _left(ctx, row)
    journals = {part: evidence.journal_of(at) for part, at in folders.items()}
    grade = evidence.grade(journals["main"], journals["control"])
    return _conclude(row, drill, folders, sources, DrillState(grade))


def _play_live(ctx: RunContext, row: DrillRun, home: Path) -> Outcome:
    """Play it once, beside everything else; nothing of it is left standing."""
    drill, folder = shelf.get(row.slug), home / evidence.MAIN
    folder.mkdir(parents=True, mode=0o700)
    record(row, "drill.fault_made", None, **row.cap)

    def begin() -> Troupe:
        return ports.stage().start_live(folder, row.slug, "--live", str(row.id))

    try:
        if not _follow(ctx, row, (evidence.MAIN, folder), begin):
            return _left(ctx, row)
    finally:
        left = livefaults.take_back("the drill is over")
        record(row, "drill.fault_mended", None, left=", ".join(left))
    why = str(evidence.facts_of(folder).get("aborted", ""))
    grade = evidence.grade_live(evidence.journal_of(folder))
    state = DrillState.ABORTED if why else DrillState(grade)
    folders, sources = {evidence.MAIN: folder}, {evidence.MAIN: "the install itself"}
    return _conclude(row, drill, folders, sources, state, why)


def _left(ctx: RunContext, row: DrillRun) -> Outcome:
    row.refresh_from_db()
    if row.is_live:
        end(row, DrillState.FAILED, "Its worker left; the fault is taken back.")
        return Finish({"state": row.state})
    if row.state in OPEN and ctx.stopping():
        return Again()
    return Finish({"state": row.state})


def _follow(
    ctx: RunContext,
    row: DrillRun,
    part: tuple[str, Path],
    begin: Callable[[], Troupe],
) -> bool:
    """Follow one part to its end. False when it was stopped before.

    Raises: DrillFailed.
    """
    name, folder = part
    troupe = begin()
    at, until = 0, clock.monotonic() + LONGEST
    try:
        while True:
            code = troupe.code
            lines, at = notebook.read(folder, at)
            if not _keep(row, name, lines) or ctx.stopping():
                return False
            if code is not None:
                break
            if clock.monotonic() > until:
                raise DrillFailed(f"The part {name} took over {LONGEST:.0f} s.")
            connection.close()
            clock.sleep(0.5)
    finally:
        troupe.end()
    if code:
        raise DrillFailed(f"The part {name} ended with code {code}: {_tail(folder)}")
    return True


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


def _conclude(  # noqa: PLR0913 (what the report is made of)
    row: DrillRun,
    drill: Drill,
    folders: dict[str, Path],
    sources: dict[str, str],
    state: DrillState,
    problem: str = "",
) -> Finish:
    verdict = {
        part: {
            "deviated": journal["deviated"],
            "status": journal["status"],
            "began": bool(journal.get("run")),
            "seconds": round(journal.get("duration", 0), 1),
            "source": sources[part],
            "observed": evidence.facts_of(folders[part]).get("observed", {}),
        }
        for part, journal in (
            (name, evidence.journal_of(at)) for name, at in folders.items()
        )
    }
    report = {
        "drill": drill.slug,
        "title": drill.title,
        "mode": str(row.mode),
        "cap": row.cap,
        "definition": row.definition,
        "basis": row.basis,
        "grade": str(state),
        "problem": problem,
        "isolation": row.isolation,
        "asked_by": row.asked_by,
        "drill_id": str(row.id),
        "finished_at": clock.now().isoformat(),
        "verdict": verdict,
    }
    digest = evidence.write(evidence.path_of(row.id), folders, report)
    end(row, state, problem, verdict=verdict, evidence_sha256=digest)
    return Finish({"grade": str(state), "evidence": digest})


def _tail(folder: Path) -> str:
    try:
        lines = (folder / "output.txt").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return " ".join(lines[-2:])[-300:]
