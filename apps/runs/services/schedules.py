"""The verbs of schedules: plan, change, pause, run now, say what would happen.

Invariants: a schedule's moments are counted anew whenever its timing changes; a
change names the version it was made on; trying out writes nothing.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, time
from itertools import islice
from typing import Any, TypedDict, Unpack

from django.db import transaction

from apps.access.models import Principal, Workspace
from apps.audit import services as audit
from apps.common import clock
from apps.common.actor import Actor
from apps.common.errors import Conflict, FieldProblem, Invalid, NotFound
from apps.runs import policies
from apps.runs.engine import calendar, delivery, slots, strip
from apps.runs.engine.intake import NewRun, enqueue
from apps.runs.errors import BadSchedule
from apps.runs.models import (
    SCHEDULE_LIFECYCLE,
    CatchUp,
    Overlap,
    Run,
    Schedule,
    ScheduleKind,
    ScheduleState,
    Slot,
    Trigger,
)
from apps.runs.ports import plannable

#: How many moments a trial shows.
SHOWN_MOMENTS = 5
LONGEST_JITTER_SECONDS = 86_400
CHOICES = {"kind": ScheduleKind, "catch_up": CatchUp, "overlap": Overlap}


class Timing(TypedDict, total=False):
    """What a schedule is called, whom it acts for, how it treats its moments."""

    title: str
    principal: Principal
    timezone: str
    catch_up: str
    overlap: str
    jitter_seconds: int
    payload: dict[str, Any]
    quiet_from: time | None
    quiet_to: time | None
    daily_cap: int | None
    max_failures: int


CHANGEABLE = frozenset({"kind", "expression", "run_kind", *Timing.__annotations__})


@dataclass(frozen=True, slots=True)
class Trial:
    """What a schedule would do. Nothing of it was done."""

    moments: list[datetime]
    in_words: str
    run_kind: str
    payload: dict[str, Any]
    acts_for: str
    #: Why nothing would start just now; "" when a run would.
    held_back_by: str
    delivery: delivery.Verdict


@transaction.atomic
def create_schedule(
    *,
    by: Principal,
    workspace: Workspace,
    slug: str,
    when: tuple[str, str],
    run_kind: str,
    **timing: Unpack[Timing],
) -> Schedule:
    """Plan runs of one kind.

    Raises: BadSchedule, Denied, Conflict for a name that is taken.
    Shape: `when` is (kind, expression).
    """
    policies.check_may_plan(by, workspace)
    if Schedule.objects.filter(workspace=workspace, slug=slug).exists():
        raise Conflict(f"There is a schedule {slug!r} already; choose another name.")
    schedule = build(by, workspace, slug, when, run_kind, **timing)
    schedule.save(force_insert=True)
    record(schedule, "schedule.created", by.actor)
    return schedule


def build(
    by: Principal,
    workspace: Workspace,
    slug: str,
    when: tuple[str, str],
    run_kind: str,
    **timing: Unpack[Timing],
) -> Schedule:
    """Make a schedule, checked and not saved. Raises: BadSchedule, Invalid."""
    schedule = Schedule(
        workspace=workspace,
        slug=slug,
        kind=when[0],
        expression=when[1],
        run_kind=run_kind,
        **{"principal": by, "title": slug, **timing},
    )
    _check(schedule)
    schedule.next_at = _first_moment(schedule)
    return schedule


@transaction.atomic
def update_schedule(
    *,
    by: Principal,
    schedule_id: uuid.UUID,
    expected_version: int | None = None,
    **changes: Any,
) -> Schedule:
    """Change a schedule; its next moment is counted anew.

    Raises: BadSchedule, Invalid, Denied, Conflict when somebody was first.
    """
    schedule = _held(by, schedule_id)
    if expected_version not in (None, schedule.version):
        raise Conflict(
            f"Somebody changed it meanwhile: it is at version {schedule.version}.",
            expected_version=expected_version,
        )
    if unknown := set(changes) - CHANGEABLE:
        raise Invalid(f"A schedule has no changeable {', '.join(sorted(unknown))}.")
    for name, value in changes.items():
        setattr(schedule, name, value)
    _check(schedule)
    schedule.next_at = _first_moment(schedule)
    schedule.version += 1
    schedule.save()
    record(schedule, "schedule.updated", by.actor, changed=sorted(changes))
    return schedule


@transaction.atomic
def set_schedule_state(
    *, by: Principal, schedule_id: uuid.UUID, state: str, reason: str = ""
) -> Schedule:
    """Pause, resume or disable a schedule.

    Raises: InvalidTransition, Denied.   Again: the same state is left alone.
    """
    schedule = _held(by, schedule_id)
    if schedule.state == state:
        return schedule
    SCHEDULE_LIFECYCLE.check(schedule.state, state)
    schedule.state, schedule.state_reason = state, reason[:300]
    if state == ScheduleState.ACTIVE:
        # What passed while it was paused was not wanted.
        schedule.next_at = slots.next_moment(schedule, clock.now())
        schedule.failures, schedule.state_reason = 0, ""
    schedule.save(update_fields=["state", "state_reason", "next_at", "failures"])
    record(schedule, "schedule.updated", by.actor, state=state, because=reason)
    return schedule


@transaction.atomic
def run_now(*, by: Principal, schedule_id: uuid.UUID, reason: str = "") -> Run:
    """Start a schedule's work at once; its moments stay as they are.

    Raises: Denied, Conflict while an earlier run of it is not over and overlap
    is forbidden.   Again: starts another.
    """
    schedule = _held(by, schedule_id)
    if busy := calendar.unfinished_run(schedule):
        raise Conflict(
            f"Run {busy} of this schedule is not over, and overlap is forbidden."
        )
    run = enqueue(
        NewRun(
            kind=schedule.run_kind,
            payload={**schedule.payload, "schedule_id": str(schedule.id)},
            principal=schedule.principal,
            workspace=schedule.workspace,
            trigger=Trigger.MANUAL,
            serial_key=calendar.serial_key(schedule),
        )
    )
    record(schedule, "schedule.run_now", by.actor, run_id=str(run.id), because=reason)
    return run


def try_out(*, schedule: Schedule) -> Trial:
    """Say what a schedule, saved or not, would do from now on. Writes nothing.

    Raises: BadSchedule, Invalid.
    """
    now = clock.now()
    _check(schedule)
    moments = list(islice(slots.moments_after(schedule, now), SHOWN_MOMENTS))
    busy = None if schedule._state.adding else calendar.unfinished_run(schedule)
    held = f"run {busy} is not over" if busy else ""
    if schedule.state != ScheduleState.ACTIVE:
        held = f"the schedule is {schedule.state}"
    return Trial(
        moments=moments,
        in_words=slots.in_words(schedule),
        run_kind=schedule.run_kind,
        payload=schedule.payload,
        acts_for=schedule.principal.label,
        held_back_by=held,
        delivery=delivery.verdict(
            schedule, schedule.principal.key, moments[0] if moments else now
        ),
    )


def words_of(schedule: Schedule) -> str:
    """Say in plain words when a schedule falls due, or why that cannot be said."""
    try:
        return slots.in_words(schedule)
    except BadSchedule as error:
        return error.detail


def strip_of(schedule: Schedule, newest: list[Slot]) -> strip.Strip:
    """Draw a schedule's newest slots, oldest first."""
    is_next = schedule.state == ScheduleState.ACTIVE and schedule.next_at is not None
    return strip.drawn(newest, has_next=is_next)


