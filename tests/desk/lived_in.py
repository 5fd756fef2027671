"""A store that has been lived in: one of everything an operator may look at.

Hides: how each thing comes to be. All of it goes through the services, so that no
page is shown a row that the product itself would never have written.
"""

import contextlib
from dataclasses import dataclass

from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace
from apps.agents import services as agents
from apps.agents.engine import memory
from apps.agents.models import Conversation
from apps.audit import services as audit
from apps.boards import services as boards
from apps.boards.models import Board
from apps.common import ids
from apps.common.errors import ApprovalRequired, Denied
from apps.extensions import services as extensions
from apps.gateway import services as gateway
from apps.gateway.ports import CallKind, CallRequest, Lineage, Permit, Result, Risk
from apps.reliability import services as reliability
from apps.reliability.engine import seeding
from apps.reliability.engine.alerts import Finding
from apps.reliability.services.incidents import NewIncident
from apps.runs import services as runs
from apps.runs.models import Run, State
from apps.vault import services as vault
from tests import people

SKILL = b"""---
name: invoices
description: Read invoices and add them up.
---
# Invoices
Run scripts/add.py with the numbers.
"""
#: Stored in the vault; no page may ever show it.
CANARY = "canary-5f1d-kept-in-the-vault"
QUESTIONS = (
    "What time is it?",
    "What is 17 * 23?",
    "Research and write about polar bears.",
)
WEEKLY = {
    "kind": "cron",
    "expression": "0 9 * * 1",
    "timezone": "Europe/Berlin",
    "title": "Weekly look",
    "run_kind": "agents.automation",
    "payload": {"profile": "primary", "text": "What happened last week?"},
}


@dataclass(frozen=True)
class Home:
    """Who lives there and where."""

    workspace: Workspace
    system: Principal
    ada: User
    bob: User

    @property
    def me(self) -> Principal:
        return access.principal_for_user(user=self.ada)


def furnish() -> Home:
    """Make one of everything.   Writes: most tables. Once per store."""
    seeding.seed()
    workspace, system = access.ensure_default_workspace(), access.system_principal()
    home = Home(
        workspace,
        system,
        people.person("ada", Role.ADMIN, workspace),
        people.person("bob", Role.APPROVER, workspace),
    )
    reliability.install_schedule(workspace=workspace)
    reliability.install_weekly_breach(workspace=workspace)
    conversation = converse(home)
    leave_work(home)
    ask_for_approval(home)
    fill_fleet(home)
    remember(home, conversation)
    raise_alarm(home)
    audit.seal_all()
    return home


def converse(home: Home) -> Conversation:
    """Ask a few things and carry them to their answers."""
    conversation = agents.start_conversation(
        workspace=home.workspace, principal=home.me, title="A first talk"
    )
    for text in QUESTIONS:
        agents.start_turn(
            conversation=conversation, principal=home.me, text=text, trigger="message"
        )
        carry_all()
    return conversation


def carry_all() -> None:
    while due := Run.objects.filter(state=State.QUEUED).in_line().first():
        runs.execute(due.id)


def leave_work(home: Home) -> None:
    """A dead letter, a board with cards in each column, a proposal."""
    lost = runs.enqueue(
        kind="agents.turn",
        payload={"turn": str(ids.new_id())},
        principal=home.system,
        workspace=home.workspace,
    )
    runs.dead_letter(by=home.system.actor, run_id=lost.id, reason="poison")
    board = Board.objects.get()
    for title, status in (("Reply to Ann", "in_progress"), ("Pay rent", "blocked")):
        draft = boards.TaskDraft(title=title, body="As agreed on the phone.")
        task = boards.upsert_task(by=home.me, board=board, draft=draft)
        boards.transition_task(
            by=home.me, task_id=task.id, status=status, expected_version=task.version
        )
        boards.comment_on_task(by=home.me, task_id=task.id, text="Looked at it.")
    runs.propose_automation(
        by=home.system,
        workspace=home.workspace,
        agent="primary",
        slug="weekly-look",
        body=WEEKLY,
    )


def ask_for_approval(home: Home) -> None:
    """One outside write waits for a person; another was never in its scope."""
    with contextlib.suppress(ApprovalRequired):
        gateway.call(letter(home, ["send"]))
    with contextlib.suppress(Denied):
        gateway.call(letter(home, ["read"]))


def letter(home: Home, allowed: list[str]) -> CallRequest:
    arguments = {"to": ["ann@example.org"], "text": "The invoice is paid."}
    run_id = ids.new_id()

    def perform(permit: Permit) -> Result:
        permit.spend(arguments)
        return Result({"ok": True})

    return CallRequest(
        kind=CallKind.TOOL,
        capability="mail/send",
        principal=people.agent("writer", home.workspace),
        workspace_id=home.workspace.id,
        arguments=arguments,
        perform=perform,
        risk=Risk("write", side_effects="external"),
        lineage=Lineage(
            run_id=run_id, root_id=run_id, agent="writer", trace_id=ids.new_trace_id()
        ),
        scope={"allowed": {"mail": allowed}},
    )


def fill_fleet(home: Home) -> None:
    """A skill to review, a secret, a budget, a grant, a token."""
    extensions.install_skill(
        by=home.me,
        files={"SKILL.md": SKILL, "scripts/add.py": b"print(1)\n"},
        origin=extensions.Origin(source="https://example.org/invoices", revision="abc"),
    )
    vault.put(by=home.me.actor, name="Mail password", purpose="extension", value=CANARY)
    wanted = gateway.BudgetWanted(scope="workspace", limit=5_000_000)
    gateway.save_budget(by=home.me, wanted=wanted)
    grant = gateway.NewGrant(
        kind=CallKind.TOOL, capabilities=("mail/read",), reason="Reads mail daily"
    )
    gateway.make_grant(by=home.me, new=grant)


def remember(home: Home, conversation: Conversation) -> None:
    origin = memory.Origin(by=home.me, workspace_id=home.workspace.id, agent="primary")
    memory.remember(
        origin=origin,
        text="Ann likes short letters.",
        scope="session",
        key=str(conversation.id),
    )


def raise_alarm(home: Home) -> None:
    """An alert with its incident, an incident by hand, a halt, a drill asked for."""
    reliability.alerts.note(
        Finding("PROVIDER_BLACKOUT", "critical", "No remote route answers.")
    )
    new = NewIncident("The mail tool writes twice", "S3", "Ann had two letters.")
    reliability.open_incident(by=home.me, new=new)
    gateway.halt(by=home.me, scope="agent:writer", reason="It writes too much.")
    reliability.start_drill(by=home.me, slug="blackout")
