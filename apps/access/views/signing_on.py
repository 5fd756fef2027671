"""Single sign-on: the way to the identity provider, and the way back."""

import hmac
from dataclasses import asdict

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.access.errors import SignOnAway
from apps.access.forms import address_of
from apps.access.ports import Trip
from apps.access.services import single_sign_on
from apps.access.views import let_in, safe_url
from apps.common import clock
from apps.common.errors import Denied, PolarError, RateLimited

#: The trip that this browser is on, and how long it may take. Units: seconds.
TRIP, TRIP_SECONDS = "sign_on_trip", 600
#: More than this was never sent by an identity provider. Units: characters.
LONGEST_ANSWER = 4096


@login_not_required
@never_cache
@require_GET
def sign_on(request: HttpRequest) -> HttpResponse:
    """Send the browser to the identity provider. A link, for a form may not lead
    to another site here."""
    if request.user.is_authenticated:
        return HttpResponseRedirect(reverse("home"))
    back = request.build_absolute_uri(reverse("access:sign_on_return"))
    try:
        trip, address = single_sign_on.begin(
            redirect_uri=back, address=address_of(request)
        )
    except (SignOnAway, RateLimited) as error:
        return _back(error)
    request.session[TRIP] = {
        "trip": asdict(trip),
        "until": clock.now().timestamp() + TRIP_SECONDS,
        "next": safe_url(request, request.GET.get("next", "")),
    }
    return HttpResponseRedirect(address)


@login_not_required
@never_cache
@require_GET
def sign_on_return(request: HttpRequest) -> HttpResponse:
    """Let in whom the identity provider sent back, or say why not at the door."""
    answer = {key: str(value)[:LONGEST_ANSWER] for key, value in request.GET.items()}
    kept = request.session.get(TRIP, {})
    trip = Trip(**kept["trip"]) if kept else None
    if trip and not _is_theirs(trip, kept["until"], answer.get("state", "")):
        trip = None
    if trip:
        del request.session[TRIP]
    try:
        user = single_sign_on.finish(
            trip=trip, answer=answer, address=address_of(request)
        )
    except (SignOnAway, Denied) as error:
        return _back(error, begun=trip is not None)
    return let_in(request, user, kept["next"], single_sign_on.DOOR)


def _is_theirs(trip: Trip, until: float, state: str) -> bool:
    same = hmac.compare_digest(trip.state.encode(), state.encode(errors="replace"))
    return same and clock.now().timestamp() < until


def _back(error: PolarError, *, begun: bool = True) -> HttpResponse:
    """Lead to the sign-in page, away from an address that holds a code."""
    match error:
        case SignOnAway():
            word = "away"
        case RateLimited():
            word = "later"
        case _:
            word = "refused" if begun else "again"
    return HttpResponseRedirect(f"{reverse('access:login')}?sign_on={word}")
