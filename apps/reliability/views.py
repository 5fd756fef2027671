"""Is it alive, is it ready? Open to load balancers, silent about secrets."""

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import Principal, Role, User
from apps.access.policies import can_role, check_role
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.boards.models import Task
from apps.common import clock, pages
from apps.common.errors import NotFound, PolarError
from apps.common.search import LONGEST, Hit

from . import queries, services
from .engine import finding, incidents, slo, slo_chart, sops
from .models import INCIDENT, AlertCode, AlertState, IncidentState, Severity
from .queries import count_held, readiness, rollbacks

EARLIER = 20
#: Where the search box leads by name.
PAGES = (
    ("Home", "home"),
    ("Chat", "channels:list"),
    ("Board", "boards:list"),
    ("Runs", "runs:list"),
    ("Approvals", "gateway:approvals"),
    ("Grants", "gateway:grants"),
    ("What-if", "gateway:whatif"),
    ("Explain a refusal", "gateway:find_explanation"),
    ("Dead letters", "runs:dead_letters"),
    ("Schedules", "runs:schedules"),
    ("Agents", "agents:list"),
    ("Memory", "agents:memory"),
    ("Providers", "providers:list"),
    ("Extensions", "extensions:list"),
    ("Channels", "channels:accounts"),
    ("Usage", "agents:usage"),
    ("Budgets", "gateway:budgets"),
    ("Recursion", "agents:recursion"),
    ("Audit", "audit:list"),
    ("Incidents", "reliability:incidents"),
    ("Alerts", "reliability:alerts"),
    ("Drills", "reliability:drills"),
    ("Continuity", "reliability:continuity"),
    ("Store and snapshots", "reliability:store"),
    ("Vault", "vault:status"),
    ("Halts", "gateway:halts"),
    ("All records", "admin:index"),
)
MOST_ALERTS = 100


@login_not_required
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer as long as the process serves requests."""
    return JsonResponse({"status": "alive"})


@login_not_required
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while requests can be served; degraded is still ready."""
    try:
        checks = readiness()
    except DatabaseError:
        return JsonResponse(
            {"status": "unavailable", "degraded": ["store"]}, status=503
        )
    degraded = [check.name for check in checks if not check.is_ok]
    status = "degraded" if degraded else "ready"
    return JsonResponse({"status": status, "degraded": degraded})


def home(request: HttpRequest) -> HttpResponse:
    """Show the panels; each loads from its owner."""
    return render(request, "home.html")


def annunciator(request: HttpRequest) -> HttpResponse:
    """Answer with the header's sentence, or 204 while it stays the same."""
    return pages.panel(request, "reliability/_annunciator.html", {})


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """Go where the words lead, or list what they hit; a fragment while typing."""
    typed = request.GET.get("q", "")
    hits = finding.find(typed, _principal_of(request))
    context = {"typed": typed[:LONGEST], "hits": hits, "pages": _pages(typed)}
    if pages.is_partial(request):
        return render(request, "reliability/_hits.html", context)
    target = finding.jump(hits)
    if target is not None:
        return HttpResponseRedirect(target.url)
    return render(request, "reliability/search.html", context)


def _pages(typed: str) -> list[Hit]:
    """The pages whose name begins with the words; all of them for none."""
    words = typed.strip().lower()
    found = []
    for label, name in PAGES:
        if words and not label.lower().startswith(words):
            continue
        try:
            found.append(Hit("Page", label, reverse(name)))
        except NoReverseMatch:
            continue  # an app that this install leaves out
    return found


def _principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access_services.principal_for_user(user=request.user)


@require_GET
def store(request: HttpRequest) -> HttpResponse:
    """Show whether the store is the one the witness knows, and its snapshots."""
    principal = _principal_of(request)
    check_role(principal, Role.VIEWER, access.default_workspace())
    standing = audit.standing_alarm()
    found = rollbacks()
    if standing is None:
        newest = found.first()
    else:
        newest = rollbacks().filter(alarm_id=standing.id).first()
    context = {
        "alarm": standing,
        "head": audit_queries.head(),
        "rollback": newest,
        "held": count_held(newest),
        "snapshots": services.snapshots(),
        "earlier": (found.exclude(id=newest.id) if newest else found)[:EARLIER],
    }
    return render(request, "reliability/store.html", context)


