"""What a task may say. Problems are collected, so that all are named at once."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from apps.access.models import User, Workspace
from apps.agents.models import AgentProfile
from apps.boards.models import AssigneeKind
from apps.common.errors import FieldProblem, Invalid

MOST_TITLE_CHARACTERS = 200
MOST_BODY_CHARACTERS = 20_000
MOST_URL_CHARACTERS = 500
MOST_AGENT_CHARACTERS = 40
HIGHEST_PRIORITY = 3
NUL = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDraft:
    """What a task says. A change replaces all of it. Priority 0 is most urgent."""

    title: str
    body: str = ""
    priority: int = 1
    due_date: date | None = None
    assignee_kind: str = ""
    assignee_user_id: UUID | None = None
    assignee_agent: str = ""
    assignee_profile_id: UUID | None = None
    session_id: UUID | None = None
    run_id: UUID | None = None
    incident_id: UUID | None = None
    url: str = ""

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}


#: What `upsert_task` writes; a status is not among them.
FIELDS = tuple(TaskDraft.__slots__)


def check(draft: TaskDraft, workspace: Workspace) -> None:
    """Refuse what cannot be kept. Raises: Invalid, naming every field."""
    problems = [
        *_text_problems(draft),
        *_url_problems(draft.url),
        *_assignee_problems(draft, workspace),
    ]
    if not 0 <= draft.priority <= HIGHEST_PRIORITY:
        problems.append(FieldProblem("priority", "out of range", "0 to 3"))
    if problems:
        raise Invalid("This task cannot be kept so.", fields=tuple(problems))


def _text_problems(draft: TaskDraft) -> list[FieldProblem]:
    problems = []
    if not draft.title.strip() or len(draft.title) > MOST_TITLE_CHARACTERS:
        expected = f"1 to {MOST_TITLE_CHARACTERS} characters"
        problems.append(FieldProblem("title", "empty or too long", expected))
    if len(draft.body) > MOST_BODY_CHARACTERS:
        expected = f"at most {MOST_BODY_CHARACTERS} characters"
        problems.append(FieldProblem("body", "too long", expected))
    return problems + [
        FieldProblem(name, "holds U+0000", "text")
        for name in ("title", "body", "url", "assignee_agent")
        if NUL in getattr(draft, name)
    ]


def _url_problems(url: str) -> list[FieldProblem]:
    """Only web addresses: another scheme would run in the reader's browser."""
    if not url:
        return []
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme in ("http", "https") and parts.netloc and " " not in url:
        if len(url) <= MOST_URL_CHARACTERS:
            return []
        expected = f"at most {MOST_URL_CHARACTERS} characters"
        return [FieldProblem("url", "too long", expected)]
    return [FieldProblem("url", "not a web address", "https://…")]


def _assignee_problems(draft: TaskDraft, workspace: Workspace) -> list[FieldProblem]:
    """Exactly the named kind of assignee is set, and it belongs here."""
    given = {
        AssigneeKind.USER.value: draft.assignee_user_id,
        AssigneeKind.AGENT.value: draft.assignee_agent,
        AssigneeKind.AGENT_PROFILE.value: draft.assignee_profile_id,
    }
    if draft.assignee_kind and draft.assignee_kind not in given:
        return [FieldProblem("assigneeKind", "unknown", ", ".join(given))]
    kinds = [kind for kind, value in given.items() if value]
    if kinds != ([draft.assignee_kind] if draft.assignee_kind else []):
        expected = "exactly the assignee that assigneeKind names"
        return [FieldProblem("assigneeKind", "does not fit", expected)]
    if _is_known(draft, workspace):
        return []
    return [FieldProblem("assigneeId", "unknown here", "a member or a profile")]


def _is_known(draft: TaskDraft, workspace: Workspace) -> bool:
    if draft.assignee_user_id is not None:
        members = User.objects.filter(memberships__workspace=workspace)
        return members.filter(id=draft.assignee_user_id).exists()
    if draft.assignee_profile_id is not None:
        profiles = AgentProfile.objects.filter(workspace=workspace)
        return profiles.filter(id=draft.assignee_profile_id).exists()
    return len(draft.assignee_agent) <= MOST_AGENT_CHARACTERS
