"""Task and board forms: what a person types, parsed; the services judge it."""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms

from apps.access.models import Workspace
from apps.boards import queries
from apps.boards.models import AssigneeKind, Board, Task
from apps.boards.services import TaskDraft
from apps.common import ids

PRIORITIES = [(0, "P0, now"), (1, "P1, soon"), (2, "P2, usual"), (3, "P3, some day")]
#: The names of the draft's fields where the form's differ.
FORM_NAME = {
    "assigneeKind": "assignee",
    "assigneeId": "assignee",
    "dueDate": "due_date",
}

PLAIN = (
    "title",
    "body",
    "priority",
    "due_date",
    "assignee_kind",
    "assignee_agent",
    "url",
)
LINKS = ("session_id", "run_id", "incident_id")
ADMIN_FIELDS = (*PLAIN, "assignee_user", "assignee_profile", *LINKS)

if TYPE_CHECKING:
    _BoardForm = forms.ModelForm[Board]
    _TaskForm = forms.ModelForm[Task]
else:
    _BoardForm = _TaskForm = forms.ModelForm


class TaskForm(forms.Form):
    """What a task says. `assignee` is `user:<id>`, `profile:<id>` or `agent:<name>`."""

    title = forms.CharField(max_length=200)
    body = forms.CharField(required=False, max_length=20_000, strip=False)
    priority = forms.TypedChoiceField(choices=PRIORITIES, coerce=int, initial=2)
    due_date = forms.DateField(required=False)
    assignee = forms.CharField(required=False, max_length=80)
    url = forms.CharField(required=False, max_length=500)
    session_id = forms.UUIDField(required=False)
    run_id = forms.UUIDField(required=False)
    incident_id = forms.UUIDField(required=False)
    expected_version = forms.IntegerField(required=False, min_value=1)
    request_key = forms.CharField(required=False, max_length=60)

    def draft(self) -> TaskDraft:
        """Return what was typed. Raises: ValueError for an assignee of no kind."""
        data = self.cleaned_data
        kind, _, given = data["assignee"].partition(":")
        return TaskDraft(
            title=data["title"],
            body=data["body"],
            priority=data["priority"],
            due_date=data["due_date"],
            url=data["url"],
            session_id=data["session_id"],
            run_id=data["run_id"],
            incident_id=data["incident_id"],
            **_assignee(kind, given),
        )

    def clean_assignee(self) -> str:
        value: str = self.cleaned_data["assignee"]
        kind, _, given = value.partition(":")
        try:
            _assignee(kind, given)
        except ValueError as error:
            raise forms.ValidationError("Choose somebody from the list.") from error
        return value


def _assignee(kind: str, given: str) -> dict[str, Any]:
    if kind == "user":
        return {"assignee_kind": AssigneeKind.USER, "assignee_user_id": UUID(given)}
    if kind == "profile":
        profile = AssigneeKind.AGENT_PROFILE
        return {"assignee_kind": profile, "assignee_profile_id": UUID(given)}
    if kind == "agent" and given:
        return {"assignee_kind": AssigneeKind.AGENT, "assignee_agent": given}
    if kind:
        raise ValueError(kind)
    return {}


def assignee_value(task: Task) -> str:
    """Return an assignee as the form's choice says it."""
    if task.assignee_user_id:
        return f"user:{task.assignee_user_id}"
    if task.assignee_profile_id:
        return f"profile:{task.assignee_profile_id}"
    return f"agent:{task.assignee_agent}" if task.assignee_agent else ""


def assignee_choices(workspace: Workspace, task: Task | None) -> list[tuple[str, str]]:
    """Offer nobody, the people, and the agents; a named outside agent stays."""
    choices = [("", "Nobody yet")]
    choices += [
        (f"user:{user.id}", user.username) for user in queries.people(workspace)
    ]
    choices += [
        (f"profile:{profile.id}", f"@{profile.slug}, starts at once")
        for profile in queries.agents(workspace)
    ]
    held = assignee_value(task) if task is not None else ""
    if held and held not in dict(choices):
        choices.append((held, held.partition(":")[2]))
    return choices


def values_of(task: Task) -> dict[str, Any]:
    """Return a task as the form shows it."""
    names = ("title", "body", "priority", "url", "session_id", "run_id", "incident_id")
    return {name: getattr(task, name) for name in names} | {
        "due_date": task.due_date,
        "assignee": assignee_value(task),
        "expected_version": task.version,
    }


def new_key() -> str:
    """Return what makes a second click of the same form no second task."""
    return ids.new_id().hex


class BoardAdminForm(_BoardForm):
    """A board in the admin, with the version that was read."""

    expected_version = forms.IntegerField(
        widget=forms.HiddenInput, required=False, min_value=0
    )
    archived = forms.BooleanField(required=False)

    class Meta:
        model = Board
        fields = ("workspace", "slug", "title")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        is_new = self.instance._state.adding
        self.fields["expected_version"].initial = 0 if is_new else self.instance.version
        self.fields["archived"].initial = self.instance.archived_at is not None


class TaskAdminForm(_TaskForm):
    """A task in the admin, with the version that was read."""

    expected_version = forms.IntegerField(
        widget=forms.HiddenInput, required=False, min_value=0
    )

    class Meta:
        model = Task
        fields = ("board", *ADMIN_FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        is_new = self.instance._state.adding
        self.fields["expected_version"].initial = 0 if is_new else self.instance.version

    def draft(self) -> TaskDraft:
        data = self.cleaned_data
        user, profile = data["assignee_user"], data["assignee_profile"]
        links = {name: data[name] for name in LINKS}
        plain = {name: data[name] for name in PLAIN}
        return TaskDraft(
            **plain,
            **links,
            assignee_user_id=user.id if user else None,
            assignee_profile_id=profile.id if profile else None,
        )
