"""A board, a task, an agent to give it to, and people to move it."""

import pytest

from apps.access import services as access
from apps.agents import services as agents
from apps.agents.models import AgentProfile
from apps.boards import services
from apps.boards.models import Board, Task


@pytest.fixture
def board(workspace) -> Board:
    return services.ensure_board(
        by=access.system_principal(), workspace=workspace, slug="default", title="Tasks"
    )


@pytest.fixture
def task(board, rob) -> Task:
    draft = services.TaskDraft(title="Water the plants")
    return services.upsert_task(by=rob, board=board, draft=draft)


@pytest.fixture
def writer(workspace) -> AgentProfile:
    agents.install_default_profiles(workspace=workspace, by=access.system_principal())
    return AgentProfile.objects.get(workspace=workspace, slug="writer")


@pytest.fixture
def signed_in(client, alice):
    client.force_login(alice)
    return client
