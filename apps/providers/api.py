"""Providers, lanes and usage over the API."""

from typing import Any

from django.http import HttpRequest
from ninja import Query, Router

from apps.access.policies import caller
from apps.access.queries import workspaces_of
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.providers import queries
from apps.providers.models import Provider
from apps.providers.schemas import LaneOut, ProviderOut, UsagePage

router = Router(tags=["providers"], by_alias=True)


@router.get(
    "/providers",
    response={200: list[ProviderOut]} | PROBLEMS,
    operation_id="listProviders",
)
def list_providers(request: HttpRequest) -> list[Provider]:
    caller(request, "providers:read")
    return list(queries.providers()[:500])


@router.get(
    "/lanes", response={200: list[LaneOut]} | PROBLEMS, operation_id="listLanes"
)
def list_lanes(request: HttpRequest) -> list[dict[str, Any]]:
    caller(request, "providers:read")
    return [
        {
            "lane": lane.lane,
            "state": lane.state,
            "routes": [
                {
                    "id": health.route.id,
                    "provider": health.route.model.provider.slug,
                    "model": health.route.model.name,
                    "state": health.state,
                    "detail": health.detail,
                    "last_error_class": health.last_error_class,
                    "last_error_at": health.last_error_at,
                }
                for health in lane.routes
            ],
        }
        for lane in queries.lanes_health()
    ]


@router.get(
    "/usage",
    response={200: UsagePage} | PROBLEMS,
    operation_id="listUsageTelemetry",
)
def list_usage(request: HttpRequest, page: Query[Cursor]) -> dict[str, Any]:
    auth = caller(request, "providers:read")
    mine = workspaces_of(auth.principal).values_list("id", flat=True)
    items, following = cut(queries.usage_page(list(mine)), page)
    return {"items": items, "next_cursor": following}
