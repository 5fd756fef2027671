"""Which runs, tasks and effects a rollback concerns: exactly those, and why.

1. The witness holds events of a run that the store lacks: `conflicted`, or
   `lost_by_rollback` where the store lacks the run itself.
2. Every other open run is older than the store's jump: `stale`, held until looked at.
3. Effects that started in the lost future: their keys are held. Slots that fired
   there have fired.
Each step may be repeated; a crash between two is caught up with at the next tick.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from apps.access import queries as access
from apps.access.models import Principal, Workspace
from apps.audit import services as audit
from apps.audit.models import Event
from apps.boards import services as boards
from apps.gateway import services as gateway
from apps.runs import queries as runs_queries
from apps.runs import services as runs

NEXT_CONFLICTED = "Compare both sides, then retry or dismiss its dead letter."
NEXT_STALE = "Its run is older than the restore: accept it, look, and resume."


@dataclass(slots=True)
class Findings:
    """What one rollback concerns."""

    fork: int
    events: int
    conflicted: list[UUID] = field(default_factory=list)
    lost: list[UUID] = field(default_factory=list)
    stale: list[UUID] = field(default_factory=list)
    effects: int = 0


def classify(by: Principal, mark: str, before: datetime) -> Findings:
    """Set aside, hold and mark all that the rollback concerns."""
    workspace = access.default_workspace()
    future = audit.lost_future()
    found = Findings(future.fork, future.events)
    kept = [(body, json.loads(body)) for body in future.kept]
    of_type = {
        wanted: [body for body, said in kept if said["type"] == wanted]
        for wanted in ("call.started", "schedule.fired")
    }
    found.effects = len(
        gateway.hold_lost_effects(by=by, bodies=of_type["call.started"])
    )
    runs.note_fired(of_type["schedule.fired"])
    for run_id, sides in _concerned(future, of_type["schedule.fired"]).items():
        said = [body for body, event in kept if _run_of(event) == run_id.hex]
        _set_aside(by, workspace, found, _Case(run_id, sides, said))
    if future.is_behind:
        found.stale = runs.hold_stale(
            by=by, mark=mark, before=before, spared=found.conflicted + found.lost
        )
    _mark_tasks(by, found)
    return found


@dataclass(frozen=True, slots=True)
class _Case:
    run_id: UUID
    sides: runs.Sides
    kept: list[str]


def _set_aside(
    by: Principal, workspace: Workspace, found: Findings, case: _Case
) -> None:
    known = runs_queries.find_run(case.run_id)
    if known is None or known.reason == "lost_by_rollback":
        runs.bury_lost(
            by=by,
            run_id=case.run_id,
            workspace=workspace,
            sides=case.sides,
            kept=case.kept,
        )
        found.lost.append(case.run_id)
        return
    runs.set_aside_conflicted(by=by, run_id=case.run_id, sides=case.sides)
    found.conflicted.append(case.run_id)


def _concerned(future: audit.LostFuture, fired: list[str]) -> dict[UUID, runs.Sides]:
    """Name the runs that the witness knows better than the store."""
    concerned = {
        UUID(run.run_id): runs.Sides(
            run.witness_seq, run.witness_head, run.store_seq, run.store_head
        )
        for run in future.runs
    }
    for said in map(json.loads, fired):
        run_id = UUID(said["data"]["run_id"])
        if runs_queries.find_run(run_id) is None:
            concerned.setdefault(run_id, runs.Sides(0, "", 0, ""))
    if not future.events and (edited := _run_of_first_bad()):
        concerned[edited] = runs.Sides(0, "", 0, "")
    return concerned


def _run_of_first_bad() -> UUID | None:
    """The store has every event by its hash, so one was altered: whose is it?"""
    verdict = audit.verify()
    if verdict.ok or not verdict.first_bad_id:
        return None
    known = Event.objects.filter(id=UUID(verdict.first_bad_id))
    return known.values_list("run_id", flat=True).first()


def _run_of(event: dict[str, object]) -> str:
    data = event["data"]
    fired = data.get("run_id", "") if isinstance(data, dict) else ""
    return str(event["run_id"] or fired).replace("-", "")


def _mark_tasks(by: Principal, found: Findings) -> None:
    for run_ids, mark, reason in (
        (found.conflicted + found.lost, "conflicted", NEXT_CONFLICTED),
        (found.stale, "stale", NEXT_STALE),
    ):
        boards.mark_tasks_of_runs(by=by, run_ids=run_ids, mark=mark, reason=reason)
