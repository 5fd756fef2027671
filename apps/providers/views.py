"""Lanes, routes and their health, for people."""

from datetime import timedelta
from typing import Any

from django.db.models import Avg, Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.common import clock, pages
from apps.providers import queries
from apps.providers.models import Attempt, Outcome

#: What the matrix looks back over.
WINDOW = timedelta(hours=24)


@require_GET
def provider_list(request: HttpRequest) -> HttpResponse:
    context = {"lanes": _lanes(), "providers": queries.providers()}
    return render(request, "providers/list.html", context)


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    return pages.panel(request, "providers/_panel.html", {"lanes": _lanes()})


def _lanes() -> list[dict[str, Any]]:
    """Every lane with its routes, and what each route did in the window."""
    done = _attempts_by_route()
    return [
        {
            "lane": health.lane,
            "state": health.state,
            "routes": [
                {"health": each, "did": done.get(each.route.id)}
                for each in health.routes
            ],
        }
        for health in queries.lanes_health()
    ]


def _attempts_by_route() -> dict[Any, dict[str, Any]]:
    since = clock.now() - WINDOW
    rows = (
        Attempt.objects.filter(created_at__gte=since, outcome=Outcome.ATTEMPTED)
        .exclude(route_id=None)
        .values("route_id")
        .annotate(
            tried=Count("id"),
            answered=Count("id", filter=Q(error_class="")),
            average_ms=Avg("duration_ms", filter=Q(error_class="")),
            cost=Sum("micros"),
        )
    )
    return {row["route_id"]: row for row in rows.order_by("route_id")}
