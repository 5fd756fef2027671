"""The door: ids for every request, size and origin checks, errors as pages.

Order matters. `RequestContext` is outermost, so that even a refusal carries its
ids; `Door` refuses before anything of the body is read; `PageErrors` turns a
`PolarError` of a page into the same words the API would use.
"""

import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.views import defaults

from . import ids
from .errors import NotFound, PolarError, Unavailable

Respond = Callable[[HttpRequest], HttpResponse]

API_PREFIX = "/api/"
#: Cookies: the zone that a person chose, and the one that their browser names.
CHOSEN_ZONE, BROWSER_ZONE = "polar_zone_chosen", "polar_zone"
ZONE_NAME = re.compile(r"[A-Za-z][\w+/-]{1,63}", re.ASCII)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def problem(error: PolarError) -> JsonResponse:
    """Answer with problem+json, the same for every door.

    Source: RFC 9457.
    """
    body: dict[str, Any] = {
        "type": f"about:blank#{error.code}",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "traceId": ids.current_trace_id(),
        **error.as_problem(),
    }
    response = JsonResponse(
        body, status=error.http_status, content_type="application/problem+json"
    )
    retry_after = getattr(error, "retry_after_seconds", None)
    if retry_after is None and error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after = 5
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    return response


def in_words(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Let a program read why Django refused it: it asked the API, not for a page."""
    is_page = response.get("Content-Type", "").startswith("text/html")
    if not (request.path.startswith(API_PREFIX) and response.status_code >= 400):
        return response
    kinds: dict[int, type[PolarError]] = {
        HTTPStatus.NOT_FOUND: NoSuchAddress,
        HTTPStatus.METHOD_NOT_ALLOWED: MethodRefused,
    }
    if not is_page or response.status_code not in {400, *kinds}:
        return response
    said = problem(kinds.get(response.status_code, BodyRefused)())
    if response.has_header("Allow"):
        said["Allow"] = response["Allow"]
    return said


class RequestContext:
    """Gives every request a request id and a trace id, and returns both."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        trace_id = (
            ids.trace_from_traceparent(request.headers.get("traceparent", ""))
            or ids.new_trace_id()
        )
        request_id = str(ids.new_id())
        with ids.use_trace(trace_id), ids.use_request(request_id):
            response = in_words(request, self.get_response(request))
        response["X-Request-Id"] = request_id
        response["traceparent"] = f"00-{trace_id}-{trace_id[:16]}-01"
        response.setdefault("Vary", "HX-Request")
        return response


class Door:
    """Refuses bodies that are too large and writes from foreign pages.

    Browsers reach loopback, so the check also holds there (DNS rebinding,
    CVE-2025-49596): an `Origin` must be this host or a configured one.
    """

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        refusal = (
            self._nul_problem(request)
            or self._size_problem(request)
            or self._origin_problem(request)
        )
        if refusal is not None:
            return problem(refusal)
        return self.get_response(request)

    def _nul_problem(self, request: HttpRequest) -> PolarError | None:
        """No name, path or search of ours holds a NUL; PostgreSQL refuses it."""
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            return BodyRefused("The address carries a NUL character.")
        return None

    def _size_problem(self, request: HttpRequest) -> PolarError | None:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length == "0" and "chunked" in request.headers.get("Transfer-Encoding", ""):
            return LengthRequired()
        if not (length.isascii() and length.isdigit()):
            return BodyRefused("Content-Length is not a number.")
        if int(length) > limit:
            return BodyTooLarge(
                f"The body has {length} bytes; the limit is {limit}.",
                limit_bytes=limit,
            )
        return None

    def _origin_problem(self, request: HttpRequest) -> PolarError | None:
        origin = request.headers.get("Origin", "")
        if not origin or origin in settings.CSRF_TRUSTED_ORIGINS:
            return None
        if _host_of(origin) == request.get_host():
            return None
        return ForeignOrigin(f"Requests from {origin[:100]} are not accepted.")


