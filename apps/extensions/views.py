"""Extensions on the desk: what may run, what changed, and how it is stopped."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import services as access
from apps.access.models import Principal, User
from apps.common import canonical
from apps.common.errors import PolarError
from apps.extensions import forms, ports, queries, services
from apps.extensions.engine import comparing, definition, sources
from apps.extensions.errors import AuthorizationWanted
from apps.extensions.models import Certificate, Extension, Lifecycle, Trust

#: How many forms, reviews and certificates a page shows, and lines of a difference.
SHOWN = 10
PAGE_ROWS = 50
MOST_LINES = 400
#: How an accepted lack of isolation is said: where it is so now, and where it may be.
OPEN, MAY_OPEN = "runs without isolation", "may run without isolation"
CHOICES = (
    ("riskLevel", "Risk", ("read", "write", "destructive")),
    ("sideEffects", "Effects", ("none", "internal", "external")),
    ("dataEgress", "Network", ("none", "network")),
)


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@require_GET
def extension_list(request: HttpRequest) -> HttpResponse:
    after = request.GET.get("after", "")
    found = list(queries.extensions().filter(ext_id__gt=after)[: PAGE_ROWS + 1])
    shown = found[:PAGE_ROWS]
    context = {
        "rows": [_row(row) for row in shown],
        "first": after,
        "next": shown[-1].ext_id if len(found) > PAGE_ROWS else "",
        "isolation": ports.isolation(),
    }
    return render(request, "extensions/list.html", context)


@require_GET
def detail(request: HttpRequest, ext_id: str) -> HttpResponse:
    row = queries.find_by_name(ext_id)
    callback = request.build_absolute_uri(reverse("extensions:connected"))
    context = {**_detail(row), "callback": callback}
    return render(request, "extensions/detail.html", context)


@require_GET
def install_form(request: HttpRequest) -> HttpResponse:
    return render(request, "extensions/install.html", {})


@require_POST
def install(request: HttpRequest) -> HttpResponse:
    kind = request.POST.get("kind", "skill")
    try:
        row = _install(request, kind)
    except AuthorizationWanted as wanted:
        messages.warning(request, f"Taken in. {wanted.detail}")
        name = request.POST.get("extension_id", "").strip()
        return HttpResponseRedirect(reverse("extensions:detail", args=[name]))
    except PolarError as error:
        if kind == "mcp" and (kept := _kept(request)):
            messages.warning(request, f"{kept} is kept, not asked: {error.detail}")
            return HttpResponseRedirect(reverse("extensions:detail", args=[kept]))
        messages.error(request, f"Not installed: {error.detail} ({error.code})")
        return render(
            request, "extensions/install.html", {"given": request.POST}, status=422
        )
    messages.success(request, f"{row.ext_id} waits for a review. Nothing of it runs.")
    return HttpResponseRedirect(reverse("extensions:detail", args=[row.ext_id]))


@require_POST
def sync(request: HttpRequest, ext_id: str) -> HttpResponse:
    """Ask the servers of an extension what they offer now."""
    reason = request.POST.get("reason", "").strip() or "asked at the desk"
    try:
        found = queries.find_by_name(ext_id)
        row = services.sync_mcp_server(
            by=principal_of(request), extension_id=found.id, reason=reason
        )
    except PolarError as error:
        messages.error(request, f"Not asked: {error.detail} ({error.code})")
    else:
        is_same = row.definition_hash == found.definition_hash
        said = "offers what it did" if is_same else "offers something new: review it"
        messages.success(request, f"{ext_id} {said}.")
    return HttpResponseRedirect(reverse("extensions:detail", args=[ext_id]))


@require_POST
def review(request: HttpRequest, ext_id: str) -> HttpResponse:
    try:
        verdict = forms.read_verdict(request.POST)
        services.review_extension(
            by=principal_of(request),
            extension_id=queries.find_by_name(ext_id).id,
            verdict=verdict,
        )
        word = "Approved exactly this form." if verdict.approve else "Blocked."
        messages.success(request, word)
    except PolarError as error:
        messages.error(request, f"Not decided: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("extensions:detail", args=[ext_id]))


@require_POST
def lifecycle(request: HttpRequest, ext_id: str) -> HttpResponse:
    operation = request.POST.get("operation", "")
    order = services.Order(
        operation=operation,
        reason=request.POST.get("reason", ""),
        definition_hash=request.POST.get("definition_hash", ""),
    )
    back = reverse("extensions:detail", args=[ext_id])
    try:
        row = queries.find_by_name(ext_id)
        by = principal_of(request)
        found = services.apply_lifecycle(by=by, extension_id=row.id, order=order)
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
        return HttpResponseRedirect(back)
    if found is None:
        messages.success(request, f"{ext_id}: {operation} is done.")
        return HttpResponseRedirect(back)
    messages.warning(request, f"{ext_id} is stopped. It is refused from now on.")
    return HttpResponseRedirect(reverse("extensions:certificate", args=[found.id]))


@require_POST
def connect(request: HttpRequest, ext_id: str) -> HttpResponse:
    """Send an administrator to the authorization server of an MCP server."""
    order = services.ConnectOrder(
        part=request.POST.get("part", ""),
        redirect_uri=request.build_absolute_uri(reverse("extensions:connected")),
        session_key=request.session.session_key or "",
        client_id=request.POST.get("client_id", "").strip(),
        client_secret=request.POST.get("client_secret", "").strip(),
    )
    try:
        asked = services.connect_extension(
            by=principal_of(request),
            extension_id=queries.find_by_name(ext_id).id,
            order=order,
        )
    except PolarError as error:
        messages.error(request, f"Not connected: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("extensions:detail", args=[ext_id]))
    return HttpResponseRedirect(asked.url)


@require_GET
def connected(request: HttpRequest) -> HttpResponse:
    """Where an authorization server sends the administrator back to. The state in
    the URL stands for the form's token: it is good once, here, for this session."""
    answer = services.Answer(
        state=request.GET.get("state", ""),
        code=request.GET.get("code", ""),
        iss=request.GET.get("iss"),
        error=request.GET.get("error", ""),
    )
    try:
        done = services.finish_connection(
            by=principal_of(request),
            session_key=request.session.session_key or "",
            answer=answer,
        )
    except PolarError as error:
        messages.error(request, f"Not connected: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("extensions:list"))
    name = done.extension.ext_id
    if done.problem:
        messages.warning(request, f"{name} is connected, but: {done.problem}")
    else:
        messages.success(request, f"{name} is connected. What it offers waits below.")
    return HttpResponseRedirect(reverse("extensions:detail", args=[name]))


@require_POST
def disconnect(request: HttpRequest, ext_id: str) -> HttpResponse:
    try:
        done = services.disconnect_extension(
            by=principal_of(request),
            extension_id=queries.find_by_name(ext_id).id,
            part=request.POST.get("part", ""),
            reason=request.POST.get("reason", ""),
        )
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    else:
        if done.problem:
            messages.warning(request, f"Forgotten here, but not ended: {done.problem}")
        else:
            messages.success(request, f"{ext_id}: its tokens are revoked and gone.")
    return HttpResponseRedirect(reverse("extensions:detail", args=[ext_id]))


@require_GET
def certificate(request: HttpRequest, certificate_id: UUID) -> HttpResponse:
    rows = Certificate.objects.select_related("extension")
    found = get_object_or_404(rows, id=certificate_id)
    context = {"certificate": found, "body": canonical.loads(found.body)}
    return render(request, "extensions/certificate.html", context)


@require_GET
def download(request: HttpRequest, certificate_id: UUID) -> HttpResponse:
    """The signed bytes, their signature and the key's name, as one JSON file."""
    found = get_object_or_404(Certificate, id=certificate_id)
    text = canonical.dumps(
        {"body": found.body, "signature": found.signature, "signer": found.signer}
    )
    response = HttpResponse(text, content_type="application/json")
    name = f"certificate-{found.digest[:12]}.json"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _install(request: HttpRequest, kind: str) -> Extension:
    by = principal_of(request)
    if kind == "mcp":
        new = forms.read_server(request.POST)
        reason = request.POST.get("reason", "")
        return services.sync_mcp_server(by=by, new=new, reason=reason)
    files = forms.read_package(request.FILES.get("archive"))
    origin = services.Origin(
        source=request.POST.get("source", "").strip() or "uploaded",
        revision=request.POST.get("revision", "").strip(),
    )
    take = services.install_plugin if kind == "plugin" else services.install_skill
    return take(by=by, files=files, origin=origin)


def _kept(request: HttpRequest) -> str:
    """The name of a server that was written down as typed, though it gave no answer."""
    new = forms.read_server(request.POST)
    rows = Extension.objects.filter(ext_id=new.extension_id, type="mcp")
    described = any(
        part["command"] == list(new.command) and part["url"] == new.url
        for row in rows
        for part in row.parts
    )
    return new.extension_id if described else ""


def _row(row: Extension) -> dict[str, Any]:
    current = [each for each in row.capabilities.all() if each.is_current]
    counts = {
        level: sum(each.risk_level == level for each in current)
        for level in ("read", "write", "destructive", "unknown")
    }
    risks = [f"{count} {level}" for level, count in counts.items() if count]
    return {
        "row": row,
        "risks": ", ".join(risks) or "nothing yet",
        "links": [
            f"connection {link.shown_status}"
            for link in row.connections.all()
            if link.needs_person
        ],
        "is_stoppable": row.trust != Trust.BLOCKED and row.lifecycle == "enabled",
    }


def _detail(row: Extension) -> dict[str, Any]:
    now, before = definition.manifest_of(row), queries.reviewed_form(row)
    is_native = not row.parts
    needs_review = not row.is_pinned
    stoppable = row.lifecycle == Lifecycle.ENABLED or row.trust != Trust.BLOCKED
    lines = comparing.diff(before, now) if needs_review and not is_native else []
    return {
        "row": row,
        "is_native": is_native,
        "needs_review": needs_review,
        "is_gone": row.lifecycle in (Lifecycle.REMOVED, Lifecycle.PENDING_INSTALL),
        "is_first": not before,
        "degraded": OPEN if sources.runs_open(row) else MAY_OPEN,
        "lines": lines[:MOST_LINES],
        "lines_left": max(len(lines) - MOST_LINES, 0),
        "delta": comparing.delta(before, now),
        "capabilities": row.capabilities.filter(is_current=True).order_by(
            "capability_id"
        ),
        "choices": CHOICES,
        "is_remote": any(part["transport"] == "http" for part in row.parts),
        "is_served": any(part["transport"] in ports.SERVED for part in row.parts),
        "radius": queries.blast_radius(row) if stoppable else None,
        "links": row.connections.order_by("part"),
        "moves": _moves(row),
        "versions": row.versions.order_by("-id")[:SHOWN],
        "reviews": row.reviews.order_by("-id")[:SHOWN],
        "certificates": row.certificates.order_by("-id")[:SHOWN],
    }


def _moves(row: Extension) -> list[tuple[str, str]]:
    """The quiet operations that fit the present state."""
    ready = row.is_pinned and row.trust != Trust.BLOCKED
    moves = []
    if ready and row.lifecycle in (Lifecycle.INSTALLED, Lifecycle.DISABLED):
        moves.append(("enable", "Enable"))
    if row.parts and row.versions.count() > 1:
        moves.append(("rollback", "Roll back"))
    if row.lifecycle in (Lifecycle.INSTALLED, Lifecycle.DISABLED):
        moves.append(("remove", "Remove"))
    return moves
