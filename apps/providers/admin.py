"""Providers, lanes and what happened. Keys are written here, never shown."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from apps.access.services import principal_for_user
from apps.common.admin import ReadOnlyAdmin, ServiceAdmin, state_badge
from apps.common.units import format_usd
from apps.providers import services
from apps.providers.forms import ModelForm, ProviderForm, RouteForm
from apps.providers.models import (
    Attempt,
    Breaker,
    KeyState,
    Model,
    Price,
    Provider,
    Route,
    UsageRow,
)


def _by(request: HttpRequest) -> Any:
    return principal_for_user(user=request.user)  # type: ignore[arg-type]


@admin.register(Provider)
class ProviderAdmin(ServiceAdmin):
    can_add = can_change = can_remove = True
    form = ProviderForm  # type: ignore[assignment]
    list_display = ("slug", "kind", "base_url", "health", "source", "quiet_until")
    list_filter = ("kind", "state", "enabled", "source")
    search_fields = ("slug", "base_url")
    actions = ("test_now", "trust_key")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        return ("slug",) if obj is not None else ()

    @admin.display(description="State")
    def health(self, row: Provider) -> SafeString:
        if not row.enabled:
            return state_badge("disabled")
        return state_badge(
            "rejected" if row.state == KeyState.REJECTED else "ready", row.state
        )

    def write(
        self,
        request: HttpRequest,
        obj: Any,
        form: Any,
        *,
        change: bool,
    ) -> Provider:
        told = form.cleaned_data
        return services.save_provider(
            by=_by(request),
            entry=services.ProviderEntry(
                slug=obj.slug,
                kind=told["kind"],
                base_url=told["base_url"],
                enabled=told["enabled"],
                settings=told["settings"] or {},
                key=told["key"],
            ),
            expected_revision=told["expected_revision"] if change else None,
        )

    def remove(self, request: HttpRequest, obj: Any) -> None:
        services.remove_provider(by=_by(request), slug=obj.slug)

    @admin.action(description="Test now", permissions=["change"])
    def test_now(self, request: HttpRequest, chosen: QuerySet[Provider]) -> None:
        for provider in chosen:
            report = services.test_provider(by=_by(request), provider=provider)
            said = (
                report.answer if report.ok else f"{report.error_class} {report.detail}"
            )
            self.message_user(
                request, f"{provider}: {said.strip()} ({report.duration_ms} ms)"
            )

    @admin.action(description="Use a rejected key again", permissions=["change"])
    def trust_key(self, request: HttpRequest, chosen: QuerySet[Provider]) -> None:
        for provider in chosen:
            services.trust_key(by=_by(request), slug=provider.slug)
            self.message_user(request, f"{provider}: its key is used again.")


@admin.register(Price)
class PriceAdmin(ReadOnlyAdmin):
    list_display = ("model", "starts_on", "input_micros", "output_micros", "by_label")
    list_select_related = ("model__provider",)
    search_fields = ("model__name", "model__provider__slug")
    date_hierarchy = "starts_on"
    ordering = ("-starts_on", "-id")


@admin.register(Model)
class ModelAdmin(ServiceAdmin):
    can_add = can_change = True
    form = ModelForm  # type: ignore[assignment]
    list_display = ("name", "provider", "context_window_tokens", "price", "dated")
    list_filter = ("provider",)
    search_fields = ("name", "provider__slug")
    autocomplete_fields = ("provider",)
    list_select_related = ("provider",)

    @admin.display(description="Price in / out per 1M tokens")
    def price(self, row: Model) -> str:
        return f"{format_usd(row.input_micros)} / {format_usd(row.output_micros)}"

    def write(
        self,
        request: HttpRequest,
        obj: Any,
        form: Any,
        *,
        change: bool,
    ) -> Model:
        told = dict(form.cleaned_data)
        provider = told.pop("provider")
        return services.save_model(
            by=_by(request), provider=provider, entry=services.ModelEntry(**told)
        )


@admin.register(Route)
class RouteAdmin(ServiceAdmin):
    can_add = can_change = can_remove = True
    form = RouteForm  # type: ignore[assignment]
    list_display = ("lane", "position", "model", "enabled", "breaker_state")
    list_filter = ("lane", "enabled")
    search_fields = ("model__name", "model__provider__slug")
    autocomplete_fields = ("model",)
    list_select_related = ("model__provider", "breaker")
    actions = ("put_first", "close_breaker")
    ordering = ("lane", "position")

    @admin.display(description="Breaker")
    def breaker_state(self, row: Route) -> SafeString:
        breaker = getattr(row, "breaker", None)
        return state_badge(breaker.state if breaker else "closed")

    def write(
        self,
        request: HttpRequest,
        obj: Any,
        form: Any,
        *,
        change: bool,
    ) -> Route:
        told = form.cleaned_data
        return services.save_route(
            by=_by(request),
            lane=told["lane"],
            model=told["model"],
            enabled=told["enabled"],
        )

    def remove(self, request: HttpRequest, obj: Any) -> None:
        services.remove_route(by=_by(request), route=obj)

    @admin.action(description="Put first in its lane", permissions=["change"])
    def put_first(self, request: HttpRequest, chosen: QuerySet[Route]) -> None:
        for row in chosen:
            services.save_route(
                by=_by(request), lane=row.lane, model=row.model, first=True
            )

    @admin.action(description="Close the breaker now", permissions=["change"])
    def close_breaker(self, request: HttpRequest, chosen: QuerySet[Route]) -> None:
        for row in chosen:
            services.close_breaker(by=_by(request), route=row)


@admin.register(Breaker)
class BreakerAdmin(ReadOnlyAdmin):
    list_display = ("route", "badge", "failures", "last_error_class", "probe_at")
    list_filter = ("state", "last_error_class")
    list_select_related = ("route__model__provider",)

    @admin.display(description="State")
    def badge(self, row: Breaker) -> SafeString:
        return state_badge(row.state)


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "route_name",
        "requested_lane",
        "outcome",
        "reason",
        "duration_ms",
        "origin",
    )
    list_filter = ("outcome", "reason", "requested_lane", "origin")
    search_fields = ("trace_id", "route_name")
    date_hierarchy = "created_at"
    list_select_related = False


@admin.register(UsageRow)
class UsageRowAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "requested_lane",
        "served_provider",
        "served_model",
        "lane_change",
        "tokens_in",
        "tokens_out",
        "cost",
        "duration_ms",
        "error_class",
    )
    list_filter = ("ok", "requested_lane", "lane_change", "served_provider", "origin")
    search_fields = ("trace_id", "served_model")
    date_hierarchy = "created_at"
    list_select_related = False

    @admin.display(description="Cost")
    def cost(self, row: UsageRow) -> str:
        return format_usd(row.micros)
