"""Trace pages: for those who may see them, with every row behind a number."""

import pytest
from django.test import Client
from django.urls import reverse

from apps.access import services as access
from apps.access.models import User
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Step, StepKind, StepState, Turn
from apps.common import clock

UNKNOWN_TRACE = "0" * 32


@pytest.fixture
def turn(workspace, alice) -> Turn:
    agents.install_default_profiles(workspace=workspace, by=access.system_principal())
    by = access.principal_for_user(user=alice)
    conversation = agents.ensure_conversation(workspace=workspace, principal=by)
    return agents.start_turn(
        conversation=conversation, principal=by, text="Which orders are open?"
    )


@pytest.fixture
def signed_in(client: Client, alice) -> Client:
    client.force_login(alice)
    return client


def url_of(turn: Turn) -> str:
    return reverse("agents:trace", args=[turn.trace_id])


def test_trace_asks_strangers_to_sign_in(client, turn):
    assert client.get(url_of(turn)).status_code == 302


def test_trace_shows_message_agent_and_waterfall(signed_in, turn):
    html = signed_in.get(url_of(turn)).content.decode()

    assert "Which orders are open?" in html
    assert 'id="waterfall"' in html and "version 1" in html


def test_trace_of_another_workspace_is_not_found(client, charlie, turn):
    client.force_login(charlie)

    assert client.get(url_of(turn)).status_code == 404


def test_unknown_trace_is_not_found(signed_in, turn):
    url = reverse("agents:trace", args=[UNKNOWN_TRACE])

    assert signed_in.get(url).status_code == 404


def test_steps_stand_in_the_waterfall(signed_in, turn):
    Step.objects.create(
        turn=turn,
        seq=1,
        kind=StepKind.TOOL,
        state=StepState.FAILED,
        request={"name": "orders_lookup"},
        started_at=clock.now(),
        finished_at=clock.now(),
        error_code="tool_validation",
    )

    html = signed_in.get(url_of(turn)).content.decode()

    assert "orders_lookup" in html
    assert "tool validation" in html


def test_row_opens_its_details(signed_in, turn):
    html = signed_in.get(url_of(turn), {"row": str(turn.id)}).content.decode()

    assert 'id="step"' in html


def test_open_trace_follows_itself_and_is_quiet_when_unchanged(signed_in, turn):
    with clock.frozen(clock.now()):
        first = signed_in.get(url_of(turn), headers={"HX-Request": "true"})
        seen = first.content.decode().partition("?seen=")[2][:12]
        again = signed_in.get(
            url_of(turn), {"seen": seen}, headers={"HX-Request": "true"}
        )

    assert b"<html" not in first.content
    assert again.status_code == 204


def test_agents_are_listed_for_their_workspace_only(client, charlie, signed_in, turn):
    assert "@primary" in signed_in.get(reverse("agents:list")).content.decode()

    client.force_login(charlie)
    assert "@primary" not in client.get(reverse("agents:list")).content.decode()


def test_lane_is_switched_in_one_click_and_the_versions_differ(
    client: Client, alice: User, primary: AgentProfile
) -> None:
    client.force_login(alice)

    client.post(f"/agents/{primary.id}/lane/", {"lane": "brain", "version": "1"})

    primary.refresh_from_db()
    page = client.get(f"/agents/{primary.id}/").content.decode()
    assert (primary.lane, primary.version) == ("brain", 2)
    assert "<del>worker</del> → <ins>brain</ins>" in page


def test_lane_of_an_older_version_is_not_switched(
    client: Client, alice: User, primary: AgentProfile
) -> None:
    client.force_login(alice)

    client.post(f"/agents/{primary.id}/lane/", {"lane": "brain", "version": "7"})

    primary.refresh_from_db()
    assert (primary.lane, primary.version) == ("worker", 1)


def test_agent_of_another_workspace_is_not_shown(
    client: Client, charlie: User, primary: AgentProfile
) -> None:
    client.force_login(charlie)

    assert client.get(f"/agents/{primary.id}/").status_code == 404


def test_list_draws_who_may_hand_over(
    client: Client, alice: User, primary: AgentProfile
) -> None:
    client.force_login(alice)

    assert b"Who may hand over to whom" in client.get("/agents/").content
