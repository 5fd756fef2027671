"""Runs, schedules and dead letters over the API."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Query, Router, Status

from apps.access.policies import caller
from apps.access.queries import default_workspace, still_enters
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs
from apps.common.units import whole_number
from apps.gateway.models import Call
from apps.runs import policies, queries, services
from apps.runs.engine.follow import follow
from apps.runs.models import Proposal, Run, Schedule, Slot
from apps.runs.schemas import (
    AutomationChange,
    AutomationIn,
    BulkIn,
    BulkOut,
    DeadLetterIn,
    DecisionIn,
    EffectOut,
    EffectVerdictIn,
    ProposalOut,
    ReasonIn,
    ReplayOut,
    RunOut,
    RunPage,
    ScheduleOut,
    SlotOut,
    StateIn,
    TrialOut,
)

#: Fields of a schedule that may be emptied.
MAY_BE_NOTHING = frozenset({"quiet_from", "quiet_to", "daily_cap"})

router = Router(tags=["runs"], by_alias=True)


@router.get("/runs", response={200: RunPage} | PROBLEMS, operation_id="listRuns")
@needs("runs:read")
def list_runs(
    request: HttpRequest, page: Query[Cursor], state: str = "", trace_id: str = ""
) -> dict[str, object]:
    auth = caller(request)
    rows = Run.objects.visible_to(auth.principal)
    if state:
        rows = rows.filter(state=state)
    if trace_id:
        rows = rows.filter(trace_id=trace_id)
    items, following = cut(rows, page)
    return {"items": items, "next_cursor": following}


@router.get("/runs/{run_id}", response={200: RunOut} | PROBLEMS, operation_id="getRun")
@needs("runs:read")
def get_run(request: HttpRequest, run_id: UUID) -> Run:
    auth = caller(request)
    return queries.get_run(run_id, principal=auth.principal)


@router.get("/runs/{run_id}/events", response=PROBLEMS, operation_id="streamRunEvents")
@needs("runs:read")
def stream_run_events(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """What happens to a run, as server-sent events: event, state, then done.

    `Last-Event-ID` resumes after that place in the run.
    """
    auth = caller(request)
    run = queries.get_run(run_id, principal=auth.principal)
    after = whole_number(request.headers.get("Last-Event-ID", "")) or 0
    stream = follow(run_id=run.id, after=after, may_read=lambda: still_enters(auth))
    answer: Any = StreamingHttpResponse(stream, content_type="text/event-stream")
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"
    streamed: HttpResponse = answer
    return streamed


@router.post(
    "/runs/{run_id}/cancel",
    response={200: RunOut} | PROBLEMS,
    operation_id="cancelRun",
)
@needs("runs:write")
def cancel_run(request: HttpRequest, run_id: UUID, body: ReasonIn) -> Run:
    auth = caller(request)
    return services.cancel(by=auth.principal, run_id=run_id, reason=body.reason)


@router.get(
    "/schedules",
    response={200: list[ScheduleOut]} | PROBLEMS,
    operation_id="listSchedules",
)
@router.get(
    "/automations",
    response={200: list[ScheduleOut]} | PROBLEMS,
    operation_id="listAutomations",
)
@needs("runs:read")
def list_schedules(request: HttpRequest) -> list[Schedule]:
    auth = caller(request)
    return queries.schedules(principal=auth.principal)


@router.post(
    "/automations",
    response={201: ScheduleOut} | PROBLEMS,
    operation_id="createAutomation",
)
@needs("runs:write")
def create_automation(request: HttpRequest, body: AutomationIn) -> Status[Schedule]:
    auth = caller(request)
    return Status(201, services.create_automation(by=auth.principal, **_planned(body)))


@router.post(
    "/automations/try",
    response={200: TrialOut} | PROBLEMS,
    operation_id="tryAutomation",
)
@needs("runs:read")
def try_automation(request: HttpRequest, body: AutomationIn) -> services.Trial:
    """Say what an automation would do. Plans and sends nothing."""
    auth = caller(request)
    policies.check_may_plan(auth.principal, default_workspace())
    services.check_plannable(body.run_kind)
    return services.try_out(schedule=services.build(auth.principal, **_planned(body)))


@router.get(
    "/schedules/{schedule_id}",
    response={200: ScheduleOut} | PROBLEMS,
    operation_id="getSchedule",
)
@needs("runs:read")
def get_schedule(request: HttpRequest, schedule_id: UUID) -> Schedule:
    auth = caller(request)
    return queries.get_schedule(schedule_id, principal=auth.principal)


@router.patch(
    "/automations/{schedule_id}",
    response={200: ScheduleOut} | PROBLEMS,
    operation_id="updateAutomation",
)
@needs("runs:write")
def update_automation(
    request: HttpRequest, schedule_id: UUID, body: AutomationChange
) -> Schedule:
    auth = caller(request)
    given = body.model_dump(exclude_unset=True)
    changes = {
        name: value
        for name, value in given.items()
        if value is not None or name in MAY_BE_NOTHING
    }
    return services.update_schedule(
        by=auth.principal, schedule_id=schedule_id, **changes
    )


@router.post(
    "/automations/{schedule_id}/state",
    response={200: ScheduleOut} | PROBLEMS,
    operation_id="setAutomationState",
)
@needs("runs:write")
def set_automation_state(
    request: HttpRequest, schedule_id: UUID, body: StateIn
) -> Schedule:
    auth = caller(request)
    return services.set_schedule_state(
        by=auth.principal,
        schedule_id=schedule_id,
        state=body.state,
        reason=body.reason,
    )


@router.post(
    "/automations/{schedule_id}/run",
    response={202: RunOut} | PROBLEMS,
    operation_id="runAutomationNow",
)
@needs("runs:write")
def run_automation(
    request: HttpRequest, schedule_id: UUID, body: ReasonIn
) -> Status[Run]:
    auth = caller(request)
    run = services.run_now(
        by=auth.principal, schedule_id=schedule_id, reason=body.reason
    )
    return Status(202, run)


@router.get(
    "/automations/{schedule_id}/try",
    response={200: TrialOut} | PROBLEMS,
    operation_id="dryRunAutomation",
)
@needs("runs:read")
def dry_run(request: HttpRequest, schedule_id: UUID) -> services.Trial:
    """Say what an automation would do next. Sends nothing."""
    auth = caller(request)
    schedule = queries.get_schedule(schedule_id, principal=auth.principal)
    return services.try_out(schedule=schedule)


@router.get(
    "/schedules/{schedule_id}/slots",
    response={200: list[SlotOut]} | PROBLEMS,
    operation_id="listSlots",
)
@needs("runs:read")
def list_slots(request: HttpRequest, schedule_id: UUID) -> list[Slot]:
    """The newest slots, oldest first: fired, missed and skipped."""
    auth = caller(request)
    schedule = queries.get_schedule(schedule_id, principal=auth.principal)
    return queries.newest_slots([schedule], limit=200)[schedule.id]


@router.get(
    "/automation-proposals",
    response={200: list[ProposalOut]} | PROBLEMS,
    operation_id="listAutomationProposals",
)
@needs("runs:read")
def list_proposals(request: HttpRequest) -> list[Proposal]:
    auth = caller(request)
    return queries.open_proposals(principal=auth.principal)


@router.post(
    "/automation-proposals/{proposal_id}",
    response={200: ProposalOut} | PROBLEMS,
    operation_id="decideAutomationProposal",
)
@needs("runs:write")
def decide_proposal(
    request: HttpRequest, proposal_id: UUID, body: DecisionIn
) -> Proposal:
    auth = caller(request)
    return services.decide_proposal(
        by=auth.principal,
        proposal_id=proposal_id,
        approve=body.approve,
        reason=body.reason,
    )


@router.get(
    "/runs/{run_id}/replay",
    response={200: ReplayOut} | PROBLEMS,
    operation_id="replayRun",
)
@needs("runs:read")
def replay_run(request: HttpRequest, run_id: UUID) -> dict[str, Any]:
    """Re-run the journal on recorded results. Executes nothing."""
    auth = caller(request)
    return services.replay(by=auth.principal, run_id=run_id)


@router.get(
    "/runs/{run_id}/effects",
    response={200: list[EffectOut]} | PROBLEMS,
    operation_id="listEffects",
)
@needs("runs:read")
def list_effects(request: HttpRequest, run_id: UUID) -> list[Call]:
    """What a run did to the world, or may have done."""
    auth = caller(request)
    run = queries.get_run(run_id, principal=auth.principal)
    return queries.effects_of([run], auth.principal)[run.id]


@router.post(
    "/runs/{run_id}/effects/{call_id}",
    response={200: EffectOut} | PROBLEMS,
    operation_id="settleEffect",
)
@needs("runs:write")
def settle_effect(
    request: HttpRequest, run_id: UUID, call_id: UUID, body: EffectVerdictIn
) -> Call:
    """Say of an effect in doubt: happened, did_not_happen, or retry."""
    auth = caller(request)
    return services.settle_effect(
        by=auth.principal,
        run_id=run_id,
        call_id=call_id,
        verdict=body.verdict,
        reason=body.reason,
    )


@router.get(
    "/dead-letters",
    response={200: list[RunOut]} | PROBLEMS,
    operation_id="listDeadLetters",
)
@needs("runs:read")
def list_dead_letters(request: HttpRequest) -> list[Run]:
    auth = caller(request)
    return list(queries.dead_letters(principal=auth.principal))


@router.post(
    "/dead-letters",
    response={200: BulkOut} | PROBLEMS,
    operation_id="actOnDeadLetters",
)
@needs("runs:write")
def act_on_dead_letters(request: HttpRequest, body: BulkIn) -> services.Progress:
    """Act on the oldest that match; ask again while `left` falls."""
    auth = caller(request)
    return services.act_on_matching(
        by=auth.principal,
        which=services.Filter(body.reason_code, body.kind, body.before),
        action=body.action,
        reason=body.reason,
        limit=body.limit,
    )


@router.post(
    "/dead-letters/{run_id}",
    response={200: RunOut} | PROBLEMS,
    operation_id="actOnDeadLetter",
)
@needs("runs:write")
def act_on_dead_letter(request: HttpRequest, run_id: UUID, body: DeadLetterIn) -> Run:
    auth = caller(request)
    return services.act_on_dead_letter(
        by=auth.principal, run_id=run_id, action=body.action, reason=body.reason
    )


def _planned(body: AutomationIn) -> dict[str, Any]:
    """Put a body into the words of the services."""
    values = body.model_dump()
    when = (values.pop("kind"), values.pop("expression"))
    return {**values, "workspace": default_workspace(), "when": when}
