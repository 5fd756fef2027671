"""The store beside its witness, and its snapshots."""

from uuid import UUID

from django.contrib import messages
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import check_role
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.common.errors import PolarError
from apps.reliability import services
from apps.reliability.queries import count_held, recoveries, rollbacks
from apps.reliability.views.asking import principal_of

EARLIER = 20
RECOVERIES = 5


@require_GET
def store(request: HttpRequest) -> HttpResponse:
    """Show whether the store is the one the witness knows, and its snapshots."""
    principal = principal_of(request)
    check_role(principal, Role.VIEWER, access.default_workspace())
    standing = audit.standing_alarm()
    found = rollbacks()
    if standing is None:
        newest = found.first()
    else:
        newest = rollbacks().filter(alarm_id=standing.id).first()
    context = {
        "alarm": standing,
        "head": audit_queries.head(),
        "rollback": newest,
        "held": count_held(newest),
        "snapshots": services.snapshots(),
        "recoveries": recoveries()[:RECOVERIES],
        "earlier": (found.exclude(id=newest.id) if newest else found)[:EARLIER],
    }
    return render(request, "reliability/store.html", context)


@require_POST
def accept_rollback(request: HttpRequest) -> HttpResponse:
    """Go on from the store as it is."""
    reason = request.POST.get("reason", "")
    try:
        services.accept_rollback(by=principal_of(request), reason=reason)
        messages.warning(request, "Accepted: a new epoch has begun. Look at what waits")
    except PolarError as error:
        messages.error(request, f"Not accepted: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))


@require_POST
def resume_stale(request: HttpRequest, rollback_id: UUID) -> HttpResponse:
    """Let the held runs go on."""
    reason = request.POST.get("reason", "")
    try:
        resumed = services.resume_stale(
            by=principal_of(request), rollback_id=rollback_id, reason=reason
        )
        messages.success(request, f"{len(resumed)} runs go on.")
    except PolarError as error:
        messages.error(request, f"Not resumed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))


@require_POST
def create_snapshot(request: HttpRequest) -> HttpResponse:
    """Copy the store now."""
    try:
        made = services.create_snapshot(by=principal_of(request))
        messages.success(request, f"Snapshot {made.name}: {made.events} events.")
    except PolarError as error:
        messages.error(request, f"No snapshot: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))


@require_POST
def rehearse_restore(request: HttpRequest) -> HttpResponse:
    """Let a worker restore the newest snapshot beside the store."""
    try:
        run = services.start_restore_rehearsal(by=principal_of(request))
        messages.success(request, f"Run {str(run.id)[-6:]} rehearses the restore.")
    except PolarError as error:
        messages.error(request, f"Not started: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))
