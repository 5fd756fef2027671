"""Agents: who answers, in which lane, with which reach and limits."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from apps.access.queries import workspaces_of
from apps.agents import policies, queries, services
from apps.agents.engine import atlas, lanes, routing, usage
from apps.agents.forms import DeskForm, NewProfileForm, PinForm
from apps.agents.models import AgentProfile, PinScope
from apps.agents.views.asking import principal_of
from apps.common.errors import PolarError
from apps.common.units import whole_number
from apps.gateway import queries as gateway
from apps.providers.models import Lane

MOST_PROFILES = 500


@require_GET
def agent_list(request: HttpRequest) -> HttpResponse:
    profiles = AgentProfile.objects.visible_to(principal_of(request))
    profiles = profiles.select_related("workspace", "pinned_model__provider")
    shown = list(profiles.order_by("slug", "id")[:MOST_PROFILES])
    context = {"profiles": shown, "graph": atlas.graph(shown), "lanes": Lane.values}
    return render(request, "agents/list.html", context)


@require_GET
def agent_detail(request: HttpRequest, profile_id: UUID) -> HttpResponse:
    """One agent: its lane, reach and pins, and how its versions differ."""
    profile, principal = _profile(request, profile_id), principal_of(request)
    day = usage.narrowed(
        usage.groups(principal=principal, days=1), {"profile": profile.slug}
    )
    context = {
        "profile": profile,
        "day": usage.totals(day),
        "recent": queries.newest_turns(profile=profile, principal=principal),
        "history": atlas.history(profile),
        "pins": profile.pins.order_by("scope", "key"),
        "lanes": Lane.values,
        "policy": lanes.policy_of(profile),
        "routing": routing.settings_of(profile),
        "budgets": gateway.budgets(principal).filter(
            scope="profile", scope_key=profile.slug, is_active=True
        ),
    }
    return render(request, "agents/detail.html", context)


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, profile_id: UUID) -> HttpResponse:
    """Change an agent; its next turn is another's who it now is."""
    return _edited(request, _profile(request, profile_id))


@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Describe an agent that does not exist yet."""
    by = principal_of(request)
    workspace = workspaces_of(by).first()
    if workspace is None:
        raise Http404("You belong to no workspace yet.")
    policies.check_may_shape(by, workspace)
    named = NewProfileForm(request.GET)
    slug = named.cleaned_data["slug"] if named.is_valid() else ""
    if not slug:
        return render(
            request, "agents/new.html", {"form": named if request.GET else None}
        )
    if AgentProfile.objects.filter(workspace=workspace, slug=slug).exists():
        messages.error(request, f"There is an agent @{slug} already.")
        return render(request, "agents/new.html", {"form": None}, status=409)
    title = slug.replace("-", " ").replace("_", " ").title()
    draft = AgentProfile(workspace=workspace, slug=slug, title=title, version=0)
    return _edited(request, draft)


def _edited(request: HttpRequest, profile: AgentProfile) -> HttpResponse:
    form = DeskForm(profile, request.POST or None)
    error: PolarError | None = None
    if request.method == "POST":
        try:
            saved = services.save_profile(
                by=principal_of(request),
                workspace=profile.workspace,
                slug=profile.slug,
                changes=form.as_changes(),
                expected_version=form.cleaned_data["version"],
            )
        except PolarError as refusal:
            error = refusal
        else:
            said = f"{saved} is at version {saved.version}; its next turn is served so."
            messages.success(request, said)
            return HttpResponseRedirect(reverse("agents:detail", args=[saved.id]))
    context = {"profile": profile, "form": form, "error": error}
    status = error.http_status if error else 200
    return render(request, "agents/edit.html", context, status=status)


@require_GET
def pin_list(request: HttpRequest) -> HttpResponse:
    """Who is served by which agent, and how that was decided for me."""
    by = principal_of(request)
    workspace = workspaces_of(by).first()
    context: dict[str, Any] = {
        "pins": queries.pins(visible_to=by)[:MOST_PROFILES],
        "profiles": AgentProfile.objects.visible_to(by).active().order_by("slug"),
        "scopes": PinScope.choices,
        "order": queries.SCOPE_ORDER,
        "me": by,
        "workspace": workspace,
    }
    try:
        if workspace is not None:
            context["mine"] = queries.resolve_profile(workspace=workspace, principal=by)
    except PolarError as error:
        context["broken"] = error
    return render(request, "agents/pins.html", context)


@require_POST
def pin_change(request: HttpRequest) -> HttpResponse:
    """Pin an agent for a scope, or take a pin away."""
    by, form = principal_of(request), PinForm(request.POST)
    try:
        workspace = workspaces_of(by).get()
        scope, key = request.POST.get("scope", ""), request.POST.get("key", "").strip()
        own = {PinScope.USER: str(by.id), PinScope.WORKSPACE: str(workspace.id)}
        key = key or own.get(PinScope(scope), "") if scope in own else key
        if request.POST.get("do") == "unpin":
            services.unpin(by=by, scope=scope, key=key, workspace=workspace)
            messages.success(request, "Taken away; the next turn asks the next pin.")
        elif form.is_valid():
            agent = form.cleaned_data["agent"]
            chosen = queries.get_profile(workspace=workspace, slug=agent)
            services.pin(by=by, scope=scope, key=key, profile=chosen)
            messages.success(request, f"{chosen} serves this {scope} from now on.")
        else:
            messages.error(request, "Not pinned: choose a scope and an agent.")
    except PolarError as error:
        messages.error(request, f"Not changed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("agents:pins"))


@require_POST
def switch_lane(request: HttpRequest, profile_id: UUID) -> HttpResponse:
    """Change an agent's lane; its next turn asks there."""
    profile = _profile(request, profile_id)
    version, lane = request.POST.get("version", ""), request.POST.get("lane", "")
    try:
        saved = services.save_profile(
            by=principal_of(request),
            workspace=profile.workspace,
            slug=profile.slug,
            changes={"lane": lane},
            expected_version=whole_number(version) or 0,
        )
        messages.success(request, f"{saved} asks the {saved.lane} lane from now on.")
    except PolarError as error:
        messages.error(request, f"Not switched: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("agents:detail", args=[profile.id]))


def _profile(request: HttpRequest, profile_id: UUID) -> AgentProfile:
    profiles = AgentProfile.objects.visible_to(principal_of(request))
    found = profiles.select_related("workspace", "pinned_model__provider")
    profile = found.filter(id=profile_id).first()
    if profile is None:
        raise Http404("There is no such agent, or it is not yours to see.")
    return profile