def _host_of(origin: str) -> str:
    """Return the host and port of an `Origin`; "" where that is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class LocalTime:
    """Writes the times of pages in the reader's zone: the one that was chosen here,
    else the browser's own. The API keeps to UTC."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        named = (request.COOKIES.get(name, "") for name in (CHOSEN_ZONE, BROWSER_ZONE))
        zone = next(filter(None, map(zone_of, named)), None)
        if zone is None or request.path.startswith(API_PREFIX):
            return self.get_response(request)
        timezone.activate(zone)
        try:
            return self.get_response(request)
        finally:
            timezone.deactivate()


def zone_of(name: str) -> ZoneInfo | None:
    """Return the time zone of this name, None for none."""
    if not ZONE_NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


class PageErrors:
    """Shows a `PolarError` of a page with the API's words and status."""

    def __init__(self, get_response: Respond) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(
        self, request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        if is_store_error(error):
            return store_answer(request, error)
        if not isinstance(error, PolarError):
            return None
        if request.path.startswith(API_PREFIX):
            return problem(error)
        return error_page(request, error)


def error_page(request: HttpRequest, error: PolarError) -> HttpResponse:
    """Show a refusal as a page, in the API's words."""
    context = {"error": error, "trace_id": ids.current_trace_id()}
    return render(request, "error.html", context, status=error.http_status)


#: The store is gone, locked or full; anything else of it is a bug.
STORE_ERRORS = (OperationalError, InterfaceError)
#: How SQLite and PostgreSQL say that the disk is full.
FULL = ("database or disk is full", "No space left on device", "disk full")


def is_store_error(error: BaseException) -> bool:
    """Tell a store that is away or in ruins from a statement that it refuses.

    SQLite says plain DatabaseError of a malformed file.
    """
    return isinstance(error, STORE_ERRORS) or type(error) is DatabaseError


def store_problem(error: BaseException) -> PolarError:
    """Say what a failing store means: full, or not there just now."""
    is_full = any(words in str(error) for words in FULL)
    return StoreFull() if is_full else StoreUnavailable()


def store_answer(request: HttpRequest, error: BaseException) -> HttpResponse:
    """Answer without the store: nothing here may ask it again."""
    found = store_problem(error)
    answer: HttpResponse = problem(found)
    if not request.path.startswith(API_PREFIX):
        context = {
            "code": found.code,
            "headline": "The store cannot be used.",
            "detail": found.detail,
            "trace_id": ids.current_trace_id(),
        }
        retry_after = answer["Retry-After"]
        page = render_to_string("503.html", context)
        answer = HttpResponse(page, status=found.http_status)
        answer["Retry-After"] = retry_after
    return answer


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer what no middleware caught; a failing store is no fault of ours.

    Middleware that asks the store (sessions, the login gate) fails outside every
    view, where only this handler is asked.
    """
    error = sys.exc_info()[1]
    if error is not None and is_store_error(error):
        return store_answer(request, error)
    if request.path.startswith(API_PREFIX):
        return problem(ServerError())
    return defaults.server_error(request)


class BodyRefused(PolarError):
    """The request cannot be read."""

    code = "POLAR_BAD_REQUEST"
    http_status = 400


class NoSuchAddress(NotFound):
    """The API has nothing at this address; /api/v1/openapi.json lists what it has."""


class MethodRefused(PolarError):
    """This address takes other methods; the header Allow names them."""

    code = "POLAR_METHOD_NOT_ALLOWED"
    http_status = 405


class LengthRequired(BodyRefused):
    """Say how long the body is: send a Content-Length."""

    http_status = 411


class BodyTooLarge(BodyRefused):
    """The body is too large."""

    code = "POLAR_BODY_TOO_LARGE"
    http_status = 413


class ForeignOrigin(PolarError):
    """Another site's page sent this."""

    code = "POLAR_FORBIDDEN"
    http_status = 403


class StoreUnavailable(Unavailable):
    """The store cannot be opened just now; nothing was changed."""

    code = "POLAR_STORE_UNAVAILABLE"


class StoreFull(Unavailable):
    """The disk is full. Nothing new is taken in; what was accepted is kept."""

    code = "POLAR_STORE_FULL"
    http_status = 507
    retry_after_seconds = 30


class ServerError(PolarError):
    """A fault of Polar's own; its trace id leads to the log."""

    code = "POLAR_INTERNAL_ERROR"
