"""A schedule talks to an agent: allowed, stopped by a halt, never twice."""

import pytest

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import Turn
from apps.common import ids
from apps.common.errors import Halted
from apps.gateway import services as gateway
from apps.gateway.models import Call
from apps.reliability.engine import starter
from apps.runs import services as runs
from apps.runs.ports import RunContext


@pytest.fixture
def ctx(workspace):
    system = access.system_principal()
    agents.install_default_profiles(by=system, workspace=workspace)
    principal = access.principal_for_automation(
        key="note", label="Note", workspace=workspace
    )
    payload = {"profile": "primary", "text": "What is planned?"}
    run = runs.enqueue(
        kind=starter.KIND,
        payload=payload,
        principal=principal,
        workspace=workspace,
        trigger="schedule",
    )
    return RunContext(
        run_id=run.id,
        fence=1,
        attempt=1,
        trace_id=ids.new_trace_id(),
        payload=payload,
        workspace_id=workspace.id,
        principal_id=principal.id,
        root_id=run.id,
    )


def test_schedule_when_due_starts_one_turn(ctx):
    starter.start_scheduled_turn(ctx)

    turn = Turn.objects.get()
    assert turn.message_text == "What is planned?"
    assert turn.run.trigger == "schedule"


def test_schedule_when_carried_twice_starts_no_second_turn(ctx):
    starter.start_scheduled_turn(ctx)

    starter.start_scheduled_turn(ctx)

    assert Turn.objects.count() == 1


def test_schedule_when_halted_starts_nothing_and_leaves_its_call(ctx):
    gateway.halt(by=access.system_principal(), scope="all", reason="fire drill")

    with pytest.raises(Halted):
        starter.start_scheduled_turn(ctx)

    assert not Turn.objects.exists()
    assert Call.objects.get(kind="automation").state == "denied"
