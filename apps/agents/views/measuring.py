"""What models were asked and what it cost, and who called whom how deep."""

import csv
from urllib.parse import urlencode
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
WINDOWS = {24: "24 hours", 168: "7 days", 720: "30 days"}
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
    context = {"map": drawn, "hours": hours, "windows": WINDOWS.items()}
    return render(request, "agents/recursion.html", context)


@require_GET
def usage_page(request: HttpRequest) -> HttpResponse:
    days, origin = _days(request), _origin(request)
    groups = usage.groups(principal=principal_of(request), days=days, origin=origin)
    asked = {name: request.GET.get(name, "")[:64] for name in usage.NARROWS}
    rows = usage.narrowed(groups, asked)
    context = {
        "rows": rows[: usage.MOST_GROUPS],
        "groups": len(rows),
        "total": usage.totals(rows),
        "chart": usage.chart(rows, days),
        "latency": usage.latency(rows, days),
        "days": days,
        "origin": origin,
        "windows": DAY_WINDOWS,
        "lanes": Lane.values,
        "asked": asked,
        "is_asked": any(asked.values()),
        "offered": usage.offered(groups).items(),
        "kept": urlencode({k: v for k, v in asked.items() if v} | {"origin": origin}),
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
    return int(asked) if asked in map(str, WINDOWS) else next(iter(WINDOWS))


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such run.") from None
