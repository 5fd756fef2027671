"""The REST API: one `NinjaAPI`, one router per app, one map of errors.

Who is asking is settled before anything of the body is parsed; a stranger gets
401, never a redirect.
"""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import DataError, InterfaceError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from ninja.utils import check_csrf

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.api import router as access_router
from apps.access.errors import ScopeRequired
from apps.access.models import KeyedAnswer
from apps.access.policies import Authenticated, check_entry
from apps.agents.api import router as agents
from apps.audit.api import router as audit
from apps.boards.api import router as boards
from apps.channels.api import router as channels
from apps.common import canonical, failpoints, scopes
from apps.common.errors import (
    FieldProblem,
    Invalid,
    NotFound,
    PolarError,
    Unauthenticated,
)
from apps.common.middleware import (
    SAFE_METHODS,
    ForeignOrigin,
    problem,
    store_problem,
)
from apps.common.schemas import NO_STORE
from apps.extensions.api import router as extensions
from apps.gateway.api import router as gateway
from apps.providers.api import router as providers
from apps.reliability.api import router as reliability
from apps.runs.api import router as runs
from apps.vault.api import router as vault


def authenticate(request: HttpRequest) -> Authenticated:
    """Say who is asking, once a request: a bearer token before a session.

    Raises: Unauthenticated; RateLimited; ForeignOrigin for a session write without
    CSRF token.
    """
    known: Authenticated | None = getattr(request, "polar_caller", None)
    if known is None:
        known = _who(request)
        request.polar_caller = known  # type: ignore[attr-defined]
    return known


def enter(request: HttpRequest, scope: str, role: str) -> Authenticated:
    """Let somebody into one operation, before anything of the body is read.

    Raises: as `authenticate`; ScopeRequired, RoleRequired.
    """
    auth = authenticate(request)
    check_entry(auth, scope, role)
    return auth


def shut(request: HttpRequest) -> Authenticated:
    """An operation that names no scope lets nobody in."""
    raise ScopeRequired("This operation says no scope, so it is shut.")


def _who(request: HttpRequest) -> Authenticated:
    header = request.headers.get("Authorization", "")
    if header:
        scheme, _, raw = header.partition(" ")
        if scheme.lower() != "bearer" or not raw.strip():
            raise Unauthenticated("Send the header Authorization: Bearer <token>.")
        address = str(request.META.get("REMOTE_ADDR", ""))
        return access_services.enter_by_token(raw=raw.strip(), address=address)
    if not request.user.is_authenticated:
        raise Unauthenticated
    if check_csrf(request):
        raise ForeignOrigin("This write carries no valid CSRF token.")
    return access.authenticated_user(request.user)


