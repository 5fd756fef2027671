"""The shelf of drills, one under way, and its evidence."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import can_role, check_role
from apps.common import pages
from apps.common.errors import PolarError
from apps.common.units import whole_number
from apps.reliability import services
from apps.reliability.engine import staging
from apps.reliability.views.asking import principal_of

NEWEST = 20


@require_GET
def drills(request: HttpRequest) -> HttpResponse:
    """Show the shelf, how fresh each proof is, and the newest drills."""
    principal = principal_of(request)
    check_role(principal, Role.VIEWER, access.default_workspace())
    workspace = access.default_workspace()
    may_run = can_role(principal, Role.OPERATOR, workspace)
    newest = services.newest_drills(NEWEST)
    context = {
        "shelf": services.shelf_of_drills(),
        "newest": newest,
        "may_run": may_run,
        "may_live": can_role(principal, Role.ADMIN, workspace),
        "planned": services.drill_schedule(workspace=workspace),
    }
    return render(request, "reliability/drills.html", context)


@require_POST
def start_drill(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin a drill and show it."""
    try:
        row = services.start_drill(by=principal_of(request), slug=slug)
    except PolarError as error:
        messages.error(request, f"Not started: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("reliability:drills"))
    return HttpResponseRedirect(reverse("reliability:drill", args=[row.id]))


@require_http_methods(["GET", "POST"])
def live_drill(request: HttpRequest, slug: str) -> HttpResponse:
    """Say what a drill on the install itself would touch; begin it once confirmed."""
    principal = principal_of(request)
    check_role(principal, Role.ADMIN, access.default_workspace())
    shelved = services.drill_named(slug)
    given = {
        name: request.POST.get(name, str(default))
        for name, default in asdict(services.Cap()).items()
    }
    context = {"shelved": shelved, "given": given, "most": services.MOST}
    if request.method == "POST":
        try:
            row = services.start_live_drill(
                by=principal,
                slug=slug,
                confirm=request.POST.get("confirm", ""),
                cap=_cap(given),
            )
            return HttpResponseRedirect(reverse("reliability:drill", args=[row.id]))
        except PolarError as error:
            messages.error(request, _refusal(error))
    return render(request, "reliability/live_drill.html", context)


def _cap(given: dict[str, str]) -> services.Cap:
    """What is no number is out of range."""
    read = {name: whole_number(text) for name, text in given.items()}
    return services.Cap(**{name: -1 if v is None else v for name, v in read.items()})


def _refusal(error: PolarError) -> str:
    wanted = "; ".join(f"{f.path}: {f.problem}, {f.expected}" for f in error.fields)
    return f"Not started: {error.detail} {wanted} ({error.code})"


@require_GET
def drill(request: HttpRequest, drill_id: UUID) -> HttpResponse:
    """Show one drill, as it goes on or as it was."""
    return render(request, "reliability/drill.html", _drill_context(request, drill_id))


@require_GET
def drill_live(request: HttpRequest, drill_id: UUID) -> HttpResponse:
    """Answer with what is new, or 204 while nothing is.

    Once it is over the whole page comes anew: there is nothing left to cancel.
    """
    context = _drill_context(request, drill_id)
    answer = pages.panel(request, "reliability/_drill.html", context)
    if context["drill"].is_over:
        answer["HX-Refresh"] = "true"
    return answer


@require_POST
def cancel_drill(request: HttpRequest, drill_id: UUID) -> HttpResponse:
    """End a drill now."""
    try:
        services.cancel_drill(by=principal_of(request), drill_id=drill_id)
        messages.warning(request, "Cancelled; what it started is gone.")
    except PolarError as error:
        messages.error(request, f"Not cancelled: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:drill", args=[drill_id]))


@require_GET
def drill_evidence(request: HttpRequest, drill_id: UUID) -> HttpResponseBase:
    """Hand out the signed evidence, if it is the file that the log names."""
    principal = principal_of(request)
    check_role(principal, Role.VIEWER, access.default_workspace())
    services.verify_evidence(drill_id=drill_id)
    path = services.evidence_path(services.get_drill(drill_id))
    return FileResponse(path.open("rb"), as_attachment=True, filename=path.name)


def _drill_context(request: HttpRequest, drill_id: UUID) -> dict[str, Any]:
    principal = principal_of(request)
    check_role(principal, Role.VIEWER, access.default_workspace())
    row = services.get_drill(drill_id)
    steps = list(row.steps.all())
    return {
        "drill": row,
        "shelved": services.definition_of(row),
        "steps": steps,
        "stages": staging.stages(row, steps),
        "moments": staging.moments(steps),
        "probes": staging.probes(steps),
        "main": row.verdict.get("main", {}),
        "control": row.verdict.get("control", {}),
    }