def record(schedule: Schedule, event: str, by: Actor, **facts: Any) -> None:
    """Write one event about a schedule."""
    audit.record(
        type=event,
        actor=by,
        subject=("schedule", str(schedule.id)),
        workspace_id=schedule.workspace_id,
        data={
            "slug": schedule.slug,
            "expression": schedule.expression,
            "timezone": schedule.timezone,
            **facts,
        },
    )


def _held(by: Principal, schedule_id: uuid.UUID) -> Schedule:
    """Lock the schedule that this principal may steer. Raises: NotFound, Denied."""
    mine = Schedule.objects.visible_to(by).filter(id=schedule_id)
    found = mine.select_related("workspace", "principal")
    schedule: Schedule | None = found.select_for_update(of=("self",)).first()
    if schedule is None:
        raise NotFound(f"No schedule {schedule_id}.")
    policies.check_may_plan(by, schedule.workspace)
    return schedule


def _first_moment(schedule: Schedule) -> datetime:
    found = slots.next_moment(schedule, clock.now())
    if found is None:
        problem = FieldProblem("expression", "in the past", "a moment that will come")
        raise Invalid("This schedule would never fall due.", fields=(problem,))
    return found


def _check(schedule: Schedule) -> None:
    for name, choices in CHOICES.items():
        if getattr(schedule, name) not in choices.values:
            expected = ", ".join(choices.values)
            problem = FieldProblem(name, "unknown", expected)
            raise Invalid(
                f"A schedule's {name} is one of {expected}.", fields=(problem,)
            )
    if problems := tuple(_problems(schedule)):
        raise Invalid("This schedule cannot be planned.", fields=problems)
    slots.check(schedule)
    plannable.check(schedule.run_kind, schedule.payload, schedule.workspace)


def _problems(schedule: Schedule) -> list[FieldProblem]:
    found = []
    if not 0 <= schedule.jitter_seconds <= LONGEST_JITTER_SECONDS:
        found.append(FieldProblem("jitter_seconds", "out of range", "0 to 86400"))
    if (schedule.quiet_from is None) != (schedule.quiet_to is None):
        found.append(FieldProblem("quiet_to", "half given", "both ends, or neither"))
    if not 1 <= schedule.max_failures <= 100:
        found.append(FieldProblem("max_failures", "out of range", "1 to 100"))
    if not schedule.title.strip():
        found.append(FieldProblem("title", "empty", "what it does, in a few words"))
    if "\\u0000" in json.dumps([schedule.title, schedule.payload]):
        found.append(FieldProblem("payload", "holds a NUL character", "text"))
    return found
