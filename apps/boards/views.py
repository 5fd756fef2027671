"""Boards for people: the list, one board that lives, one task, and the home panel.

The region of cards is one fragment: polling asks for it and hears 204 while
nothing changed; a move answers with it, also when the move was refused.
"""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Principal, User
from apps.boards import forms, policies, queries, services
from apps.boards.engine import drawing
from apps.boards.errors import VersionConflict
from apps.boards.models import (
    MARKS,
    TASK_TRANSITIONS,
    WORKING,
    Board,
    Task,
    TaskStatus,
)
from apps.common import pages
from apps.common.errors import Invalid, NotFound, PolarError
from apps.common.units import whole_number
from apps.runs.models import Run

#: What a link from a run or a chat may fill in.
PREFILLED = ("title", "body", "url", "session_id", "run_id", "incident_id")
#: How many tasks the home panel names, and boards the list shows.
SHOWN = 5
MOST_BOARDS = 100
#: How much of a long talk or history the task page shows, newest last.
TALK_SHOWN = 100


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


# ---- boards -----------------------------------------------------------------


@require_GET
def board_list(request: HttpRequest) -> HttpResponse:
    return render(request, "boards/list.html", _listed(request, {}))


@require_POST
def new_board(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    said = {
        "title": request.POST.get("title", ""),
        "slug": request.POST.get("slug", ""),
    }
    try:
        workspace = access_queries.workspaces_of(principal).first()
        if workspace is None:
            raise NotFound("You belong to no workspace yet.")
        made = services.create_board(by=principal, workspace=workspace, **said)
    except PolarError as error:
        context = _listed(request, said) | {"error": error}
        status = error.http_status
        return render(request, "boards/list.html", context, status=status)
    return HttpResponseRedirect(reverse("boards:board", args=[made.id]))


@require_POST
def change_board(request: HttpRequest, board_id: UUID) -> HttpResponse:
    """Rename a board, archive it, or bring it back."""
    archived = {"archive": True, "restore": False}.get(request.POST.get("action", ""))
    try:
        services.update_board(
            by=principal_of(request),
            board_id=board_id,
            expected_version=_version(request),
            title=request.POST.get("title"),
            archived=archived,
        )
    except (VersionConflict, Invalid) as error:
        messages.error(request, f"Not changed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("boards:board", args=[board_id]))


@require_GET
def board(request: HttpRequest, board_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = queries.get_board(principal, board_id)
    context = drawing.region(request.GET, principal, found) | {
        "choices": {"who": drawing.WHO, "due": drawing.DUE},
        "agents": queries.agents(found.workspace),
        "q": drawing.text(request.GET.get("q", "")),
        "labels": [(status, drawing.LABELS[TaskStatus(status)]) for status in WORKING],
        "seen": "",
    }
    return render(request, "boards/board.html", context)


@require_GET
def live(request: HttpRequest, board_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = queries.get_board(principal, board_id)
    return pages.panel(
        request, "boards/_live.html", drawing.region(request.GET, principal, found)
    )


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    boards = list(queries.boards(principal).filter(archived_at=None)[:MOST_BOARDS])
    counts = queries.counts(principal, [each.id for each in boards])
    mine = queries.tasks(principal, queries.TaskFilter(who="mine"))
    marked = queries.tasks(principal, queries.TaskFilter(marked=True))
    waiting = mine.exclude(board_column=TaskStatus.DONE).exclude(status__in=MARKS)
    sums = {
        name: sum(each.get(name, 0) for each in counts.values())
        for name in (*WORKING, "marked")
    }
    context = {
        "boards": boards,
        "sums": sums,
        "marked": marked[:SHOWN],
        "mine": waiting.order_by("position", "id")[:SHOWN],
        "first": boards[0] if boards else None,
    }
    return pages.panel(request, "boards/_panel.html", context)


# ---- tasks ------------------------------------------------------------------


@require_GET
def new_task_anywhere(request: HttpRequest) -> HttpResponse:
    """Begin a task from a run or an answer: on the first board in use."""
    found = queries.boards(principal_of(request)).filter(archived_at=None).first()
    if found is None:
        messages.warning(request, "Make a board first; then a task can stand on it.")
        return HttpResponseRedirect(reverse("boards:list"))
    kept = QueryDict(mutable=True)
    kept.update({name: request.GET[name] for name in PREFILLED if name in request.GET})
    url = reverse("boards:new_task", args=[found.id])
    return HttpResponseRedirect(f"{url}?{kept.urlencode()}")


@require_http_methods(["GET", "POST"])
def new_task(request: HttpRequest, board_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = queries.get_board(principal, board_id)
    if request.method == "GET":
        given = {name: request.GET.get(name, "") for name in PREFILLED}
        values = {"priority": 2, "request_key": forms.new_key(), **given}
        return render(request, "boards/edit.html", _form(found, None, values))
    form = forms.TaskForm(request.POST)
    error: PolarError | None = None
    if form.is_valid():
        try:
            made = services.upsert_task(
                by=principal,
                board=found,
                draft=form.draft(),
                request_key=form.cleaned_data["request_key"],
            )
            return HttpResponseRedirect(reverse("boards:task", args=[made.id]))
        except PolarError as refused:
            error = refused
    return _form_again(request, _form(found, None, request.POST.dict()), form, error)


@require_http_methods(["GET", "POST"])
def edit_task(request: HttpRequest, task_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = queries.get_task(principal, task_id)
    if request.method == "GET":
        context = _form(found.board, found, forms.values_of(found))
        return render(request, "boards/edit.html", context)
    form = forms.TaskForm(request.POST)
    error: PolarError | None = None
    if form.is_valid():
        try:
            services.upsert_task(
                by=principal,
                board=found.board,
                draft=form.draft(),
                task_id=task_id,
                expected_version=form.cleaned_data["expected_version"],
            )
            return HttpResponseRedirect(reverse("boards:task", args=[task_id]))
        except PolarError as refused:
            error = refused
    said = request.POST.dict()
    if isinstance(error, VersionConflict):
        # The text is kept; saving again is a decision made in sight of both.
        said["expected_version"] = str(error.facts["version"])
    return _form_again(request, _form(found.board, found, said), form, error)


@require_GET
def task(request: HttpRequest, task_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = queries.get_task(principal, task_id)
    return render(request, "boards/task.html", _told(principal, found, {}))


@require_GET
def task_live(request: HttpRequest, task_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    found = queries.get_task(principal, task_id)
    return pages.panel(request, "boards/_talk.html", _told(principal, found, {}))


@require_POST
def move(request: HttpRequest, task_id: UUID) -> HttpResponse:
    """Move a card. On the board the answer is the region of cards, and a word."""
    principal = principal_of(request)
    status = request.POST.get("status", "")
    found = queries.get_task(principal, task_id)
    error: PolarError | None = None
    try:
        found = services.transition_task(
            by=principal,
            task_id=task_id,
            status=status,
            expected_version=_version(request),
            reason=request.POST.get("reason", ""),
        )
    except PolarError as refused:
        error = refused
    if pages.is_partial(request):
        context = drawing.region(request.GET, principal, found.board)
        label = drawing.LABELS.get(found.status, found.status)  # type: ignore[call-overload]
        context |= {"moved": found, "error": error, "label": label, "seen": ""}
        code = error.http_status if error else 200
        return render(request, "boards/_moved.html", context, status=code)
    return _back(request, found, error, "Not moved")


@require_POST
def comment(request: HttpRequest, task_id: UUID) -> HttpResponse:
    error: PolarError | None = None
    try:
        services.comment_on_task(
            by=principal_of(request),
            task_id=task_id,
            text=request.POST.get("text", ""),
            key=request.POST.get("key", ""),
        )
    except Invalid as refused:
        error = refused
    found = queries.get_task(principal_of(request), task_id)
    return _back(request, found, error, "Not said")


@require_POST
def start(request: HttpRequest, task_id: UUID) -> HttpResponse:
    """Ask the assigned agent again."""
    principal = principal_of(request)
    found = queries.get_task(principal, task_id)
    error: PolarError | None = None
    try:
        services.start_task(
            by=principal, task_id=task_id, expected_version=_version(request)
        )
    except PolarError as refused:
        error = refused
    return _back(request, found, error, "Not asked")


@require_POST
def revalidate(request: HttpRequest, task_id: UUID) -> HttpResponse:
    """Say that a stale task still holds."""
    principal = principal_of(request)
    found = queries.get_task(principal, task_id)
    error: PolarError | None = None
    try:
        services.revalidate_task(
            by=principal,
            task_id=task_id,
            reason=request.POST.get("reason", ""),
            expected_version=_version(request),
        )
    except PolarError as refused:
        error = refused
    return _back(request, found, error, "Not checked")


# ---- what the templates are given ---------------------------------------------


def _listed(request: HttpRequest, said: dict[str, str]) -> dict[str, Any]:
    principal = principal_of(request)
    resting = request.GET.get("archived") == "1"
    found = queries.boards(principal).filter(archived_at__isnull=not resting)
    boards = list(found[:MOST_BOARDS])
    counts = queries.counts(principal, [each.id for each in boards])
    rows = [(each, counts[each.id]) for each in boards]
    return {
        "rows": rows,
        "resting": resting,
        "said": said,
        "may_write": _may(principal),
    }


def _may(principal: Principal) -> bool:
    workspace = access_queries.workspaces_of(principal).first()
    return workspace is not None and policies.can_write(principal, workspace)


def _told(principal: Principal, found: Task, said: dict[str, Any]) -> dict[str, Any]:
    """One task with its talk, its history and what can be done about it."""
    talk = queries.task_comments(principal, found.id).reverse()[:TALK_SHOWN]
    told = queries.task_events(principal, found.id).reverse()[:TALK_SHOWN]
    run = Run.objects.visible_to(principal).filter(id=found.run_id).first()
    open_board = found.board.archived_at is None
    moves = TASK_TRANSITIONS.table[found.status]
    is_marked = found.status in MARKS
    return {
        "card": drawing.draw(found, {run.id: run} if run else {}),
        "task": found,
        "talk": list(talk)[::-1],
        "history": [(event, queries.in_words(event)) for event in told],
        "moves": [
            (status, drawing.LABELS[TaskStatus(status)])
            for status in (WORKING[:1] if is_marked else WORKING)
            if status in moves
        ],
        "label": drawing.LABELS[TaskStatus(found.board_column)],
        "may_write": open_board and policies.can_write(principal, found.workspace),
        "may_start": found.assignee_profile_id is not None
        and found.turn_id is None
        and not is_marked
        and found.status != TaskStatus.DONE,
        "key": forms.new_key(),
        "said": said,
    }


def _form(found: Board, task: Task | None, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "board": found,
        "task": task,
        "values": {name: value or "" for name, value in values.items()}
        | {"priority": str(values.get("priority", task.priority if task else 2))},
        "priorities": [(str(key), label) for key, label in forms.PRIORITIES],
        "assignees": forms.assignee_choices(found.workspace, task),
    }


def _form_again(
    request: HttpRequest,
    context: dict[str, Any],
    form: forms.TaskForm,
    error: PolarError | None,
) -> HttpResponse:
    """Show the form with what was typed, and what is wrong beside each field."""
    problems = {name: " ".join(map(str, texts)) for name, texts in form.errors.items()}
    for field in error.fields if error else ():
        name = forms.FORM_NAME.get(field.path, field.path)
        problems[name] = f"{field.problem}; expected {field.expected}"
    context |= {"error": error, "problems": problems}
    if isinstance(error, VersionConflict) and context["task"] is not None:
        context["differences"] = _differences(context["task"], form)
    status = error.http_status if error else Invalid.http_status
    return render(request, "boards/edit.html", context, status=status)


def _differences(task: Task, form: forms.TaskForm) -> list[tuple[str, str, str]]:
    """Shape: (field, what it says now, what was typed), where the two differ."""
    task.refresh_from_db()
    now, typed = forms.values_of(task), form.cleaned_data
    names = ("title", "body", "priority", "due_date", "assignee", "url", *forms.LINKS)
    return [
        (name.replace("_", " "), str(now.get(name) or ""), str(typed.get(name) or ""))
        for name in names
        if (now.get(name, task.priority) or "") != (typed.get(name) or "")
    ]


def _back(
    request: HttpRequest, found: Task, error: PolarError | None, head: str
) -> HttpResponse:
    """Go back to the task, or show it with why not and with what was typed."""
    if error is None:
        return HttpResponseRedirect(reverse("boards:task", args=[found.id]))
    principal = principal_of(request)
    found = queries.get_task(principal, found.id)
    said = {name: request.POST.get(name, "") for name in ("reason", "text")}
    context = _told(principal, found, said) | {"error": error, "head": head}
    return render(request, "boards/task.html", context, status=error.http_status)


def _version(request: HttpRequest) -> int:
    text = request.POST.get("expected_version", "")
    return whole_number(text) or 0
