"""Is it alive, is it ready, how are things, where is it?"""

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_GET, require_POST

from apps.common import look, pages
from apps.common.search import LONGEST, Hit
from apps.reliability.engine import finding, tour
from apps.reliability.queries import readiness
from apps.reliability.views.asking import principal_of

TOUR_COOKIE = "polar_tour"
TOUR_HIDDEN_SECONDS = 365 * 24 * 3600
#: Where the search box leads by name.
PAGES = (
    ("Home", "home"),
    ("Chat", "channels:list"),
    ("Board", "boards:list"),
    ("Runs", "runs:list"),
    ("Approvals", "gateway:approvals"),
    ("Grants", "gateway:grants"),
    ("What-if", "gateway:whatif"),
    ("Explain a refusal", "gateway:find_explanation"),
    ("Dead letters", "runs:dead_letters"),
    ("Schedules", "runs:schedules"),
    ("Agents", "agents:list"),
    ("Memory", "agents:memory"),
    ("Providers", "providers:list"),
    ("Extensions", "extensions:list"),
    ("Channels", "channels:accounts"),
    ("Usage", "agents:usage"),
    ("Budgets", "gateway:budgets"),
    ("Recursion", "agents:recursion"),
    ("Audit", "audit:list"),
    ("SLOs", "reliability:slo"),
    ("Incidents", "reliability:incidents"),
    ("Alerts", "reliability:alerts"),
    ("Drills", "reliability:drills"),
    ("Continuity", "reliability:continuity"),
    ("Store and snapshots", "reliability:store"),
    ("Vault", "vault:status"),
    ("Halts", "gateway:halts"),
    ("API tokens", "access:tokens"),
    ("Your account", "access:account"),
    ("Runbooks and how-tos", "reliability:manual"),
    ("Parts and states", "reliability:parts"),
    ("All records", "admin:index"),
)


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
    """Show the panels; each loads from its owner. The tour, until it was taken."""
    steps = []
    if TOUR_COOKIE not in request.COOKIES:
        steps = tour.steps(principal_of(request))
    if all(step.is_done for step in steps):
        steps = []
    return render(request, "home.html", {"tour": steps})


@require_POST
def hide_tour(request: HttpRequest) -> HttpResponse:
    """Show this browser no tour any more."""
    answer = redirect("home")
    answer.set_cookie(
        TOUR_COOKIE,
        "hidden",
        max_age=TOUR_HIDDEN_SECONDS,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    return answer


def parts(request: HttpRequest) -> HttpResponse:
    """Show every part that pages are made of, and every state."""
    return render(request, "parts.html", {"tones": look.states_by_tone()})


def annunciator(request: HttpRequest) -> HttpResponse:
    """Answer with the header's sentence, or 204 while it stays the same."""
    return pages.panel(request, "reliability/_annunciator.html", {})


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """Go where the words lead, or list what they hit; a fragment while typing."""
    typed = request.GET.get("q", "")
    hits = finding.find(typed, principal_of(request))
    named = _pages(typed)
    context = {"typed": typed[:LONGEST], "hits": hits, "pages": named}
    if pages.is_partial(request):
        return render(request, "reliability/_hits.html", context)
    target = finding.jump([*named, *hits]) if typed.strip() else None
    if target is not None:
        return HttpResponseRedirect(target.url)
    return render(request, "reliability/search.html", context)


def _pages(typed: str) -> list[Hit]:
    """The pages whose name begins with the words; all of them for none.

    A name that is written out is where its writer wants to go."""
    words = typed.strip().lower()
    found = []
    for label, name in PAGES:
        if words and not label.lower().startswith(words):
            continue
        try:
            is_exact = label.lower() == words
            found.append(Hit("Page", label, reverse(name), is_exact=is_exact))
        except NoReverseMatch:
            continue  # an app that this install leaves out
    return found