def for_the_known(view: "View") -> "View":
    """Answer 401 to a stranger before a view that asks nobody."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            authenticate(request)
        except PolarError as error:
            return problem(error)
        return view(request, *args, **kwargs)

    return answer


#: Answers that say nothing was done: the same key may be sent again.
UNDONE = frozenset({401, 403, 429, 503, 507})
#: Writes that only this database sees: they keep their answer in the transaction of
#: the change, so that one sent again after a crash is done once and answered.
WITH_ITS_ANSWER = frozenset({"orchestrate"})

View = Callable[..., Any]


def answer_once(view: View) -> View:
    """Give a write that carries an `Idempotency-Key` one answer, however often sent.

    The key belongs to the principal, so who is asking is settled first.
    """
    if iscoroutinefunction(view):
        return view

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        key = request.headers.get("Idempotency-Key")
        if key is None or request.method in SAFE_METHODS:
            return view(request, *args, **kwargs)
        match = request.resolver_match
        held = match is not None and match.url_name in WITH_ITS_ANSWER

        def work() -> HttpResponse:
            response: HttpResponse = view(request, *args, **kwargs)
            return response

        try:
            who = authenticate(request).principal
            row, is_first = access_services.begin_answer(
                principal=who, key=key, request=_request_bytes(request), held=held
            )
            if not is_first:
                return _kept(row)
            return _at_once(row, work) if held else _one_by_one(row, work)
        except PolarError as error:
            return problem(error)

    return answer


def _at_once(row: KeyedAnswer, work: Callable[[], HttpResponse]) -> HttpResponse:
    """Do the work and keep its answer in one transaction, one request at a time."""
    with transaction.atomic():
        before = access_services.hold_answer(row=row)
        if before.status:
            return _kept(before)
        response = work()
        if response.status_code < HTTPStatus.BAD_REQUEST:
            _keep(row, response)
        else:
            transaction.set_rollback(True)
    failpoints.reach("answer.kept")
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        _keep(row, response)
    return response


def _one_by_one(row: KeyedAnswer, work: Callable[[], HttpResponse]) -> HttpResponse:
    """Do the work in transactions of its own, then keep its answer."""
    response = work()
    _keep(row, response)
    return response


def _keep(row: KeyedAnswer, response: HttpResponse) -> None:
    if response.streaming or response.status_code in UNDONE:
        access_services.release_answer(row=row)
        return
    access_services.finish_answer(
        row=row,
        status=response.status_code,
        content_type=response.get("Content-Type", ""),
        body=response.content.decode(),
        is_kept=response.get("Cache-Control", "") != NO_STORE,
    )


def _kept(row: KeyedAnswer) -> HttpResponse:
    kept = HttpResponse(row.body, status=row.status)
    kept["Content-Type"] = row.content_type
    kept["Idempotency-Replayed"] = "true"
    return kept


def _request_bytes(request: HttpRequest) -> bytes:
    head = f"{request.method} {request.get_full_path()}\0{request.content_type}\0"
    return head.encode() + request.body


class BodyParser(Parser):
    """Reads JSON of a bounded depth, and of whole text."""

    def parse_body(self, request: HttpRequest) -> Any:
        return canonical.read_body(request.body)


api = NinjaAPI(
    title="Polar",
    version="1",
    description="Operator-first control plane for AI agents.",
    auth=shut,
    parser=BodyParser(),
    docs_url=None,
    openapi_url="/openapi.json",
    urls_namespace="api",
)
scopes.plug_enter(enter)
for _router in (
    access_router,
    agents,
    audit,
    boards,
    channels,
    extensions,
    gateway,
    providers,
    reliability,
    runs,
    vault,
):
    api.add_router("", _router)


@api.exception_handler(PolarError)
def _polar_error(request: HttpRequest, error: PolarError) -> HttpResponse:
    return problem(error)


@api.exception_handler(ValidationError)
def _validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    fields = tuple(_field_problem(entry) for entry in error.errors)
    return problem(Invalid("The request does not match its schema.", fields=fields))


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem(NotFound(str(error)))
    why = error.__cause__  # what the parser of bodies said
    detail = why.detail if isinstance(why, PolarError) else str(error)
    return problem(MalformedBody(detail))


@api.exception_handler(ObjectDoesNotExist)
def _missing(request: HttpRequest, error: ObjectDoesNotExist) -> HttpResponse:
    return problem(NotFound())


@api.exception_handler(OperationalError)
@api.exception_handler(InterfaceError)
def _store(
    request: HttpRequest, error: OperationalError | InterfaceError
) -> HttpResponse:
    return problem(store_problem(error))


@api.exception_handler(RecursionError)
def _too_deep(request: HttpRequest, error: RecursionError) -> HttpResponse:
    return problem(MalformedBody("The body is nested too deeply."))


@api.exception_handler(DataError)
def _unstorable(request: HttpRequest, error: DataError) -> HttpResponse:
    return problem(Invalid("A value of this request is too large to be stored."))


class MalformedBody(PolarError):
    """The body cannot be read as JSON."""

    code = "POLAR_BAD_REQUEST"
    http_status = 400


def _field_problem(entry: dict[str, Any]) -> FieldProblem:
    path = ".".join(str(part) for part in entry.get("loc", ()))
    return FieldProblem(path, str(entry.get("msg", "")), str(entry.get("type", "")))
