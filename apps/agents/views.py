"""Agents, and the trace of what they did."""

import csv
import json
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

from apps.access import services as access
from apps.access.models import Principal, User
from apps.access.queries import workspaces_of
from apps.agents import policies, queries, services
from apps.agents.engine import (
    atlas,
    lanes,
    memory,
    recursion,
    routing,
    usage,
    waterfall,
)
from apps.agents.forms import DeskForm, NewProfileForm, PinForm
from apps.agents.models import AgentProfile, Memory, PinScope, Turn
from apps.audit.models import Event
from apps.common import pages
from apps.common.errors import NotFound, PolarError
from apps.common.units import whole_number
from apps.gateway import queries as gateway
from apps.gateway.models import Call, CallKind, CallState
from apps.providers.models import Lane, Origin

#: How many events stand beside a trace; the rest are in the audit log.
EVENTS_SHOWN = 40
MOST_PROFILES = 500
#: What the heat map looks back over. Units: hours.
WINDOWS = (24, 168, 720)
#: What the usage page looks back over. Units: days.
DAY_WINDOWS = (7, 30, 90)


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


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
    profile = _profile(request, profile_id)
    context = {
        "profile": profile,
        "history": atlas.history(profile),
        "pins": profile.pins.order_by("scope", "key"),
        "lanes": Lane.values,
        "policy": lanes.policy_of(profile),
        "routing": routing.settings_of(profile),
        "budgets": gateway.budgets(principal_of(request)).filter(
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


@require_GET
def recursion_map(request: HttpRequest) -> HttpResponse:
    """The heat map of one root, or of the last hours."""
    principal, root = principal_of(request), request.GET.get("root", "")
    hours = _hours(request.GET.get("hours", ""))
    if root:
        drawn = recursion.of_root(root_id=_uuid(root), principal=principal)
    else:
        drawn = recursion.of_window(hours=hours, principal=principal)
    context = {"map": drawn, "hours": hours, "windows": WINDOWS}
    return render(request, "agents/recursion.html", context)


@require_GET
def usage_page(request: HttpRequest) -> HttpResponse:
    days, origin = _days(request), _origin(request)
    principal = principal_of(request)
    rows = usage.table(principal=principal, days=days, origin=origin)
    context = {
        "rows": rows,
        "total": usage.totals(rows),
        "chart": usage.chart(rows, days),
        "latency": usage.latency(rows, days),
        "days": days,
        "origin": origin,
        "windows": DAY_WINDOWS,
        "lanes": Lane.values,
        "most": usage.MOST_GROUPS,
    }
    return render(request, "agents/usage.html", context)


@require_GET
def usage_csv(request: HttpRequest) -> HttpResponse:
    """The same groups as a file."""
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="usage.csv"'
    principal, days = principal_of(request), _days(request)
    writer = csv.writer(answer)
    writer.writerows(
        usage.lines(principal=principal, days=days, origin=_origin(request))
    )
    return answer


@require_GET
def memory_list(request: HttpRequest) -> HttpResponse:
    asked = request.GET.get("q", "").strip()[:200]
    rows = Memory.objects.shown_to(principal_of(request))
    for word in memory.words_of(asked)[:20]:
        rows = rows.filter(words__word__startswith=word)
    page = pages.keyset(rows.distinct(), request.GET, size=25)
    return render(request, "agents/memory.html", {"page": page, "q": asked})


@require_POST
def memory_change(request: HttpRequest, memory_id: UUID) -> HttpResponse:
    """Correct or forget one memory."""
    by = principal_of(request)
    try:
        if request.POST.get("do") == "forget":
            memory.forget(by=by, memory_id=memory_id)
            messages.success(request, "Forgotten. Conversations keep what was said.")
        else:
            text = request.POST.get("text", "")
            memory.correct(by=by, memory_id=memory_id, text=text)
            messages.success(request, "Corrected; agents recall your words now.")
    except PolarError as error:
        messages.error(request, f"Not changed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("agents:memory"))


def _days(request: HttpRequest) -> int:
    asked = request.GET.get("days", "")
    return int(asked) if asked in map(str, DAY_WINDOWS) else DAY_WINDOWS[0]


def _origin(request: HttpRequest) -> str:
    asked = request.GET.get("origin", "")
    return asked if asked in Origin.values else str(Origin.REAL)


def _hours(asked: str) -> int:
    return int(asked) if asked in map(str, WINDOWS) else WINDOWS[0]


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such run.") from None


@require_GET
def trace(request: HttpRequest, trace_id: str) -> HttpResponse:
    found = waterfall.read_trace(trace_id, principal_of(request))
    context = {
        "trace": found,
        "turn": found.turns[0] if found.turns else None,
        "run": found.runs[0] if found.runs else None,
        "facts": _facts(found),
        "chosen": _chosen(found, request.GET.get("row", "")),
        "events": Event.objects.of_trace(trace_id)[:EVENTS_SHOWN],
    }
    if pages.is_partial(request):
        return pages.panel(request, "agents/_waterfall.html", context)
    return render(request, "agents/trace.html", context)


def _facts(found: waterfall.Trace) -> dict[str, Any]:
    calls = found.calls
    models = [call for call in calls if call.kind == CallKind.MODEL]
    effects = [
        call
        for call in calls
        if call.kind != CallKind.MODEL and call.state == CallState.SUCCEEDED
    ]
    events = Event.objects.of_trace(found.trace_id)
    return {
        "models": len(models),
        "models_failed": sum(call.state != CallState.SUCCEEDED for call in models),
        "tokens_in": sum(call.tokens_in for call in calls),
        "tokens_out": sum(call.tokens_out for call in calls),
        "micros": sum(call.micros for call in calls),
        "effects": ", ".join(call.capability for call in effects[:4]) or "none",
        "in_doubt": sum(call.state == CallState.UNKNOWN for call in calls),
        "depth": max((turn.depth for turn in found.turns), default=0),
        "events": events.count(),
        "sealed": events.sealed().count(),
        "sentence": _sentence(found.turns[0]) if found.turns else "",
    }


def _sentence(turn: Turn) -> str:
    """One line that says how the turn came out."""
    if turn.finished_at is None:
        return f"{turn.profile} is at work. This page follows it."
    if turn.degraded:
        return (
            f"Asked for the {turn.requested_lane} lane; {turn.lane} answered, "
            "and the answer said so."
        )
    if turn.answer_text and turn.state == "answered":
        return f"Answered by {turn.served_by or turn.lane}, as asked."
    return f"The turn ended as {turn.state}: {turn.reason or 'no reason was recorded'}."


def _chosen(found: waterfall.Trace, key: str) -> dict[str, Any] | None:
    bar = next((bar for bar in found.bars if bar.key == key), None)
    if bar is None:
        return None
    call = found.find_call(bar.call_id)
    if call is None:
        return {"bar": bar, "call": None}
    return {
        "bar": bar,
        "call": call,
        "stages": waterfall.stage_strip(call),
        "arguments": _pretty(call),
    }


def _pretty(call: Call) -> str:
    try:
        return json.dumps(json.loads(call.arguments), indent=2, ensure_ascii=False)
    except ValueError:
        return call.arguments
