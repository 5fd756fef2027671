"""Providers, lanes, models and usage over the API."""

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Query, Router, Status

from apps.access.models import Role
from apps.access.policies import Authenticated, caller, check_role
from apps.access.queries import default_workspace, workspaces_of
from apps.common.errors import PolarError
from apps.common.schemas import PROBLEMS, Cursor, cut
from apps.common.scopes import needs
from apps.providers import ports, queries, services
from apps.providers.models import Price, Provider
from apps.providers.schemas import (
    EmbedIn,
    GeneratedOut,
    GenerateIn,
    KeyIn,
    KeyOut,
    LaneOut,
    ModelIn,
    NamesOut,
    PriceIn,
    PriceOut,
    ProviderIn,
    ProviderOut,
    RouteIn,
    TestOut,
    UsagePage,
    VectorsOut,
)

router = Router(tags=["providers"], by_alias=True)


@router.get(
    "/providers",
    response={200: list[ProviderOut]} | PROBLEMS,
    operation_id="listProviders",
)
@needs("providers:read")
def list_providers(request: HttpRequest) -> list[Provider]:
    return list(queries.providers()[:500])


@router.get(
    "/providers/{slug}",
    response={200: ProviderOut} | PROBLEMS,
    operation_id="getProvider",
)
@needs("providers:read")
def get_provider(request: HttpRequest, slug: str) -> Provider:
    return queries.get_provider(slug)


@router.put(
    "/providers/{slug}",
    response={200: ProviderOut} | PROBLEMS,
    operation_id="saveProvider",
)
@needs("providers:write", "admin")
def save_provider(request: HttpRequest, slug: str, body: ProviderIn) -> Provider:
    auth = caller(request)
    facts = body.dict()
    expected = facts.pop("expected_revision")
    entry = services.ProviderEntry(slug=slug, **facts)
    return services.save_provider(
        by=auth.principal, entry=entry, expected_revision=expected
    )


@router.delete(
    "/providers/{slug}",
    response={204: None} | PROBLEMS,
    operation_id="removeProvider",
)
@needs("providers:write", "admin")
def remove_provider(request: HttpRequest, slug: str) -> Status[None]:
    auth = caller(request)
    services.remove_provider(by=auth.principal, slug=slug)
    return Status(204, None)


@router.put(
    "/providers/{slug}/models",
    response={200: NamesOut} | PROBLEMS,
    operation_id="saveModel",
)
@needs("providers:write", "admin")
def save_model(request: HttpRequest, slug: str, body: ModelIn) -> dict[str, Any]:
    """Add a model to a provider, or change its prices and limits."""
    auth = caller(request)
    row = queries.get_provider(slug)
    entry = services.ModelEntry(**body.dict())
    services.save_model(by=auth.principal, provider=row, entry=entry)
    return {"items": [model.name for model in queries.models_of(row)]}


@router.get(
    "/providers/{slug}/models",
    response={200: NamesOut} | PROBLEMS,
    operation_id="listModels",
)
@needs("providers:read", "operator")
def list_models(request: HttpRequest, slug: str) -> dict[str, Any]:
    """Ask the provider itself which models it has."""
    auth = caller(request)
    check_role(auth.principal, Role.OPERATOR, default_workspace())
    row = queries.get_provider(slug)
    return {"items": services.list_models(by=auth.principal, provider=row)}


@router.get(
    "/providers/{slug}/prices",
    response={200: list[PriceOut]} | PROBLEMS,
    operation_id="listPrices",
)
@needs("providers:read")
def list_prices(request: HttpRequest, slug: str) -> list[dict[str, Any]]:
    """Return what the provider's models cost, from which day on, newest first."""
    rows = queries.prices_of(queries.get_provider(slug))
    return [_price(row) for row in rows[:500]]


@router.post(
    "/providers/{slug}/prices",
    response={201: PriceOut} | PROBLEMS,
    operation_id="addPrice",
)
@needs("providers:write", "admin")
def add_price(request: HttpRequest, slug: str, body: PriceIn) -> Status[dict[str, Any]]:
    """Say what a model costs from today or a later day on."""
    auth = caller(request)
    row = services.add_price(
        by=auth.principal,
        model=queries.get_model(slug, body.model),
        entry=services.PriceEntry(
            starts_on=body.starts_on,
            tariff=ports.Tariff(
                body.input_micros, body.output_micros, body.cached_micros
            ),
            note=body.note,
        ),
    )
    return Status(201, _price(row))


def _price(row: Price) -> dict[str, Any]:
    named = set(PriceOut.model_fields) - {"model"}
    return {name: getattr(row, name) for name in named} | {"model": row.model.name}


@router.post(
    "/providers/{slug}/test",
    response={200: TestOut} | PROBLEMS,
    operation_id="testProvider",
)
@needs("providers:write")
def test_provider(request: HttpRequest, slug: str) -> dict[str, Any]:
    """List the provider's models and ask one of them a word."""
    auth = caller(request)
    row = queries.get_provider(slug)
    return asdict(services.test_provider(by=auth.principal, provider=row))


