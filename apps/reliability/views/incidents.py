"""Incidents, alerts and objectives."""

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import queries as access
from apps.access.models import Principal, Role
from apps.access.policies import can_role, check_role
from apps.boards.models import Task
from apps.common import clock, pages
from apps.common.errors import NotFound, PolarError
from apps.common.units import whole_number
from apps.reliability import queries, services
from apps.reliability.engine import incidents, slo, slo_chart, sops
from apps.reliability.models import (
    INCIDENT,
    AlertCode,
    AlertState,
    IncidentState,
    Severity,
)
from apps.reliability.views.asking import principal_of

MOST_ALERTS = 100


def incident_list(request: HttpRequest) -> HttpResponse:
    """What is under way, and what is over."""
    principal = principal_of(request)
    state = request.GET.get("state", "")
    rows = queries.incidents(principal=principal, state=state)
    context = {
        "page": pages.keyset(rows, request.GET),
        "state": state,
        "states": IncidentState.values,
        "means": incidents.MEANS,
        "may_act": _may_act(principal),
    }
    return render(request, "reliability/incidents.html", context)


def _may_act(principal: Principal) -> bool:
    return can_role(principal, Role.OPERATOR, access.default_workspace())


@require_GET
def incident(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    """One incident: its timeline, and its checklist as actions."""
    principal = principal_of(request)
    try:
        row = queries.get_incident(incident_id, principal=principal)
    except NotFound as error:
        raise Http404(error.detail) from error
    alerts = list(row.alerts.order_by("id")[:MOST_ALERTS])
    results = list(row.results.order_by("id"))
    newest = {each.step: each for each in results}
    context = {
        "incident": row,
        "alerts": alerts,
        "steps": [(each, newest.get(each.slug)) for each in sops.of(row.severity)],
        "timeline": incidents.timeline(row, alerts)[::-1],
        "tasks": Task.objects.visible_to(principal).filter(incident_id=row.id)[:50],
        "moves": [to for to in INCIDENT.table[row.state] if to != "reviewed"],
        "roles": [(name, row.roles.get(name, "")) for name in services.ROLES],
        "severities": Severity.choices,
        "means": incidents.MEANS[Severity(row.severity)],
        "may_act": _may_act(principal),
    }
    return render(request, "reliability/incident.html", context)


@require_POST
def open_incident(request: HttpRequest) -> HttpResponse:
    """Open one by hand."""
    said = request.POST
    new = services.NewIncident(
        said.get("title", ""), said.get("severity", ""), said.get("because", "")
    )
    try:
        made = services.open_incident(by=principal_of(request), new=new)
    except PolarError as error:
        messages.error(request, f"Not opened: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("reliability:incidents"))
    return HttpResponseRedirect(reverse("reliability:incident", args=[made.id]))


@require_POST
def run_step(request: HttpRequest, incident_id: UUID, step: str) -> HttpResponse:
    """Do one step of the checklist."""
    try:
        done = services.run_step(
            by=principal_of(request),
            incident_id=incident_id,
            step=step,
            confirm=request.POST.get("confirm", ""),
        )
        tell = messages.success if done.ok else messages.warning
        tell(request, f"{step.replace('_', ' ')}: {done.summary}")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    return _back_to(incident_id)


def _back_to(incident_id: UUID) -> HttpResponseRedirect:
    return HttpResponseRedirect(reverse("reliability:incident", args=[incident_id]))


@require_POST
def change_incident(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    """Move, classify, assign, note or review; the form's `do` says which."""
    said, by = request.POST, principal_of(request)
    version = said.get("expected_version", "")
    seen: dict[str, Any] = {
        "by": by,
        "incident_id": incident_id,
        "expected_version": whole_number(version) or 0,
    }
    reason = said.get("reason", "")
    try:
        match said.get("do", ""):
            case "move":
                state = said.get("state", "")
                services.transition_incident(**seen, state=state, reason=reason)
            case "classify":
                severity = said.get("severity", "")
                services.classify_incident(**seen, severity=severity, reason=reason)
            case "assign":
                roles = {name: said.get(name, "") for name in services.ROLES}
                services.assign_incident(
                    **seen, owner=said.get("owner", ""), roles=roles
                )
            case "review":
                services.review_incident(**seen, review=said.dict())
            case _:
                text = said.get("text", "")
                services.note_on_incident(by=by, incident_id=incident_id, text=text)
    except PolarError as error:
        messages.error(request, f"Not kept: {error.detail} ({error.code})")
    return _back_to(incident_id)


@require_GET
def evidence(request: HttpRequest, incident_id: UUID, form: str) -> HttpResponse:
    """Hand out the signed bundle, as JSON or as Markdown."""
    by = principal_of(request)
    try:
        bundle = services.evidence(by=by, incident_id=incident_id)
    except NotFound as error:
        raise Http404(error.detail) from error
    name = bundle["incident"]["name"]
    if form == "md":
        answer = HttpResponse(services.as_markdown(bundle), "text/markdown")
    else:
        answer = HttpResponse(json.dumps(bundle, indent=2), "application/json")
    answer["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    return answer


@require_GET
def alert_list(request: HttpRequest) -> HttpResponse:
    """What stands, what is silenced, and what was."""
    principal = principal_of(request)
    check_role(principal, Role.VIEWER, access.default_workspace())
    state = request.GET.get("state", "standing")
    context = {
        "page": pages.keyset(queries.alerts(state=state), request.GET),
        "state": state,
        "states": ["standing", *AlertState.values],
        "codes": AlertCode.values,
        "silences": queries.silences()[:MOST_ALERTS],
        "breach": queries.newest_breach(),
        "may_act": _may_act(principal),
    }
    return render(request, "reliability/alerts.html", context)


@require_POST
def acknowledge_alert(request: HttpRequest, alert_id: UUID) -> HttpResponse:
    """Say that somebody looks at it."""
    try:
        services.acknowledge_alert(by=principal_of(request), alert_id=alert_id)
    except PolarError as error:
        messages.error(request, f"Not acknowledged: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:alerts"))


@require_POST
def silence_alert(request: HttpRequest) -> HttpResponse:
    """Keep news back for a while, or let it through again."""
    said, by = request.POST, principal_of(request)
    hours = said.get("hours", "")
    try:
        if lifted := said.get("lift", ""):
            services.lift_silence(by=by, silence_id=UUID(lifted))
        else:
            services.silence(
                by=by,
                code=said.get("code", ""),
                key=said.get("key", ""),
                reason=said.get("reason", ""),
                hours=whole_number(hours) or 0,
            )
    except (PolarError, ValueError) as error:
        messages.error(request, f"Not silenced: {error}")
    return HttpResponseRedirect(reverse("reliability:alerts"))


@require_GET
def slo_page(request: HttpRequest) -> HttpResponse:
    """The three promises, and what is left of their error budgets."""
    check_role(principal_of(request), Role.VIEWER, access.default_workspace())
    now = clock.now()
    charts = [slo_chart.draw(each, now) for each in slo.standings(now)]
    return render(request, "reliability/slo.html", {"charts": charts})


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    """Open incidents and standing alerts, for the home page."""
    principal = principal_of(request)
    rows = queries.incidents(principal=principal, state="under_way")
    context = {
        "incidents": rows.order_by("severity", "-id")[:5],
        "alerts": queries.alerts(state="standing", origin="real")[:5],
    }
    return pages.panel(request, "reliability/_panel.html", context)
