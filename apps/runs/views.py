"""Runs for people: the list, the dead letters, one run, and the home panel."""

import re
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import services as access
from apps.access.models import Principal, User
from apps.common import pages
from apps.common.errors import PolarError
from apps.runs import queries, services
from apps.runs.models import CANCELLABLE, SETTLED, WAITING, Run, RunQuerySet, State

#: What the filter offers, each a set of states.
GROUPS = {
    "in-flight": (State.QUEUED, State.RUNNING),
    "waiting": WAITING,
    "failed": (State.FAILED, State.TRUNCATED),
    "succeeded": (State.SUCCEEDED,),
    "ended": (State.CANCELLED, State.DISMISSED),
}
#: How many runs the home panel shows.
SHOWN = 5
TRACE = re.compile(r"\A[0-9a-f]{32}\Z")


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@require_GET
def run_list(request: HttpRequest) -> HttpResponse:
    group = request.GET.get("state", "")
    runs = _visible(request)
    if group in GROUPS:
        runs = runs.filter(state__in=GROUPS[group])
    if kind := request.GET.get("kind", ""):
        runs = runs.filter(kind=kind)
    context = {
        "page": pages.keyset(runs, request.GET),
        "group": group,
        "kind": kind,
        "groups": list(GROUPS),
    }
    return render(request, "runs/list.html", context)


@require_GET
def dead_letters(request: HttpRequest) -> HttpResponse:
    page = pages.keyset(_visible(request).dead_letters(), request.GET)
    return render(request, "runs/dead_letters.html", {"page": page})


@require_GET
def detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = queries.get_run(run_id, principal=principal_of(request))
    context = {
        "run": run,
        "may_cancel": run.state in CANCELLABLE,
        "is_dead": run.state == State.DEAD_LETTER,
        "children": run.children.order_by("id")[: pages.PAGE_SIZE],
    }
    return render(request, "runs/detail.html", context)


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    counts = queries.count_by_state(principal=principal)
    open_runs = Run.objects.visible_to(principal).exclude(state__in=SETTLED)
    context = {
        "in_flight": sum(counts.get(state, 0) for state in GROUPS["in-flight"]),
        "waiting": sum(counts.get(state, 0) for state in WAITING),
        "dead": counts.get(State.DEAD_LETTER, 0),
        "runs": open_runs.order_by("-id")[:SHOWN],
        "workers": len(queries.live_workers()),
    }
    return pages.panel(request, "runs/_panel.html", context)


@require_GET
def find(request: HttpRequest) -> HttpResponse:
    """Go to the trace or run that the search box names."""
    text = request.GET.get("q", "").strip().lower()
    if TRACE.match(text.replace("-", "")):
        compact = text.replace("-", "")
        run = _visible(request).filter(id=UUID(compact)).first()
        trace_id = run.trace_id if run is not None else compact
        return HttpResponseRedirect(reverse("agents:trace", args=[trace_id]))
    if re.fullmatch(r"[0-9a-f]{6}", text):
        recent = _visible(request).order_by("-id")[:2000].values_list("id", "trace_id")
        for run_id, trace_id in recent:
            if run_id.hex.endswith(text):
                return HttpResponseRedirect(reverse("agents:trace", args=[trace_id]))
    messages.warning(
        request,
        f"Nothing found for “{text[:64]}”. Search takes a trace id, a run id, "
        "or the six last characters of a run.",
    )
    return HttpResponseRedirect(reverse("runs:list"))


@require_POST
def cancel(request: HttpRequest, run_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    reason = request.POST.get("reason", "").strip() or "cancelled at the desk"
    try:
        services.cancel(by=principal, run_id=run_id, reason=reason)
        messages.success(request, "Cancelled. What it already did is kept.")
    except PolarError as error:
        messages.error(request, f"Not cancelled: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("runs:detail", args=[run_id]))


@require_POST
def act(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Retry, requeue or dismiss a dead letter."""
    try:
        services.act_on_dead_letter(
            by=principal_of(request),
            run_id=run_id,
            action=request.POST.get("action", ""),
            reason=request.POST.get("reason", ""),
        )
        messages.success(request, "Done; the decision is in the audit log.")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("runs:dead_letters"))


def _visible(request: HttpRequest) -> RunQuerySet:
    return Run.objects.visible_to(principal_of(request)).select_related("principal")
