"""Is it alive, is it ready? Open to load balancers, silent about secrets."""

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from apps.common import pages

from .queries import readiness


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer as long as the process serves requests."""
    return JsonResponse({"status": "alive"})


@login_not_required
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while requests can be served; degraded is still ready."""
    try:
        checks = readiness()
    except DatabaseError:
        return JsonResponse(
            {"status": "unavailable", "degraded": ["store"]}, status=503
        )
    degraded = [check.name for check in checks if not check.is_ok]
    status = "degraded" if degraded else "ready"
    return JsonResponse({"status": status, "degraded": degraded})


def home(request: HttpRequest) -> HttpResponse:
    """Show the panels; each loads from its owner."""
    return render(request, "home.html")


def annunciator(request: HttpRequest) -> HttpResponse:
    """Answer with the header's sentence, or 204 while it stays the same."""
    return pages.panel(request, "reliability/_annunciator.html", {})
