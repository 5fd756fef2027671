"""Agents are changed on a page, over the API and from a shell, all the same way."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from apps.agents import services as agents
from apps.agents.forms import DeskForm
from apps.agents.models import AgentProfile, Conversation, ProfilePin, ProfileVersion
from tests import people
from tests.agents.test_api import client_of
from tests.providers import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client: Client, alice: User) -> Client:
    client.force_login(alice)
    return client


def typed(profile: AgentProfile, **changes: Any) -> dict[str, Any]:
    """Every field of the form as it was opened, some of them changed."""
    form = DeskForm(profile)
    values = {f.html_name: f.value() for f in form}
    kept = {n: v for n, v in values.items() if v is not None and v is not False}
    return {**kept, **changes}


def edit(client: Client, profile: AgentProfile, **changes: Any) -> Any:
    body = typed(profile, **changes)
    return client.post(f"/agents/{profile.id}/edit/", body)


def test_saving_without_a_change_makes_no_version(
    signed_in: Client, primary: AgentProfile
) -> None:
    edit(signed_in, primary)

    primary.refresh_from_db()
    assert primary.version == 1


def test_a_change_on_the_page_serves_the_next_turn(
    signed_in: Client,
    primary: AgentProfile,
    conversation: Conversation,
    operator: Principal,
) -> None:
    model = builders.route("brain", "one", "http://127.0.0.1:9/v1").model
    edit(
        signed_in,
        primary,
        lane="brain",
        pinned_model=str(model.pk),
        fallbacks="one/fake-1\ntwo",
        lane_heartbeat="worker",
        lane_hard="own",
        turn_budget="0.25",
        planAbove="70",
        weight_write="30",
        allowed_handoff_targets=["writer"],
    )
    turn = agents.start_turn(conversation=conversation, principal=operator, text="a")

    primary.refresh_from_db()
    assert primary.version == 2
    assert primary.fallbacks == [
        {"provider": "one", "model": "fake-1"},
        {"provider": "two", "model": ""},
    ]
    assert primary.lane_policy == {"heartbeat": "worker", "hard": ""}
    assert primary.routing == {"planAbove": 70, "weights": {"write": 30}}
    assert (turn.requested_lane, turn.budget_micros) == ("brain", 250_000)
    assert (turn.profile_version, primary.pinned_model) == (2, model)
    assert primary.allowed_handoff_targets == ["writer"]


def test_an_old_version_is_told_and_what_was_written_stays(
    signed_in: Client, primary: AgentProfile
) -> None:
    body = typed(primary, title="Mine")
    edit(signed_in, primary, title="Theirs")
    answer = signed_in.post(f"/agents/{primary.id}/edit/", body)

    primary.refresh_from_db()
    assert (answer.status_code, primary.title) == (409, "Theirs")
    assert 'value="Mine"' in answer.content.decode()


def test_a_field_of_the_wrong_shape_is_named(
    signed_in: Client, primary: AgentProfile
) -> None:
    answer = edit(signed_in, primary, max_turns="many")

    assert answer.status_code == 422
    assert "max_turns: Enter a whole number" in answer.content.decode()


def test_a_reader_may_not_save(
    client: Client, primary: AgentProfile, workspace: Workspace
) -> None:
    client.force_login(people.person("vera", Role.VIEWER, workspace))
    answer = edit(client, primary, title="Mine")

    assert answer.status_code == 403
    assert ProfileVersion.objects.filter(profile=primary).count() == 1


def test_an_agent_of_another_workspace_is_not_found(
    client: Client, charlie: User, primary: AgentProfile
) -> None:
    client.force_login(charlie)

    assert client.get(f"/agents/{primary.id}/edit/").status_code == 404


def test_a_new_agent_is_named_and_described(
    signed_in: Client, primary: AgentProfile
) -> None:
    asked = signed_in.get("/agents/new/?slug=night-watch")
    draft = AgentProfile(workspace=primary.workspace, slug="night-watch", version=0)
    body = typed(draft, title="Night watch")
    answer = signed_in.post("/agents/new/?slug=night-watch", body)
    again = signed_in.get("/agents/new/?slug=night-watch")

    made = AgentProfile.objects.get(slug="night-watch")
    assert (asked.status_code, answer.status_code) == (200, 302)
    assert (made.title, made.version, again.status_code) == ("Night watch", 1, 409)
    assert "2 to 32" in signed_in.get("/agents/new/?slug=N!").content.decode()


def test_pins_are_set_shown_and_taken_away(
    signed_in: Client, primary: AgentProfile, operator: Principal
) -> None:
    pin = {"scope": "user", "agent": "writer", "do": "pin"}
    signed_in.post("/agents/pins/change/", pin)
    page = signed_in.get("/agents/pins/").content.decode()
    held = ProfilePin.objects.get()
    signed_in.post(
        "/agents/pins/change/", {"scope": "user", "key": held.key, "do": "unpin"}
    )

    assert (held.profile_slug, held.key) == ("writer", str(operator.id))
    assert "@writer answers you, by the user pin" in page
    assert not ProfilePin.objects.exists()


def test_a_pin_for_everybody_is_an_administrators(
    signed_in: Client, primary: AgentProfile
) -> None:
    body = {"scope": "global", "agent": "writer", "do": "pin"}
    answer = signed_in.post("/agents/pins/change/", body, follow=True)

    assert "Not changed" in answer.content.decode()
    assert not ProfilePin.objects.exists()


def test_a_broken_pin_is_said_on_the_page(
    signed_in: Client, primary: AgentProfile
) -> None:
    signed_in.post(
        "/agents/pins/change/", {"scope": "user", "agent": "writer", "do": "pin"}
    )
    AgentProfile.objects.filter(slug="writer").update(is_active=False)

    assert "missing or inactive" in signed_in.get("/agents/pins/").content.decode()


@pytest.mark.parametrize("path", ["/agents/", "/agents/pins/"])
def test_lists_ask_the_database_a_fixed_number_of_times(
    signed_in: Client,
    primary: AgentProfile,
    path: str,
    django_assert_max_num_queries: Any,
) -> None:
    with django_assert_max_num_queries(22):
        signed_in.get(path)


def test_the_answer_changes_what_it_is_told_and_no_more(
    operator: Principal, primary: AgentProfile
) -> None:
    client = client_of(operator, "agents:write")
    builders.route("brain", "one", "http://127.0.0.1:9/v1")
    body = {
        "expectedVersion": 1,
        "pinnedModel": "one/fake-1",
        "fallbackProviderIds": [{"provider": "one"}],
        "lanePolicy": {"schedule": "local"},
        "turnBudgetMicros": 5,
    }
    json_ = "application/json"
    saved = client.put("/api/v1/profiles/primary", body, json_)
    again = client.put("/api/v1/profiles/primary", body, json_)

    said = saved.json()
    assert (saved.status_code, said["version"], said["title"]) == (200, 2, "Primary")
    assert (said["pinnedModel"], said["turnBudgetMicros"]) == ("one/fake-1", 5)
    assert said["lanePolicy"] == {"schedule": "local"}
    assert again.status_code == 409


def test_the_answer_lists_pins(operator: Principal, primary: AgentProfile) -> None:
    agents.pin(by=access.system_principal(), scope="global", key="", profile=primary)
    answer = client_of(operator, "agents:read").get("/api/v1/profile-pins")

    assert [row["agent"] for row in answer.json()] == ["primary"]


def test_the_command_shows_sets_and_pins(primary: AgentProfile) -> None:
    def run(*words: str) -> Any:
        out = StringIO()
        call_command("agents", *words, "--json", stdout=out)
        return json.loads(out.getvalue())

    assert run("lane", "writer", "brain")["lane"] == "brain"
    changed = run("set", "writer", "max_turns=3", 'lane_policy={"hard": ""}')
    assert (changed["max_turns"], changed["version"]) == (3, 3)
    assert run("pin", "workspace", "writer")[0]["agent"] == "writer"
    assert run("unpin", "workspace") == []
    assert "primary" in [row["slug"] for row in run("list")]
    with pytest.raises(CommandError, match="no such field"):
        run("set", "writer", "wings=2")
