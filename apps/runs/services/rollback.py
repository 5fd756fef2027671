"""What becomes of runs when the store went back: set aside, held, named again.

Invariants: each run in a transaction of its own, with its event, by one conditional
UPDATE; done twice, nothing changes; nothing here lets a run go on by itself.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F, Q

from apps.access.models import Principal, Role, Workspace
from apps.access.policies import check_role
from apps.audit import services as audit
from apps.common import clock, ids
from apps.runs.engine import settle
from apps.runs.models import (
    LIFECYCLE,
    SETTLED,
    Reason,
    Run,
    Schedule,
    Slot,
    SlotState,
    State,
    Trigger,
)

#: Workers of the lost future may hold higher fences than the store knows; no fence
#: of theirs may come up again.
FENCE_LEAP = 1_000_000
#: The kind of a run that only the witness remembers, when it does not say.
FORGOTTEN = "lost"
STALE = "stale"


@dataclass(frozen=True, slots=True)
class Sides:
    """A run's newest event as the witness knows it, and as the store does."""

    witness_seq: int
    witness_head: str
    store_seq: int
    store_head: str

    def __str__(self) -> str:
        return (
            f"The witness holds {self.witness_seq} events of this run, the newest "
            f"{self.witness_head[:16] or 'none'}; the store holds {self.store_seq}, "
            f"the newest {self.store_head[:16] or 'none'}."
        )

    def as_facts(self) -> dict[str, int | str]:
        return {name: getattr(self, name) for name in self.__slots__}


@transaction.atomic
def set_aside_conflicted(*, by: Principal, run_id: uuid.UUID, sides: Sides) -> bool:
    """Make a dead letter of a run whose history contradicts the witness.

    Returns whether it was open.   Again: a run that is over stays as it is.
    """
    run = Run.objects.filter(id=run_id).exclude(state__in=SETTLED).first()
    if run is None:
        return False
    LIFECYCLE.check(run.state, State.DEAD_LETTER)
    settle.lock_parent(run)
    moved = Run.objects.filter(id=run_id, state=run.state, fence=run.fence).update(
        state=State.DEAD_LETTER,
        reason=Reason.CONFLICTED_HISTORY,
        error_detail=str(sides),
        finished_at=clock.now(),
        wake_at=None,
        fence=F("fence") + FENCE_LEAP,
        **settle.NOT_LEASED,
    )
    if moved:
        settle.record(
            run,
            "run.dead_lettered",
            by=by.actor,
            reason=Reason.CONFLICTED_HISTORY,
            **sides.as_facts(),
        )
        settle.release_parent(run)
    return bool(moved)


@transaction.atomic
def bury_lost(
    *,
    by: Principal,
    run_id: uuid.UUID,
    workspace: Workspace,
    sides: Sides,
    kept: Iterable[str] = (),
) -> Run:
    """Put up a dead letter for a run that only the witness remembers.

    Shape: `kept` are the bodies of its events.   Again: the first one stays.
    """
    said = [json.loads(body) for body in kept]
    kind = next((e["data"]["kind"] for e in said if "kind" in e["data"]), FORGOTTEN)
    stated = next((e["workspace_id"] for e in said if e["workspace_id"]), None)
    known = Workspace.objects.filter(id=uuid.UUID(stated)).first() if stated else None
    now = clock.now()
    run, is_new = Run.objects.get_or_create(
        id=run_id,
        defaults={
            "workspace": known or workspace,
            "principal": by,
            "kind": str(kind)[:64],
            "state": State.DEAD_LETTER,
            "reason": Reason.LOST_BY_ROLLBACK,
            "trigger": Trigger.EVENT,
            "root_id": run_id,
            "trace_id": said[0]["trace_id"][:32] if said else ids.new_trace_id(),
            "epoch": audit.epoch(),
            "fence": FENCE_LEAP,
            "finished_at": now,
            "error_detail": f"{sides} Only the witness remembers this run: start its"
            " work again by hand, or dismiss it.",
            "result": {"seen": [_short(event) for event in said]},
        },
    )
    if is_new:
        settle.record(
            run,
            "run.dead_lettered",
            by=by.actor,
            reason=Reason.LOST_BY_ROLLBACK,
            **sides.as_facts(),
        )
    return run


def hold_stale(
    *, by: Principal, mark: str, before: datetime, spared: Iterable[uuid.UUID] = ()
) -> list[uuid.UUID]:
    """Hold every open run that is older than a restore, until somebody has looked.

    Shape: `mark` is what `resume_stale` finds them by.
    Again: what is held stays held; only what was not is returned.
    """
    older = Run.objects.unsettled().filter(created_at__lt=before)
    wanted = older.exclude(id__in=list(spared)).exclude(waiting_on=mark)
    return [run.id for run in wanted.order_by("id") if _hold(by, run, mark)]


@transaction.atomic
def _hold(by: Principal, run: Run, mark: str) -> bool:
    held = Run.objects.filter(id=run.id, state=run.state, fence=run.fence).update(
        state=State.WAITING_OPERATOR,
        reason=STALE,
        waiting_on=mark,
        wake_at=None,
        fence=F("fence") + FENCE_LEAP,
        **settle.NOT_LEASED,
    )
    if held:
        settle.record(run, "run.held_stale", by=by.actor, reason=STALE, was=run.state)
    return bool(held)


@transaction.atomic
def resume_stale(*, by: Principal, workspace: Workspace, mark: str) -> list[Run]:
    """Let the held runs go on: their effects have been looked at.

    Raises: RoleRequired.   Again: finds none.
    """
    check_role(by, Role.OPERATOR, workspace)
    return settle.queue_waiting(Q(waiting_on=mark, reason=STALE), reason="revalidated")


def note_fired(bodies: Iterable[str]) -> int:
    """Note the slots that fired in a lost future, so that none fires twice.

    Shape: bodies of `schedule.fired` events.   Again: a known slot stays.
    """
    noted = 0
    for said in map(json.loads, bodies):
        schedule = Schedule.objects.filter(id=uuid.UUID(said["subject_id"])).first()
        if schedule is None:
            continue
        moment = datetime.fromisoformat(said["data"]["slot_at"])
        _, is_new = Slot.objects.get_or_create(
            schedule=schedule, slot_at=moment, defaults={"state": SlotState.FIRED}
        )
        noted += is_new
    return noted


def _short(event: dict[str, object]) -> dict[str, object]:
    return {name: event[name] for name in ("type", "occurred_at", "decision")}