@router.post(
    "/providers/{slug}/key",
    response={200: KeyOut} | PROBLEMS,
    operation_id="changeProviderKey",
)
@needs("providers:write", "admin")
def change_key(request: HttpRequest, slug: str, body: KeyIn) -> dict[str, Any]:
    """Take one step of a key change: stage, test, shadow, promote, revoke, drop."""
    auth = caller(request)
    report = services.change_key(
        by=auth.principal, slug=slug, action=body.action, key=body.key
    )
    shown = asdict(report) if report is not None else None
    return {"provider": queries.get_provider(slug), "report": shown}


@router.put(
    "/lanes/{lane}/routes",
    response={200: list[LaneOut]} | PROBLEMS,
    operation_id="saveRoute",
)
@needs("providers:write", "admin")
def save_route(request: HttpRequest, lane: str, body: RouteIn) -> list[dict[str, Any]]:
    """Put a model into a lane, at its end or first, or switch its route."""
    auth = caller(request)
    services.save_route(
        by=auth.principal,
        lane=lane,
        model=queries.get_model(body.provider, body.model),
        enabled=body.enabled,
        first=body.first,
    )
    return _lanes()


@router.post(
    "/generate",
    response={200: GeneratedOut} | PROBLEMS,
    operation_id="generateOutput",
)
@needs("providers:generate")
def generate_output(request: HttpRequest, body: GenerateIn) -> dict[str, Any]:
    """Ask a lane one question, outside any conversation."""
    wanted = _wanted(caller(request), body)
    return _generated(services.generate(request=wanted))


@router.post("/stream", response=PROBLEMS, operation_id="streamOutput")
@needs("providers:generate")
def stream_output(request: HttpRequest, body: GenerateIn) -> HttpResponse:
    """The same, as server-sent events: delta, reset, then done or error."""
    wanted = _wanted(caller(request), body)
    answer: Any = StreamingHttpResponse(
        _stream(wanted), content_type="text/event-stream"
    )
    answer["Cache-Control"] = "no-store"
    answer["X-Accel-Buffering"] = "no"
    streamed: HttpResponse = answer
    return streamed


@router.post("/embed", response={200: VectorsOut} | PROBLEMS, operation_id="embedText")
@needs("providers:generate")
def embed_text(request: HttpRequest, body: EmbedIn) -> dict[str, Any]:
    """Turn texts into vectors with a model of an OpenAI kind."""
    auth = caller(request)
    workspace = default_workspace()
    check_role(auth.principal, Role.OPERATOR, workspace)
    vectors = services.embed_text(
        by=auth.principal,
        model=queries.get_model(body.provider, body.model),
        texts=tuple(body.texts),
        workspace_id=workspace.pk,
    )
    return {"items": vectors}


def _wanted(auth: Authenticated, body: GenerateIn) -> services.GenerateRequest:
    workspace = default_workspace()
    check_role(auth.principal, Role.OPERATOR, workspace)
    return services.GenerateRequest(
        lane=body.lane,
        messages=tuple(ports.Message(each.role, each.text) for each in body.messages),
        principal=auth.principal,
        workspace_id=workspace.pk,
        max_output_tokens=body.max_output_tokens,
    )


def _generated(found: services.Generated) -> dict[str, Any]:
    return {
        "text": found.text,
        "finish": found.finish,
        "served_by": found.served_by,
        "lane": found.lane,
        "lane_change": found.lane_change,
        "degraded": found.degraded,
        "is_scripted": found.is_scripted,
        "tokens_in": found.usage.tokens_in,
        "tokens_out": found.usage.tokens_out,
        "micros": found.usage.micros,
        "attempts": list(found.attempts),
        "call_id": found.call_id,
    }


def _stream(wanted: services.GenerateRequest) -> Iterator[str]:
    """Generate in a thread of its own and pass on what it says."""
    said: queue.SimpleQueue[tuple[str, dict[str, Any]] | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            found = services.generate(
                request=wanted,
                on_delta=lambda text: said.put(("delta", {"text": text})),
                on_reset=lambda: said.put(("reset", {})),
            )
            said.put(("done", GeneratedOut(**_generated(found)).dict(by_alias=True)))
        except PolarError as error:
            said.put(("error", {"code": error.code, "detail": error.detail}))
        finally:
            said.put(None)
            connection.close()

    threading.Thread(target=work, name="stream-output", daemon=True).start()
    while (news := said.get()) is not None:
        yield f"event: {news[0]}\ndata: {json.dumps(news[1], default=str)}\n\n"


@router.get(
    "/lanes", response={200: list[LaneOut]} | PROBLEMS, operation_id="listLanes"
)
@needs("providers:read")
def list_lanes(request: HttpRequest) -> list[dict[str, Any]]:
    return _lanes()


def _lanes() -> list[dict[str, Any]]:
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
@needs("providers:read")
def list_usage(request: HttpRequest, page: Query[Cursor]) -> dict[str, Any]:
    auth = caller(request)
    mine = workspaces_of(auth.principal).values_list("id", flat=True)
    items, following = cut(queries.usage_page(list(mine)), page)
    return {"items": items, "next_cursor": following}
