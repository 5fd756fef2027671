"""Lanes, routes, providers and their keys, for people."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import services as access
from apps.access.models import Principal, User
from apps.common import clock, pages
from apps.common.errors import PolarError
from apps.providers import policies, queries, services
from apps.providers.engine import matrix
from apps.providers.forms import PriceForm, ProviderForm
from apps.providers.models import KeyStage, Kind, Lane, Route

#: What may be done next with a key, by how far its change has come.
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    KeyStage.SETTLED: (),
    KeyStage.STAGED: (("test", "Test the new key"), ("drop", "Drop it")),
    KeyStage.TESTED: (("shadow", "Try it on real calls"), ("drop", "Drop it")),
    KeyStage.SHADOW: (("promote", "Promote it"), ("drop", "Drop it")),
    KeyStage.REFUSED: (("test", "Test it again"), ("drop", "Drop it")),
    KeyStage.PROMOTED: (("revoke", "Delete the old key"),),
}
MODELS_SHOWN = 100
PRICES_SHOWN = 60


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@require_GET
def provider_list(request: HttpRequest) -> HttpResponse:
    context = {
        "lanes": matrix.rows(with_aside=True),
        "providers": queries.providers(),
        "may_manage": policies.can_manage(principal_of(request)),
    }
    return render(request, "providers/list.html", context)


def add(request: HttpRequest) -> HttpResponse:
    """Ask for a provider, or take one and put its first model into a lane."""
    policies.check_manage(principal_of(request))
    form = ProviderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            return _added(request, form)
        except PolarError as error:
            form.add_error(None, error.detail)
            for field in error.fields:
                if field.path in form.fields:
                    form.add_error(field.path, f"{field.problem}: {field.expected}")
    context = {"form": form, "lanes": Lane.choices, "given": request.POST}
    status = 422 if form.errors else 200
    return render(request, "providers/add.html", context, status=status)


def _added(request: HttpRequest, form: ProviderForm) -> HttpResponse:
    by, given = principal_of(request), form.cleaned_data
    entry = services.ProviderEntry(
        slug=given["slug"],
        kind=given["kind"],
        base_url=given["base_url"],
        enabled=given["enabled"],
        settings=given["settings"] or {},
        key=given["key"],
    )
    name, lane = request.POST.get("model", "").strip(), request.POST.get("lane", "")
    row = services.add_provider(by=by, entry=entry, model=name, lane=lane)
    messages.success(request, f"{row.slug} is added. Test it next.")
    return HttpResponseRedirect(reverse("providers:provider", args=[row.slug]))


@require_GET
def provider(request: HttpRequest, slug: str) -> HttpResponse:
    row = queries.get_provider(slug)
    routes = list(
        Route.objects.filter(model__provider=row)
        .select_related("model")
        .order_by("lane", "position")
    )
    did = matrix.of_routes([route.id for route in routes])
    context = {
        "provider": row,
        "models": queries.models_of(row)[:MODELS_SHOWN],
        "routes": [(route, did.get(route.id)) for route in routes],
        "prices": queries.prices_of(row)[:PRICES_SHOWN],
        "today": clock.now().date(),
        "steps": STEPS[row.key_stage],
        "stages": [stage for stage in KeyStage.choices if stage[0] != "refused"],
        "is_scripted": row.kind == Kind.SCRIPTED,
        "may_manage": policies.can_manage(principal_of(request)),
    }
    return render(request, "providers/provider.html", context)


@require_POST
def test(request: HttpRequest, slug: str) -> HttpResponse:
    try:
        report = services.test_provider(
            by=principal_of(request), provider=queries.get_provider(slug)
        )
        _tell(request, report)
    except PolarError as error:
        messages.error(request, f"Not tested: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("providers:provider", args=[slug]))


def _tell(request: HttpRequest, report: services.TestReport) -> None:
    if report.ok:
        messages.success(
            request,
            f"{report.model} answered “{report.answer}” in {report.duration_ms} ms; "
            f"models listed: {len(report.models)}.",
        )
    else:
        word = report.error_class or "not tested"
        messages.error(request, f"{report.provider}: {word}. {report.detail}")


@require_POST
def change_key(request: HttpRequest, slug: str) -> HttpResponse:
    action = request.POST.get("action", "")
    try:
        report = services.change_key(
            by=principal_of(request),
            slug=slug,
            action=action,
            key=request.POST.get("key", ""),
        )
        if report is not None:
            _tell(request, report)
        else:
            messages.success(request, f"The key of {slug}: {action} is done.")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("providers:provider", args=[slug]))


@require_POST
def add_price(request: HttpRequest, slug: str) -> HttpResponse:
    """Say what one of its models costs from a day on."""
    form = PriceForm(request.POST)
    try:
        entry = form.as_entry()
        model = queries.get_model(slug, form.cleaned_data["model"])
        services.add_price(by=principal_of(request), model=model, entry=entry)
        messages.success(request, f"{model} costs that from {entry.starts_on} on.")
    except PolarError as error:
        messages.error(request, f"Not priced: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("providers:provider", args=[slug]) + "#prices")


@require_POST
def change(request: HttpRequest, slug: str) -> HttpResponse:
    """Switch a provider on or off, trust its key again, or remove it."""
    by, action = principal_of(request), request.POST.get("action", "")
    try:
        if action in ("enable", "disable"):
            services.set_enabled(by=by, slug=slug, enabled=action == "enable")
        elif action == "trust":
            services.trust_key(by=by, slug=slug)
        elif action == "remove" and request.POST.get("confirm") == slug:
            services.remove_provider(by=by, slug=slug)
            messages.success(request, f"{slug} is removed; its history stays.")
            return HttpResponseRedirect(reverse("providers:list"))
        else:
            messages.error(request, f"Nothing changed: type {slug} to remove it.")
    except PolarError as error:
        messages.error(request, f"Not changed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("providers:provider", args=[slug]))


@require_POST
def change_route(request: HttpRequest, route_id: UUID) -> HttpResponse:
    """Put a route first in its lane, switch it, or close its breaker."""
    by, action = principal_of(request), request.POST.get("action", "")
    row = get_object_or_404(Route.objects.select_related("model"), pk=route_id)
    try:
        if action == "close_breaker":
            services.close_breaker(by=by, route=row)
        elif action in ("first", "enable", "disable"):
            services.save_route(
                by=by,
                lane=row.lane,
                model=row.model,
                enabled=row.enabled if action == "first" else action == "enable",
                first=action == "first",
            )
        messages.success(request, f"{row}: done.")
    except PolarError as error:
        messages.error(request, f"Not changed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("providers:list"))


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    """The matrix without forms: a panel refreshes under the hand."""
    lanes = matrix.rows(with_aside=False)
    return pages.panel(request, "providers/_panel.html", {"lanes": lanes})
