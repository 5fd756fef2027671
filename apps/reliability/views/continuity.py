"""The continuity checklist and the doctor's round."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import check_role
from apps.common.errors import PolarError
from apps.reliability import services
from apps.reliability.engine.doctor import continuity as checklist
from apps.reliability.engine.doctor import examining
from apps.reliability.engine.doctor.check import STATES
from apps.reliability.views.asking import principal_of


@require_GET
def continuity(request: HttpRequest) -> HttpResponse:
    """Show the page; what takes a moment loads by itself."""
    _check(request)
    areas = [(area, title) for area, (title, _) in examining.AREAS.items()]
    return render(request, "reliability/continuity.html", {"areas": areas})


@require_GET
def continuity_boxes(request: HttpRequest) -> HttpResponse:
    """Prove each line of the checklist now."""
    _check(request)
    boxes = checklist.boxes()
    context = {"boxes": boxes, "proved": sum(box.is_proved for box in boxes)}
    return render(request, "reliability/_continuity.html", context)


@require_GET
def doctor(request: HttpRequest, area: str) -> HttpResponse:
    """Look at one area, but for what reads the whole store."""
    _check(request)
    results = examining.examine_area(area)
    attention = [each for each in results if each.mend]
    well = [each for each in results if not each.mend]
    states = [each.state for each in results]
    counts = [(state, states.count(state)) for state in STATES if state in states]
    attention.sort(key=lambda each: STATES.index(each.state))
    context = {
        "area": area,
        "title": examining.title_of(area),
        "attention": attention,
        "well": well,
        "counts": counts,
    }
    return render(request, "reliability/_doctor.html", context)


@require_POST
def make_breach(request: HttpRequest) -> HttpResponse:
    """Send a made-up alert down the whole way."""
    try:
        services.breach(by=principal_of(request))
        messages.success(request, "Sent. It arrives in a few seconds, or says why not.")
    except PolarError as error:
        messages.error(request, f"Not sent: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:continuity"))


def _check(request: HttpRequest) -> None:
    check_role(principal_of(request), Role.VIEWER, access.default_workspace())
