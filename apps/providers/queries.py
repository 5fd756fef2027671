"""Reads of providers: lanes and their health, plans, attempts, usage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet
from django.urls import reverse

from apps.access.models import Principal
from apps.common import clock
from apps.common.errors import FieldProblem, Invalid
from apps.common.search import MOST_HITS, Hit, Words
from apps.common.statements import Reading
from apps.providers.errors import ProviderUnknown
from apps.providers.models import (
    Attempt,
    Breaker,
    BreakerState,
    KeyState,
    Kind,
    Lane,
    Model,
    Price,
    Provider,
    Route,
    SkipReason,
    UsageRow,
)


@dataclass(frozen=True, slots=True)
class RouteHealth:
    """One route as the desk shows it. `state`: ready, open, half_open or disabled."""

    route: Route
    state: str
    detail: str
    last_error: str
    last_error_class: str
    last_error_at: datetime | None
    probe_at: datetime | None
    #: The built-in model stands back while another provider exists.
    is_aside: bool = False


@dataclass(frozen=True, slots=True)
class LaneHealth:
    lane: Lane
    routes: tuple[RouteHealth, ...]

    @property
    def state(self) -> str:
        """ready, degraded (some rest), down (none can be tried) or unstaffed."""
        counted = [each for each in self.routes if not each.is_aside]
        if not counted:
            return "unstaffed"
        ready = [each for each in counted if each.state == "ready"]
        if not ready:
            return "down"
        return "ready" if len(ready) == len(counted) else "degraded"


_ROUTES = Reading(
    lambda: Route.objects.select_related("model__provider", "breaker"), ""
)


def plan_routes() -> list[Route]:
    """Return every route with its model, provider and breaker, in one query."""
    return _ROUTES.fetch()


def unavailable(route: Route) -> tuple[str, str]:
    """Say why a route's rows keep it out, as (skip reason, detail), or ("", "")."""
    provider = route.model.provider
    if not route.enabled or not provider.enabled:
        return SkipReason.DISABLED, "switched off by an operator"
    if provider.state == KeyState.REJECTED:
        return SkipReason.DISABLED, "the provider rejected its key"
    if provider.quiet_until is not None and clock.now() < provider.quiet_until:
        until = f"{provider.quiet_until:%T} UTC"
        return SkipReason.BREAKER_OPEN, f"asked for silence until {until}"
    return "", ""


def lanes_health() -> list[LaneHealth]:
    """Describe every lane and its routes, best lane first."""
    routes = sorted(plan_routes(), key=lambda route: route.position)
    has_real = any(not _is_scripted(route) for route in routes)

    def health(route: Route) -> RouteHealth:
        return _aside(route) if has_real and _is_scripted(route) else _health(route)

    return [
        LaneHealth(lane, tuple(health(r) for r in routes if r.lane == lane))
        for lane in (Lane.BRAIN, Lane.WORKER, Lane.LOCAL)
    ]


def _is_scripted(route: Route) -> bool:
    return route.model.provider.kind == Kind.SCRIPTED


def _aside(route: Route) -> RouteHealth:
    detail = "built in: it stands back while another provider exists"
    return RouteHealth(route, "disabled", detail, "", "", None, None, is_aside=True)


def _health(route: Route) -> RouteHealth:
    reason, detail = unavailable(route)
    breaker = getattr(route, "breaker", None)
    state = "disabled" if reason == SkipReason.DISABLED else "open" if reason else ""
    if not state and breaker is not None and breaker.state != BreakerState.CLOSED:
        state = breaker.state
    return RouteHealth(
        route=route,
        state=state or "ready",
        detail=detail,
        last_error=breaker.last_error if breaker else "",
        last_error_class=breaker.last_error_class if breaker else "",
        last_error_at=breaker.last_error_at if breaker else None,
        probe_at=breaker.probe_at if breaker else None,
    )


def all_remote_lanes_down() -> bool:
    """Tell whether no route above `local` can be tried, though some exist."""
    remote = [each for each in lanes_health() if each.lane != Lane.LOCAL]
    staffed = [lane.state for lane in remote if lane.state != "unstaffed"]
    return bool(staffed) and all(state == "down" for state in staffed)


def lanes_are_held() -> bool:
    """Tell whether somebody, such as a live drill, keeps lanes from being used."""
    return Breaker.objects.all().held(clock.now()).exists()


def providers() -> QuerySet[Provider]:
    return Provider.objects.order_by("slug")


def get_provider(slug: str) -> Provider:
    """Return a provider.   Raises: ProviderUnknown."""
    found = Provider.objects.filter(slug=slug).first()
    if found is None:
        raise ProviderUnknown(f"There is no provider {slug!r}.")
    return found


def find_model(provider_slug: str, name: str) -> Model | None:
    """Return a model by its provider's slug and its name, or None."""
    return (
        Model.objects.filter(provider__slug=provider_slug, name=name)
        .select_related("provider")
        .first()
    )


def models_of(provider: Provider) -> QuerySet[Model]:
    return Model.objects.filter(provider=provider).order_by("name")


def get_model(provider: str, name: str) -> Model:
    """Return a model by its provider's name and its own. Raises: Invalid."""
    found = find_model(provider, name)
    if found is None:
        problem = FieldProblem("model", "unknown", f"a model of {provider}")
        raise Invalid(f"{provider} has no model {name!r}.", fields=(problem,))
    return found


def prices_of(provider: Provider) -> QuerySet[Price]:
    """Return the history of prices of a provider's models, newest day first."""
    found = Price.objects.filter(model__provider=provider).select_related("model")
    return found.order_by("-starts_on", "model__name", "id")


def staffed_lanes() -> set[str]:
    """Name the lanes in which some route could be asked, its breaker aside."""
    on = [r for r in plan_routes() if r.enabled and r.model.provider.enabled]
    others = [r for r in on if r.model.provider.kind != Kind.SCRIPTED]
    return {str(route.lane) for route in others or on}


def attempts_of_turn(turn_id: UUID) -> QuerySet[Attempt]:
    """Return what each route of a turn's plans did, in order."""
    return Attempt.objects.filter(turn_id=turn_id).order_by("id")


def attempts_of_trace(trace_id: str) -> QuerySet[Attempt]:
    return Attempt.objects.filter(trace_id=trace_id).order_by("id")


def usage_since(since: datetime, origin: str = "real") -> QuerySet[UsageRow]:
    """Return the usage rows of one window and origin, newest first."""
    return UsageRow.objects.filter(created_at__gte=since, origin=origin).order_by(
        "-created_at", "-id"
    )


def usage_of_trace(trace_id: str) -> QuerySet[UsageRow]:
    return UsageRow.objects.filter(trace_id=trace_id).order_by("id")


def usage_page(workspaces: Sequence[UUID]) -> QuerySet[UsageRow]:
    """Return the usage rows of these workspaces, newest first."""
    return UsageRow.objects.filter(workspace_id__in=workspaces).order_by("-id")


def find(words: Words, principal: Principal) -> Iterator[Hit]:
    """Find providers by name. They belong to the install, not to a workspace."""
    for row in providers().filter(slug__icontains=words.name)[:MOST_HITS]:
        url = reverse("providers:provider", args=[row.slug])
        exact = row.slug == words.name
        yield Hit("Provider", row.slug, url, row.get_kind_display(), is_exact=exact)
