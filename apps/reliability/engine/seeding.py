"""The first rows of a fresh install: definitions only, no runs and no usage.

Invariant: what exists is left alone, so seeding again changes nothing and never
makes a second password.
"""

import secrets
from dataclasses import dataclass, field

from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from apps.agents import services as agents
from apps.boards import services as boards
from apps.boards.models import Board
from apps.channels import services as channels
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.reliability.engine import starter
from apps.runs import services as runs
from apps.runs.models import Schedule

OPERATOR = "operator"
BOARD_TITLE = "First steps"
#: What a person new to Polar may want to try, in this order.
FIRST_TASKS = (
    (
        "Talk to @primary",
        "Open Chat and ask what time it is: a tool call, with a trace.",
    ),
    ("Add a model provider", "Put a key into .env, or run Ollama, and restart."),
    ("Stop everything once", "Press Halt in the header, look, and resume."),
    ("Back up POLAR_VAULT_KEY", "Without it stored provider keys cannot be opened."),
)
SCHEDULE = "morning-note"


@dataclass(frozen=True, slots=True)
class Seeded:
    """Who may sign in; the password only when it was made just now."""

    username: str
    password: str = field(default="", repr=False)


def seed() -> Seeded:
    """Make what a fresh install needs.   Again: adds only what is missing."""
    workspace = access.ensure_default_workspace()
    system = access.system_principal()
    seeded = first_operator(system, workspace)
    gateway.install_shipped_grants(by=system)
    agents.install_default_profiles(by=system, workspace=workspace)
    extensions.sync_shipped_plugin()
    providers.sync_from_env()
    channels.open_web_account(by=system, workspace=workspace)
    first_board(system, workspace)
    first_schedule(system, workspace)
    return seeded


def first_operator(system: Principal, workspace: Workspace) -> Seeded:
    if User.objects.filter(is_active=True).exists():
        return Seeded(OPERATOR)
    password = secrets.token_urlsafe(12)
    new = access.NewUser(OPERATOR, password, Role.ADMIN, workspace)
    access.create_user(by=system, new=new)
    return Seeded(OPERATOR, password)


def first_board(system: Principal, workspace: Workspace) -> None:
    if Board.objects.filter(workspace=workspace).exists():
        return
    board = boards.ensure_board(
        by=system, workspace=workspace, slug="first-steps", title=BOARD_TITLE
    )
    for title, body in FIRST_TASKS:
        boards.upsert_task(
            by=system, board=board, draft=boards.TaskDraft(title=title, body=body)
        )


def first_schedule(system: Principal, workspace: Workspace) -> None:
    if Schedule.objects.filter(workspace=workspace, slug=SCHEDULE).exists():
        return
    automation = access.principal_for_automation(
        key=SCHEDULE, label="Morning note", workspace=workspace
    )
    runs.create_schedule(
        by=system,
        principal=automation,
        workspace=workspace,
        slug=SCHEDULE,
        when=("cron", "0 8 * * *"),
        run_kind=starter.KIND,
        title="Morning note",
        payload={"profile": "primary", "text": "What is planned for today?"},
    )
