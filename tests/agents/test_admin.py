"""Profiles in the admin: saved through the service, against one version."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.access.models import Role, User, Workspace
from apps.agents.models import AgentProfile, Turn
from tests import people


@pytest.fixture
def admin(workspace: Workspace) -> User:
    return people.person("root", Role.ADMIN, workspace)


@pytest.fixture
def client(admin: User) -> Client:
    client = Client()
    client.force_login(admin)
    return client


def form_of(profile: AgentProfile, **changes: Any) -> dict[str, Any]:
    names = ("title", "description", "system_prompt", "lane", "safety_mode")
    numbers = ("max_tool_calls", "max_turns", "max_depth")
    sizes = ("context_window_tokens", "max_output_tokens")
    form = {name: getattr(profile, name) for name in (*names, *numbers, *sizes)}
    lists = {
        "fallbacks": "[]",
        "allowed_capabilities": '["polar/*"]',
        "allowed_handoff_targets": '["researcher", "writer", "coder"]',
    }
    return {
        **form,
        **lists,
        "is_active": "on",
        "expected_version": profile.version,
        **changes,
    }


def post(client: Client, profile: AgentProfile, **changes: Any) -> AgentProfile:
    url = reverse("admin:agents_agentprofile_change", args=[profile.id])
    response = client.post(url, form_of(profile, **changes))
    assert response.status_code == 302, response.context["errors"]
    return AgentProfile.objects.get(id=profile.id)


def test_profile_saved_in_the_admin_is_a_new_version(
    client: Client, primary: AgentProfile
) -> None:
    saved = post(client, primary, lane="brain")

    assert (saved.lane, saved.version) == ("brain", 2)


def test_profile_opened_before_another_save_is_refused(
    client: Client, primary: AgentProfile
) -> None:
    post(client, primary, lane="brain")

    saved = post(client, primary, lane="local")

    assert (saved.lane, saved.version) == ("brain", 2)


@pytest.mark.parametrize(
    "name",
    ["agentprofile", "profileversion", "profilepin", "conversation", "turn", "step"],
)
def test_list_opens(client: Client, turn: Turn, name: str) -> None:
    response = client.get(reverse(f"admin:agents_{name}_changelist"))

    assert response.status_code == 200
