"""The log over the API: reading, verifying. Nobody writes it from here."""

from typing import Any

from django.http import HttpRequest
from ninja import Query, Router

from apps.audit import queries, services
from apps.audit.models import EventQuerySet
from apps.audit.schemas import EventPage, VerdictOut
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs

router = Router(tags=["audit"], by_alias=True)

#: `audit` stands below `access`, so it reads the credential's scopes as data.
EVERYTHING = "*"


def _visible_events(request: HttpRequest) -> EventQuerySet:
    """Keep what the caller may see: admins everything, others their workspaces."""
    auth: Any = request.auth  # type: ignore[attr-defined]
    rows = queries.events()
    if EVERYTHING in auth.scopes:
        return rows
    if auth.principal.user is None:
        return rows.filter(workspace_id=auth.principal.workspace_id)
    mine = auth.principal.user.memberships.values("workspace_id")
    return rows.filter(workspace_id__in=mine)


@router.get(
    "/audit/events",
    response={200: EventPage} | PROBLEMS,
    operation_id="listAuditEvents",
)
@needs("audit:read")
def list_events(
    request: HttpRequest, page: Query[Cursor], trace_id: str = "", type: str = ""
) -> dict[str, Any]:
    rows = _visible_events(request)
    if trace_id:
        rows = rows.filter(trace_id=trace_id)
    if type:
        rows = rows.filter(type=type)
    items, following = cut(rows, page)
    return {"items": items, "next_cursor": following}


@router.post(
    "/audit/verify", response={200: VerdictOut} | PROBLEMS, operation_id="verifyAudit"
)
@needs("audit:read", "operator")
def verify(request: HttpRequest) -> dict[str, Any]:
    verdict = services.verify()
    return {"is_ok": verdict.ok, "size": verdict.size, "problem": verdict.problem or ""}
