"""A schedule asks an agent; an agent proposes a schedule."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from apps.access import services as access
from apps.access.models import Principal, Role, Workspace
from apps.agents import services as agents
from apps.agents.engine import automation
from apps.agents.models import Turn, TurnState
from apps.common import clock
from apps.common.errors import ApprovalRequired, Halted, Invalid
from apps.extensions.ports import ToolContext
from apps.gateway import services as gateway
from apps.gateway.errors import CapabilityDenied
from apps.gateway.models import ApprovalRequest, Call
from apps.gateway.ports import Lineage
from apps.runs import services as runs
from apps.runs.models import Proposal, Run, Schedule, State
from apps.runs.ports import Finish, Park, RunContext
from tests import people

SAID = {"profile": "primary", "text": "What is new?"}


@pytest.fixture
def system(workspace: Workspace) -> Principal:
    system = access.system_principal()
    agents.install_default_profiles(workspace=workspace, by=system)
    gateway.install_shipped_grants(by=system)
    return system


@pytest.fixture
def run(system: Principal, workspace: Workspace) -> Run:
    schedule = runs.create_automation(
        by=system,
        workspace=workspace,
        slug="news",
        when=("cron", "0 8 * * *"),
        run_kind=automation.KIND,
        payload=SAID,
    )
    return runs.run_now(by=system, schedule_id=schedule.id)


def context(run: Run) -> RunContext:
    return RunContext(
        run_id=run.id,
        fence=1,
        attempt=1,
        trace_id=run.trace_id,
        payload=run.payload,
        root_id=run.root_id,
    )


def test_run_starts_one_turn_and_waits_for_it(run: Run) -> None:
    outcomes = [agents.carry_automation(context(run)) for _ in range(2)]

    turn = Turn.objects.get()
    assert all(isinstance(outcome, Park) for outcome in outcomes)
    assert turn.run.parent_id == run.id
    assert turn.principal.key == "automation:default:news"
    assert Call.objects.get().kind == "automation"


@pytest.mark.parametrize(
    ("end", "state"),
    [(TurnState.ANSWERED, "succeeded"), (TurnState.FAILED, "failed")],
)
def test_run_ends_as_its_turn_ends(run: Run, end: str, state: str) -> None:
    agents.carry_automation(context(run))
    Turn.objects.update(state=end, finished_at=run.created_at)

    outcome = agents.carry_automation(context(run))

    assert isinstance(outcome, Finish)
    assert outcome.state == state


def test_halt_binds_the_automation(run: Run, system: Principal) -> None:
    gateway.halt(by=system, scope="all", reason="storm")

    with pytest.raises(Halted):
        agents.carry_automation(context(run))
    assert not Turn.objects.exists()


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"profile": "primary", "text": " "},
        {"profile": "nobody", "text": "x"},
        {**SAID, "more": 1},
    ],
)
def test_automation_that_could_not_be_carried_is_refused(
    system: Principal, workspace: Workspace, payload: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        runs.create_automation(
            by=system,
            workspace=workspace,
            slug="news",
            when=("cron", "0 8 * * *"),
            run_kind=automation.KIND,
            payload=payload,
        )


# --- proposing


@pytest.fixture
def tool_context(system: Principal, workspace: Workspace) -> ToolContext:
    return ToolContext(
        principal=people.agent("rob", workspace),
        workspace_id=workspace.id,
        lineage=Lineage(agent="primary"),
        scope={},
    )


ASKED = {
    "name": "news",
    "title": "Morning news",
    "kind": "cron",
    "expression": "0 8 * * *",
    "text": "What is new?",
}


def test_proposing_leads_to_a_draft_and_no_schedule(tool_context: ToolContext) -> None:
    answer = automation.propose(ASKED, tool_context)

    proposal = Proposal.objects.get()
    assert answer["link"] == f"/schedules/proposals/{proposal.id}/"
    assert answer["when"] == "At 08:00 every day (UTC)"
    assert not Schedule.objects.exists()
    assert not Run.objects.exclude(state=State.SUCCEEDED).exists()


def test_approved_proposal_asks_the_agent_that_proposed(
    tool_context: ToolContext, system: Principal
) -> None:
    automation.propose(ASKED, tool_context)

    runs.decide_proposal(by=system, proposal_id=Proposal.objects.get().id, approve=True)

    assert Schedule.objects.get().payload == SAID


def windowed(run: Run, minutes: Any) -> RunContext:
    payload = {**run.payload, automation.REJECT_MINUTES: minutes}
    return replace(context(run), payload=payload)


def test_run_with_a_window_starts_by_itself_at_its_end(run: Run) -> None:
    with pytest.raises(ApprovalRequired):
        agents.carry_automation(windowed(run, 10))
    asked = ApprovalRequest.objects.get()
    assert (asked.mode, Turn.objects.count()) == ("auto_start", 0)
    assert asked.starts_at is not None

    with clock.frozen(asked.starts_at - timedelta(seconds=1)):
        assert gateway.sweep_approvals() == 0
    with clock.frozen(asked.starts_at):
        assert gateway.sweep_approvals() == 1
        agents.carry_automation(windowed(run, "10"))

    assert Turn.objects.count() == 1


def test_run_that_was_rejected_in_its_window_starts_nothing(
    run: Run, workspace: Workspace
) -> None:
    bob = people.person("bob", Role.APPROVER, workspace)
    with pytest.raises(ApprovalRequired):
        agents.carry_automation(windowed(run, 10))
    asked = ApprovalRequest.objects.get()
    assert asked.starts_at is not None
    gateway.decide_approval(
        by=bob.principal, approval_id=asked.id, approve=False, reason="not today"
    )

    with clock.frozen(asked.starts_at):
        assert gateway.sweep_approvals() == 0
        with pytest.raises(CapabilityDenied, match="not today"):
            agents.carry_automation(windowed(run, 10))
    assert Turn.objects.count() == 0


@pytest.mark.parametrize("minutes", [-1, 1441, "soon", 1.5, True, "1.5", [10]])
def test_window_that_is_no_time_is_refused(
    system: Principal, workspace: Workspace, minutes: Any
) -> None:
    with pytest.raises(Invalid) as caught:
        automation.check_payload({**SAID, "rejectMinutes": minutes}, workspace)

    assert caught.value.fields[0].path == "payload.rejectMinutes"


@pytest.mark.parametrize("minutes", ["", None, 0, "0", 15, "1440"])
def test_window_may_be_written_by_a_form(
    system: Principal, workspace: Workspace, minutes: Any
) -> None:
    automation.check_payload({**SAID, "rejectMinutes": minutes}, workspace)
