"""An agent may propose an automation; it exists once a person approves it.

Invariants: a proposal is decided once, by a person who may plan; what is approved
is exactly what was shown; the schedule acts for its own automation principal.
"""

import re
import uuid
from typing import Any, Unpack

from django.db import IntegrityError, transaction

from apps.access import services as access
from apps.access.models import Principal, PrincipalKind, Workspace
from apps.audit import services as audit
from apps.common import clock, ids
from apps.common.errors import Conflict, Denied, FieldProblem, Invalid, NotFound
from apps.runs import policies
from apps.runs.models import PROPOSAL_LIFECYCLE, Proposal, ProposalState, Schedule
from apps.runs.ports import plannable
from apps.runs.services import schedules

SLUG = re.compile(r"\A[a-z0-9][a-z0-9-]{0,62}\Z")
#: Open proposals of one workspace; more would bury the desk.
MOST_OPEN = 20
FIELDS = ("title", "kind", "expression", "timezone", "run_kind", "payload")


@transaction.atomic
def propose_automation(
    *, by: Principal, workspace: Workspace, agent: str, slug: str, body: dict[str, Any]
) -> Proposal:
    """Write down an automation for a person to decide on. Plans nothing.

    Raises: Invalid, BadSchedule, Conflict when that name waits or is taken.
    Again: the same proposal of the same trace is returned.
    """
    check_slug(slug)
    if unknown := set(body) - set(FIELDS):
        raise Invalid(f"An automation has no {', '.join(sorted(unknown))}.")
    _as_schedule(by, workspace, slug, body)
    trace_id = ids.current_trace_id()
    waiting = Proposal.objects.filter(workspace=workspace, state=ProposalState.PENDING)
    same = waiting.filter(slug=slug).first()
    if same is not None:
        if trace_id and (same.trace_id, same.body) == (trace_id, body):
            return same
        raise Conflict(f"A proposal {slug!r} already waits for a decision.")
    if Schedule.objects.filter(workspace=workspace, slug=slug).exists():
        raise Conflict(f"There is a schedule {slug!r} already.")
    if waiting.count() >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} proposals wait already; decide on those first.")
    try:
        with transaction.atomic():
            proposal = Proposal.objects.create(
                workspace=workspace,
                proposed_by=by,
                agent=agent[:64],
                slug=slug,
                body=body,
                trace_id=trace_id,
            )
    except IntegrityError:
        raise Conflict(f"A proposal {slug!r} already waits for a decision.") from None
    _record(proposal, by, "automation.proposed")
    return proposal


@transaction.atomic
def decide_proposal(
    *, by: Principal, proposal_id: uuid.UUID, approve: bool, reason: str = ""
) -> Proposal:
    """Let a proposed automation exist, or turn it down.

    Writes: Proposal by one conditional UPDATE; Schedule when approved.
    Raises: NotFound, Denied for agents, Conflict when already decided.
    """
    if by.kind in (PrincipalKind.AGENT, PrincipalKind.AUTOMATION):
        raise Denied("Agents never approve.")
    mine = Proposal.objects.visible_to(by).filter(id=proposal_id)
    proposal: Proposal | None = mine.select_related("workspace").first()
    if proposal is None:
        raise NotFound(f"No proposal {proposal_id}.")
    policies.check_may_plan(by, proposal.workspace)
    target = ProposalState.APPROVED if approve else ProposalState.REJECTED
    PROPOSAL_LIFECYCLE.check(ProposalState.PENDING, target)
    if not Proposal.objects.filter(id=proposal_id, state=ProposalState.PENDING).update(
        state=target,
        decided_by=by,
        decided_at=clock.now(),
        decision_reason=reason[:300],
    ):
        proposal.refresh_from_db()
        raise Conflict(f"It is already {proposal.state}.", state=proposal.state)
    if approve:
        schedule = _create(by, proposal)
        Proposal.objects.filter(id=proposal_id).update(schedule=schedule)
    proposal.refresh_from_db()
    _record(proposal, by, "automation.decided", decision=str(target), reason=reason)
    return proposal


@transaction.atomic
def create_automation(
    *,
    by: Principal,
    workspace: Workspace,
    slug: str,
    when: tuple[str, str],
    run_kind: str,
    **timing: Unpack[schedules.Timing],
) -> Schedule:
    """Plan what a person may plan; it acts for a principal of its own.

    Raises: Invalid, BadSchedule, Denied, Conflict.
    """
    policies.check_may_plan(by, workspace)
    check_slug(slug)
    check_plannable(run_kind)
    timing["principal"] = automation_principal(slug, workspace)
    return schedules.create_schedule(
        by=by, workspace=workspace, slug=slug, when=when, run_kind=run_kind, **timing
    )


def check_plannable(run_kind: str) -> None:
    """Raises: Invalid."""
    if plannable.find(run_kind) is None:
        known = ", ".join(planned.kind for planned in plannable.all())
        problem = FieldProblem("run_kind", "cannot be planned", f"one of {known}")
        raise Invalid(f"{run_kind!r} cannot be planned.", fields=(problem,))


def draft_of(proposal: Proposal) -> Schedule:
    """Return what approving would plan, checked and not saved.

    Raises: BadSchedule, Invalid.
    """
    return _as_schedule(
        proposal.proposed_by, proposal.workspace, proposal.slug, proposal.body
    )


def automation_principal(slug: str, workspace: Workspace) -> Principal:
    """Return the principal that an automation of this name acts as."""
    return access.principal_for_automation(key=slug, label=slug, workspace=workspace)


def check_slug(slug: str) -> None:
    """Raises: Invalid."""
    if not SLUG.match(slug):
        expected = "1 to 63 of a-z, 0-9 and -"
        problem = FieldProblem("slug", "not a name", expected)
        raise Invalid(f"A schedule's name has {expected}.", fields=(problem,))


def _create(by: Principal, proposal: Proposal) -> Schedule:
    body = dict(proposal.body)
    when = (body.pop("kind"), body.pop("expression"))
    return schedules.create_schedule(
        by=by,
        workspace=proposal.workspace,
        slug=proposal.slug,
        when=when,
        principal=automation_principal(proposal.slug, proposal.workspace),
        **body,
    )


def _as_schedule(
    by: Principal, workspace: Workspace, slug: str, body: dict[str, Any]
) -> Schedule:
    values = dict(body)
    try:
        when = (values.pop("kind"), values.pop("expression"))
        run_kind = values.pop("run_kind")
    except KeyError as error:
        raise Invalid(f"An automation needs {error}.") from None
    return schedules.build(by, workspace, slug, when, run_kind, **values)


def _record(
    proposal: Proposal, by: Principal, event: str, decision: str = "", reason: str = ""
) -> None:
    audit.record(
        type=event,
        actor=by.actor,
        subject=("automation", str(proposal.id)),
        workspace_id=proposal.workspace_id,
        trace_id=proposal.trace_id,
        decision=decision,
        reason=reason,
        data={
            "slug": proposal.slug,
            "agent": proposal.agent,
            "expression": proposal.body.get("expression", ""),
        },
    )