@require_POST
def accept_rollback(request: HttpRequest) -> HttpResponse:
    """Go on from the store as it is."""
    reason = request.POST.get("reason", "")
    try:
        services.accept_rollback(by=_principal_of(request), reason=reason)
        messages.warning(request, "Accepted: a new epoch has begun. Look at what waits")
    except PolarError as error:
        messages.error(request, f"Not accepted: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))


@require_POST
def resume_stale(request: HttpRequest, rollback_id: UUID) -> HttpResponse:
    """Let the held runs go on."""
    reason = request.POST.get("reason", "")
    try:
        resumed = services.resume_stale(
            by=_principal_of(request), rollback_id=rollback_id, reason=reason
        )
        messages.success(request, f"{len(resumed)} runs go on.")
    except PolarError as error:
        messages.error(request, f"Not resumed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))


@require_POST
def create_snapshot(request: HttpRequest) -> HttpResponse:
    """Copy the store now."""
    try:
        made = services.create_snapshot(by=_principal_of(request))
        messages.success(request, f"Snapshot {made.name}: {made.events} events.")
    except PolarError as error:
        messages.error(request, f"No snapshot: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:store"))


@require_GET
def config(request: HttpRequest) -> HttpResponse:
    """Show every setting as others would import it."""
    return render(request, "reliability/config.html", _config_context(request))


@require_GET
def export_config(request: HttpRequest) -> HttpResponse:
    document = services.export_config(by=_principal_of(request))
    answer = HttpResponse(services.as_text(document), content_type="application/json")
    answer["Content-Disposition"] = 'attachment; filename="polar-config.json"'
    return answer


@require_POST
def import_config(request: HttpRequest) -> HttpResponse:
    """Compare a pasted or uploaded document, or import it."""
    by, text = _principal_of(request), _document_text(request)
    context: dict[str, Any] = {"text": text}
    try:
        document = services.parse_document(text)
        if request.POST.get("do") == "import":
            found = services.import_config(by=by, document=document)
            messages.success(request, f"Imported: {len(found)} settings changed.")
        else:
            context["diff"] = services.diff_config(by=by, document=document)
            context["compared"] = True
        context["missing"] = services.secrets_to_enter(document)
    except PolarError as error:
        named = "; ".join(f"{each.path}: {each.problem}" for each in error.fields)
        messages.error(request, f"Nothing was changed: {error.detail} {named}")
    context |= _config_context(request)
    return render(request, "reliability/config.html", context)


def _document_text(request: HttpRequest) -> str:
    upload = request.FILES.get("file")
    if upload is None:
        return str(request.POST.get("document", ""))
    return upload.read().decode("utf-8", "replace")


def _config_context(request: HttpRequest) -> dict[str, Any]:
    by = _principal_of(request)
    sections: dict[str, list[tuple[str, str, str]]] = {}
    for entry in services.list_configs(by=by):
        shown = (entry.key, entry.version, services.as_text(entry.value))
        sections.setdefault(entry.section, []).append(shown)
    may_import = can_role(by, Role.ADMIN, access.default_workspace())
    return {"sections": sections, "may_import": may_import}


def incident_list(request: HttpRequest) -> HttpResponse:
    """What is under way, and what is over."""
    principal = _principal_of(request)
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
    principal = _principal_of(request)
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
        made = services.open_incident(by=_principal_of(request), new=new)
    except PolarError as error:
        messages.error(request, f"Not opened: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("reliability:incidents"))
    return HttpResponseRedirect(reverse("reliability:incident", args=[made.id]))


@require_POST
def run_step(request: HttpRequest, incident_id: UUID, step: str) -> HttpResponse:
    """Do one step of the checklist."""
    try:
        done = services.run_step(
            by=_principal_of(request),
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
    said, by = request.POST, _principal_of(request)
    version = said.get("expected_version", "")
    seen: dict[str, Any] = {
        "by": by,
        "incident_id": incident_id,
        "expected_version": int(version) if version.isdecimal() else 0,
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
    by = _principal_of(request)
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
    principal = _principal_of(request)
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
        services.acknowledge_alert(by=_principal_of(request), alert_id=alert_id)
    except PolarError as error:
        messages.error(request, f"Not acknowledged: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("reliability:alerts"))


@require_POST
def silence_alert(request: HttpRequest) -> HttpResponse:
    """Keep news back for a while, or let it through again."""
    said, by = request.POST, _principal_of(request)
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
                hours=int(hours) if hours.isdecimal() else 0,
            )
    except (PolarError, ValueError) as error:
        messages.error(request, f"Not silenced: {error}")
    return HttpResponseRedirect(reverse("reliability:alerts"))


@require_GET
def slo_page(request: HttpRequest) -> HttpResponse:
    """The three promises, and what is left of their error budgets."""
    check_role(_principal_of(request), Role.VIEWER, access.default_workspace())
    now = clock.now()
    charts = [slo_chart.draw(each, now) for each in slo.standings(now)]
    return render(request, "reliability/slo.html", {"charts": charts})


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    """Open incidents and standing alerts, for the home page."""
    principal = _principal_of(request)
    rows = queries.incidents(principal=principal, state="under_way")
    context = {
        "incidents": rows.order_by("severity", "-id")[:5],
        "alerts": queries.alerts(state="standing", origin="real")[:5],
    }
    return pages.panel(request, "reliability/_panel.html", context)
