"""What models were asked and what it cost, and who called whom how deep."""

import csv
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.agents.engine import recursion, usage
from apps.agents.views.asking import principal_of
from apps.common import pages
from apps.common.errors import NotFound
from apps.gateway import services as gateway
from apps.providers.models import Lane, Origin

#: What the heat map looks back over. Units: hours.
WINDOWS = (24, 168, 720)
#: What the usage page looks back over. Units: days.
DAY_WINDOWS = (7, 30, 90)
BUDGETS_SHOWN = 3


@require_GET
def recursion_map(request: HttpRequest) -> HttpResponse:
    """The heat map of one root, or of the last hours."""
    principal, root = principal_of(request), request.GET.get("root", "")
    hours = _hours(request.GET.get("hours", ""))
    if root:
        drawn = recursion.of_root(root_id=_uuid(root), principal=principal)
    else:
        drawn = recursion.of_window(hours=hours, principal=principal)
    context = {"map": drawn, "hours": hours, "windows": WINDOWS}
    return render(request, "agents/recursion.html", context)


@require_GET
def usage_page(request: HttpRequest) -> HttpResponse:
    days, origin = _days(request), _origin(request)
    principal = principal_of(request)
    rows = usage.table(principal=principal, days=days, origin=origin)
    context = {
        "rows": rows,
        "total": usage.totals(rows),
        "chart": usage.chart(rows, days),
        "latency": usage.latency(rows, days),
        "days": days,
        "origin": origin,
        "windows": DAY_WINDOWS,
        "lanes": Lane.values,
        "most": usage.MOST_GROUPS,
    }
    return render(request, "agents/usage.html", context)


@require_GET
def spend(request: HttpRequest) -> HttpResponse:
    """The home page's last day, hour by hour, and the budgets nearest their limits."""
    principal = principal_of(request)
    context = {
        "day": usage.last_day(principal=principal),
        "purses": gateway.nearest_budgets(principal=principal, most=BUDGETS_SHOWN),
    }
    return pages.panel(request, "agents/_spend.html", context)


@require_GET
def usage_csv(request: HttpRequest) -> HttpResponse:
    """The same groups as a file."""
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="usage.csv"'
    principal, days = principal_of(request), _days(request)
    writer = csv.writer(answer)
    writer.writerows(
        usage.lines(principal=principal, days=days, origin=_origin(request))
    )
    return answer


def _days(request: HttpRequest) -> int:
    asked = request.GET.get("days", "")
    return int(asked) if asked in map(str, DAY_WINDOWS) else DAY_WINDOWS[0]


def _origin(request: HttpRequest) -> str:
    asked = request.GET.get("origin", "")
    return asked if asked in Origin.values else str(Origin.REAL)


def _hours(asked: str) -> int:
    return int(asked) if asked in map(str, WINDOWS) else WINDOWS[0]


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such run.") from None
