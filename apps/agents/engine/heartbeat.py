"""Heartbeats: an agent looks after things at a cadence, or says why it did not.

Hides: the order in which a beat may be left out. Invariants: a beat that is left
out ends well, with its reason; it never fails its schedule; the gateway decides on
every start.
"""

from datetime import time
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from apps.access.models import Workspace
from apps.agents.engine import automation
from apps.common import clock
from apps.common.errors import BudgetExceeded, FieldProblem, Invalid
from apps.gateway.ports import Estimate
from apps.runs import services as runs
from apps.runs.models import Run, Schedule, ScheduleState
from apps.runs.ports import Finish, Outcome, Planned, RunContext

KIND = "agents.heartbeat"
#: A check whose line begins so is switched off.
OFF = "#"
#: Too little to matter, enough for an exhausted budget to refuse it.
A_GRAIN = Estimate(micros=1, tokens=1)
ASKS = "Heartbeat. Look into each of these and report only what needs attention:"


def carry(ctx: RunContext, begin: automation.Begin) -> Outcome:
    """Ask the agent to go through its checks, or end with the reason not to.

    Raises: what the gateway raises, but for a budget that is used up.
    """
    run = Run.objects.select_related("principal", "workspace").get(id=ctx.run_id)
    checks = active_checks(str(ctx.payload["checks"]))
    said = {"profile": ctx.payload["profile"], "text": "\n- ".join([ASKS, *checks])}
    if not automation.has_begun(run) and (reason := left_out(run, checks)):
        return _left_out(reason)
    try:
        return automation.ask(ctx, run, said, begin, estimate=A_GRAIN)
    except BudgetExceeded:
        return _left_out("budget_exceeded")


def left_out(run: Run, checks: list[str]) -> str:
    """Say why this beat is not to be; "" when it is."""
    schedule_id = _schedule_id(run)
    schedule = Schedule.objects.filter(id=schedule_id).first() if schedule_id else None
    if schedule is None or (
        schedule.state != ScheduleState.ACTIVE and run.trigger != "manual"
    ):
        return "policy_inactive"
    if not _is_active_hour(run.payload, schedule.timezone):
        return "outside_active_hours"
    if not checks:
        return "no_active_checks"
    if runs.queue_is_full():
        return "queue_backpressure"
    try:
        automation.find_profile(run.payload["profile"], run.workspace)
    except Invalid:
        return "profile_not_resolved"
    return ""


def active_checks(lines: str) -> list[str]:
    """Return the checks that are switched on, one a line."""
    found = (line.strip() for line in lines.splitlines())
    return [line for line in found if line and not line.startswith(OFF)]


def check_payload(payload: dict[str, Any], workspace: Workspace) -> None:
    """Refuse a policy that could not be carried. Raises: Invalid."""
    known = {name for name, _ in PLANNED.fields}
    if set(payload) != known:
        problem = FieldProblem("payload", "wrong fields", ", ".join(sorted(known)))
        raise Invalid("A heartbeat has other fields.", fields=(problem,))
    text = {"profile": payload["profile"], "text": payload["checks"]}
    automation.check_payload(text, workspace)
    for name in ("active_from", "active_to"):
        _time_of(payload, name)


def _is_active_hour(payload: dict[str, Any], zone: str) -> bool:
    begins, ends = _time_of(payload, "active_from"), _time_of(payload, "active_to")
    local = clock.now().astimezone(ZoneInfo(zone)).time()
    if begins == ends:
        return True
    if begins < ends:
        return begins <= local < ends
    return local >= begins or local < ends


def _time_of(payload: dict[str, Any], name: str) -> time:
    try:
        return time.fromisoformat(str(payload[name]))
    except ValueError:
        problem = FieldProblem(f"payload.{name}", "no time", "HH:MM")
        raise Invalid("Active hours are times of day.", fields=(problem,)) from None


def _schedule_id(run: Run) -> UUID | None:
    found = run.payload.get("schedule_id")
    return UUID(str(found)) if found else None


def _left_out(reason: str) -> Finish:
    return Finish({"left_out": reason}, reason=reason)


PLANNED = Planned(
    kind=KIND,
    title="Heartbeat of an agent",
    fields=(
        ("profile", "Agent"),
        ("checks", "What to look into, one a line; # switches a line off"),
        ("active_from", "Active from, HH:MM"),
        ("active_to", "Active to, HH:MM; the same as from means always"),
    ),
    check=check_payload,
)
