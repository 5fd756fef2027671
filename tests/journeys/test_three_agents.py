"""One person asks; three agents work; the built-in model says what it is."""

import pytest

from apps.access import services as access
from apps.access.models import User, Workspace
from apps.agents import queries as agents_queries
from apps.agents import services as agents
from apps.agents.models import Turn, TurnState
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.runs import services as runs
from apps.runs.models import Run, State

pytestmark = pytest.mark.journey


def test_primary_hands_over_to_two_and_puts_their_work_together(
    workspace: Workspace, alice: User
) -> None:
    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin()
    providers.sync_from_env()
    agents.install_default_profiles(workspace=workspace, by=system)
    person = access.principal_for_user(user=alice)
    conversation = agents.start_conversation(workspace=workspace, principal=person)
    turn = agents.start_turn(
        conversation=conversation,
        principal=person,
        text="Research and write about polar bears.",
    )

    while due := Run.objects.filter(state=State.QUEUED).in_line().first():
        runs.execute(due.id)

    turn.refresh_from_db()
    assert turn.state == TurnState.ANSWERED
    assert "@researcher (succeeded)" in turn.answer_text
    assert "@writer (succeeded)" in turn.answer_text
    assert turn.header["scripted"] is True
    kinds = Turn.objects.filter(parent=turn).values_list("steps__kind", flat=True)
    assert sorted(kinds) == ["model"] * 4 + ["tool"] * 2
    drawn = agents_queries.trace(trace_id=turn.trace_id, principal=person)
    assert [bar.kind for bar in drawn.bars].count("turn") == 3
