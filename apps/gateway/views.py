"""Stopping and resuming, and answering what agents ask."""

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.access import services as access
from apps.access.models import Principal, User
from apps.common import pages
from apps.common.errors import PolarError
from apps.gateway import queries, services
from apps.gateway.models import ApprovalRequest, Call, CallState, Halt

#: How many lifted halts and how many open questions a page shows.
SHOWN = 20
PANEL_SHOWN = 5

#: What may be stopped, in the words of the form.
SCOPES = (
    ("all", "everything"),
    ("lane", "one lane"),
    ("agent", "one agent"),
    ("extension", "one extension"),
    ("provider", "one provider"),
    ("run", "one run"),
)


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@require_GET
def halts(request: HttpRequest) -> HttpResponse:
    return render(request, "gateway/halts.html", _halts_context(request))


@require_POST
def set_halt(request: HttpRequest) -> HttpResponse:
    kind = request.POST.get("kind", "all")
    name = request.POST.get("name", "").strip().removeprefix("@")
    scope = "all" if kind == "all" else f"{kind}:{name}"
    reason = request.POST.get("reason", "")
    try:
        if kind != "all" and not name:
            messages.error(request, f"Not stopped: name the {kind}.")
        else:
            services.halt(by=principal_of(request), scope=scope, reason=reason)
            messages.warning(request, f"Stopped: {scope}. It holds from now on.")
    except PolarError as error:
        messages.error(request, f"Not stopped: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("gateway:halts"))


@require_POST
def resume(request: HttpRequest, halt_id: UUID) -> HttpResponse:
    reason = request.POST.get("reason", "").strip()
    try:
        services.resume(by=principal_of(request), halt_id=halt_id, reason=reason)
        messages.success(request, "Resumed. Waiting work goes on.")
    except PolarError as error:
        messages.error(request, f"Not resumed: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("gateway:halts"))


@require_GET
def approvals(request: HttpRequest) -> HttpResponse:
    pending = queries.pending_approvals(principal_of(request))[: pages.PAGE_SIZE]
    context = {"questions": [_question(asked) for asked in pending]}
    return render(request, "gateway/approvals.html", context)


@require_POST
def decide(request: HttpRequest, approval_id: UUID) -> HttpResponse:
    approve = request.POST.get("answer") == "approve"
    try:
        services.decide_approval(
            by=principal_of(request),
            approval_id=approval_id,
            approve=approve,
            reason=request.POST.get("reason", ""),
        )
        word = "Approved once." if approve else "Rejected."
        messages.success(request, f"{word} The run that asked goes on.")
    except PolarError as error:
        messages.error(request, f"Not decided: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("gateway:approvals"))


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    pending = queries.pending_approvals(principal_of(request))[:PANEL_SHOWN]
    context = {"questions": [_question(asked) for asked in pending]}
    return pages.panel(request, "gateway/_panel.html", context)


def _halts_context(request: HttpRequest) -> dict[str, Any]:
    principal = principal_of(request)
    calls = Call.objects.visible_to(principal)
    return {
        "halts": queries.halts(),
        "lifted": Halt.objects.exclude(lifted_at=None).order_by("-id")[:SHOWN],
        "still_running": calls.filter(state=CallState.EXECUTING).order_by("-id")[
            :SHOWN
        ],
        "scopes": SCOPES,
    }


def _question(asked: ApprovalRequest) -> dict[str, Any]:
    """What a person must see before deciding: tool, exact arguments, risk."""
    risk = asked.call.facts.get("risk", {})
    return {
        "asked": asked,
        "call": asked.call,
        "chips": [word for word in risk.values() if word and word != "none"],
        "labels": asked.call.facts.get("labels", []),
        "why": asked.call.facts.get("asks", []),
        "arguments": _pretty(asked.call.arguments),
    }


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
