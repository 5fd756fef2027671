"""In which lane a turn asks, and why.

Hides: the policy of a profile by kind of work, and when a turn is raised above its
lane. Invariants: a raise is what the profile's operator planned for; the model may
say that a task is hard, the policy says what that is worth; each choice has a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from apps.agents.engine.failures import VALIDATION
from apps.agents.engine.journal import Journal
from apps.agents.models import AgentProfile, StepKind, Turn
from apps.audit import services as audit
from apps.providers import queries as providers
from apps.providers.models import Lane, LaneReason
from apps.runs.models import Trigger

INTERACTIVE, SCHEDULE, HEARTBEAT, HANDOFF, HARD, STUCK = (
    "interactive",
    "schedule",
    "heartbeat",
    "handoff",
    "hard",
    "stuck",
)
#: What a policy may name. "hard" and "stuck" raise; the others are kinds of work.
KINDS: Final = (INTERACTIVE, SCHEDULE, HEARTBEAT, HANDOFF, HARD, STUCK)
#: Holds where a profile says nothing; the profile's own lane is for the rest.
DEFAULTS: Final[Mapping[str, str]] = {HEARTBEAT: Lane.LOCAL, HARD: Lane.BRAIN}
_KIND_OF: Final[Mapping[str, str]] = {
    Trigger.SCHEDULE: SCHEDULE,
    Trigger.EVENT: SCHEDULE,
    Trigger.HEARTBEAT: HEARTBEAT,
    Trigger.HANDOFF: HANDOFF,
}


@dataclass(frozen=True, slots=True)
class Choice:
    lane: str
    reason: str


def policy_of(profile: AgentProfile) -> dict[str, str]:
    """Return the lane of each kind of work that has one of its own."""
    said = {**DEFAULTS, **profile.lane_policy}
    return {kind: lane for kind, lane in said.items() if lane}


def choose(profile: AgentProfile, trigger: str, *, is_hard: bool = False) -> Choice:
    """Choose the lane in which a turn begins.

    A lower lane than the profile's own is taken only where somebody answers: else
    the nearest one above it that is staffed.
    """
    own = Choice(profile.lane, LaneReason.PROFILE)
    policy = policy_of(profile)
    if is_hard and _rank(policy.get(HARD)) > _rank(own.lane):
        return Choice(policy[HARD], LaneReason.HARD_TASK)
    lane = policy.get(_KIND_OF.get(trigger, INTERACTIVE), own.lane)
    if lane == own.lane:
        return own
    if _rank(lane) > _rank(own.lane):
        return Choice(lane, LaneReason.WORK_POLICY)
    staffed = providers.staffed_lanes()
    steps = [str(each) for each in Lane if _rank(lane) <= _rank(each)]
    found = next((each for each in steps if each in staffed), own.lane)
    if _rank(found) >= _rank(own.lane):
        return Choice(own.lane, LaneReason.LANE_UNSTAFFED)
    why = LaneReason.WORK_POLICY if found == lane else LaneReason.LANE_UNSTAFFED
    return Choice(found, why)


def for_next_call(turn: Turn, journal: Journal) -> Choice:
    """Choose the lane of a turn's next model call: its own, or a raised one."""
    best = Choice(turn.requested_lane, turn.lane_reason or LaneReason.PROFILE)
    policy = policy_of(turn.profile)
    for kind, reason, holds in (
        (HARD, LaneReason.HARD_TASK, _is_said_hard(journal)),
        (STUCK, LaneReason.STUCK, journal.failures(VALIDATION) > 0),
    ):
        if holds and _rank(policy.get(kind)) > _rank(best.lane):
            best = Choice(policy[kind], reason)
    return best


def plan_call(turn: Turn, journal: Journal) -> None:
    """Write the next model call down, with its lane; a raise leaves an event.

    Writes: Step, `turn.escalated`, inside the caller's transaction.
    """
    choice = for_next_call(turn, journal)
    request = {"lane": choice.lane}
    if choice.lane != turn.requested_lane:
        request["why"] = choice.reason
    models = [step for step in journal.steps if step.kind == StepKind.MODEL]
    before = models[-1].request["lane"] if models else turn.requested_lane
    journal.plan_and_start(StepKind.MODEL, request)
    if choice.lane != before:
        audit.record(
            type="turn.escalated",
            actor=turn.principal.actor,
            subject=("turn", str(turn.id)),
            workspace_id=turn.conversation.workspace_id,
            run_id=turn.run_id,
            trace_id=turn.trace_id,
            decision="planned",
            reason=str(choice.reason),
            data={"agent": turn.profile.slug, "from": before, "to": choice.lane},
        )


def _is_said_hard(journal: Journal) -> bool:
    models = (step for step in journal.steps if step.kind == StepKind.MODEL)
    return any(step.result.get("routing", {}).get("hard") for step in models)


def _rank(lane: str | None) -> int:
    return Lane(lane).rank if lane else -1
