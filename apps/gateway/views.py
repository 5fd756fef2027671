"""Stopping and resuming, and answering what agents ask."""

import re
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from apps.access import services as access
from apps.access.models import Principal, User
from apps.common import canonical, clock, pages
from apps.common.errors import Invalid, PolarError
from apps.common.units import whole_number
from apps.gateway import queries, services
from apps.gateway.engine import desk, purse
from apps.gateway.forms import BudgetForm, GrantForm
from apps.gateway.models import (
    ApprovalRequest,
    ApprovalState,
    BudgetScope,
    BudgetUnit,
    BudgetWindow,
    Call,
    CallState,
    Halt,
    OnExceed,
    Strictness,
)
from apps.gateway.ports import CallKind
from apps.gateway.schemas import WhatIfIn

#: How many lifted halts and how many open questions a page shows.
SHOWN = 20
PANEL_SHOWN = 5

_TRACE = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

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
    principal = principal_of(request)
    pending = list(queries.pending_approvals(principal)[: pages.PAGE_SIZE])
    context = {
        "groups": desk.grouped(pending, principal),
        "waiting": len(pending),
        "seen": _digest(pending),
    }
    return render(request, "gateway/approvals.html", context)


@require_GET
def decided(request: HttpRequest) -> HttpResponse:
    """What was answered, by whom and why, newest first."""
    answered = queries.approvals(principal_of(request)).exclude(
        state=ApprovalState.PENDING
    )
    state = request.GET.get("state", "")
    if state in ApprovalState.values:
        answered = answered.filter(state=state)
    page = pages.keyset(answered, request.GET)
    context = {"page": page, "state": state, "states": ApprovalState.values[1:]}
    return render(request, "gateway/decided.html", context)


@require_GET
def approval(request: HttpRequest, approval_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    asked = queries.get_approval(approval_id, principal)
    context = {"question": desk.question(asked, principal)}
    return render(request, "gateway/approval.html", context)


@require_GET
def news(request: HttpRequest) -> HttpResponse:
    """Says that the list has changed, without touching what somebody is typing."""
    pending = list(queries.pending_approvals(principal_of(request))[: pages.PAGE_SIZE])
    if request.GET.get("seen") == _digest(pending):
        return HttpResponse(status=204)
    return render(request, "gateway/_news.html", {"waiting": len(pending)})


@require_GET
def run_questions(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The open questions of one run, to be answered in its conversation."""
    principal = principal_of(request)
    pending = list(queries.questions_of_run(run_id, principal)[:SHOWN])
    if request.GET.get("seen", _digest([])) == _digest(pending):
        return HttpResponse(status=204)
    context = {
        "questions": [desk.question(asked, principal) for asked in pending],
        "run_id": run_id,
        "seen": _digest(pending),
    }
    return render(request, "gateway/_run_questions.html", context)


@require_POST
def decide(request: HttpRequest, approval_id: UUID) -> HttpResponse:
    said = request.POST.get("answer")
    hours = request.POST.get("hours", "")
    refusal, done = "", ""
    try:
        if said not in ("approve", "grant", "reject"):
            raise Invalid("Choose approve, grant or reject.")
        services.decide_approval(
            by=principal_of(request),
            approval_id=approval_id,
            approve=said != "reject",
            reason=request.POST.get("reason", ""),
            grant_hours=(whole_number(hours) or 0) if said == "grant" else 0,
        )
        done = desk.DONE[said]
    except PolarError as error:
        refusal = f"Not decided: {error.detail} ({error.code})"
    if pages.is_partial(request):
        context = {"refusal": refusal, "done": done, "approval_id": approval_id}
        return render(request, "gateway/_decided.html", context)
    if refusal:
        messages.error(request, refusal)
    else:
        messages.success(request, f"{done} The run that asked goes on.")
    return HttpResponseRedirect(reverse("gateway:approvals"))


@require_POST
def decide_many(request: HttpRequest) -> HttpResponse:
    """Answer exactly the questions that were on the page, each on its own."""
    listed = [UUID(each) for each in request.POST.getlist("approval") if _is_id(each)]
    approve = request.POST.get("answer") == "approve"
    said = services.decide_together(
        by=principal_of(request),
        approval_ids=listed[: pages.PAGE_SIZE],
        approve=approve,
        reason=request.POST.get("reason", ""),
    )
    refused = [why for _, why in said if why]
    word = "approved once" if approve else "rejected"
    messages.success(request, f"{len(said) - len(refused)} {word}.")
    for why in sorted(set(refused)):
        messages.error(request, f"{refused.count(why)} not decided: {why}")
    return HttpResponseRedirect(reverse("gateway:approvals"))


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    pending = queries.pending_approvals(principal)[:PANEL_SHOWN]
    context = {"questions": [desk.question(asked, principal) for asked in pending]}
    return pages.panel(request, "gateway/_panel.html", context)


@require_GET
def grants(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    rows = queries.grants(principal)
    if not request.GET.get("all"):
        rows = rows.filter(revoked_at__isnull=True)
    context = {
        "page": pages.keyset(rows, request.GET),
        "kinds": CallKind.choices,
        "all": bool(request.GET.get("all")),
        "now": clock.now(),
    }
    return render(request, "gateway/grants.html", context)


@require_POST
def make_grant(request: HttpRequest) -> HttpResponse:
    form = GrantForm(request.POST)
    try:
        made = services.make_grant(by=principal_of(request), new=form.as_new())
        messages.success(request, f"Granted: {', '.join(made.capabilities)}.")
    except PolarError as error:
        messages.error(request, f"Not granted: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("gateway:grants"))


@require_POST
def revoke_grant(request: HttpRequest, grant_id: UUID) -> HttpResponse:
    reason = request.POST.get("reason", "").strip()
    try:
        services.revoke_grant(
            by=principal_of(request), grant_id=grant_id, reason=reason
        )
        messages.success(request, "Revoked. What is not yet decided asks again.")
    except PolarError as error:
        messages.error(request, f"Not revoked: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("gateway:grants"))


@require_GET
def budgets(request: HttpRequest) -> HttpResponse:
    """What may be spent, and how near each limit is."""
    rows = queries.budgets(principal_of(request))
    archived = bool(request.GET.get("all"))
    page = pages.keyset(rows if archived else rows.filter(is_active=True), request.GET)
    context = {"page": page, "purses": purse.purses(page.rows), "all": archived}
    return render(request, "gateway/budgets.html", context)


@require_http_methods(["GET", "POST"])
def budget(request: HttpRequest, budget_id: UUID | None = None) -> HttpResponse:
    """Make a limit or change one; what was typed stays when it is refused."""
    principal = principal_of(request)
    context: dict[str, Any] = {
        "scopes": BudgetScope.values,
        "units": BudgetUnit.choices,
        "windows": BudgetWindow.values,
        "exceeds": OnExceed.values,
    }
    if request.method == "POST":
        version = request.POST.get("version", "")
        try:
            services.save_budget(
                by=principal,
                wanted=BudgetForm(request.POST).as_wanted(),
                budget_id=budget_id,
                expected_version=whole_number(version) or 0,
            )
        except PolarError as error:
            context["error"] = error
        else:
            messages.success(request, "Saved. It binds from the next call on.")
            return HttpResponseRedirect(reverse("gateway:budgets"))
    if budget_id is not None:
        row = queries.get_budget(budget_id, principal)
        context["purse"] = purse.purses([row])[0]
    typed = request.POST.dict() if request.method == "POST" else None
    context["typed"] = typed or purse.typed(context.get("purse"))
    return render(request, "gateway/budget.html", context)


@require_POST
def end_budget(request: HttpRequest, budget_id: UUID) -> HttpResponse:
    """Archive a limit, or let one serve again that an overrun blocked."""
    principal, version = principal_of(request), request.POST.get("version", "")
    try:
        if request.POST.get("do") == "unblock":
            services.unblock_budget(
                by=principal,
                budget_id=budget_id,
                reason=request.POST.get("reason", ""),
            )
            messages.success(request, "It serves again.")
        else:
            services.archive_budget(
                by=principal,
                budget_id=budget_id,
                expected_version=whole_number(version) or 0,
            )
            messages.success(request, "Archived. It no longer binds anything.")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("gateway:budgets"))


@require_GET
def find_explanation(request: HttpRequest) -> HttpResponse:
    """Go to the explanation of the trace id that was typed."""
    trace_id = request.GET.get("trace", "").strip().lower()
    if not _TRACE.fullmatch(trace_id):
        return render(request, "gateway/explain.html", {"trace_id": trace_id})
    return HttpResponseRedirect(reverse("gateway:explain", args=[trace_id]))


@require_GET
def explain(request: HttpRequest, trace_id: str) -> HttpResponse:
    principal = principal_of(request)
    found = desk.explanations(trace_id, principal)
    only = request.GET.get("only") == "stopped"
    stopped = [each for each in found if each.rule]
    context = {
        "trace_id": trace_id,
        "found": stopped if only else found,
        "total": len(found),
        "stopped": len(stopped),
        "only": only,
    }
    return render(request, "gateway/explain.html", context)


@require_GET
def what_if(request: HttpRequest) -> HttpResponse:
    """Replay one change over recorded calls; nothing is saved. A shareable link."""
    principal = principal_of(request)
    asked = request.GET
    context: dict[str, Any] = {
        "asked": asked,
        "grants": queries.grants(principal).filter(revoked_at__isnull=True)[:100],
        "budgets": queries.budgets(principal)[:100],
        "kinds": CallKind.choices,
        "strictnesses": Strictness.values,
    }
    if asked.get("change"):
        try:
            wanted = WhatIfIn.from_words(asked.dict())
            context["report"] = services.what_if(
                by=principal, wanted=wanted.as_wanted()
            )
        except PolarError as error:
            context["error"] = error
    return render(request, "gateway/whatif.html", context)


def _digest(asked: list[ApprovalRequest]) -> str:
    text = " ".join(str(each.id) for each in asked)
    return canonical.digest(text)[:12]


def _is_id(text: str) -> bool:
    return bool(_UUID.fullmatch(text.lower()))


def _halts_context(request: HttpRequest) -> dict[str, Any]:
    principal = principal_of(request)
    calls = Call.objects.visible_to(principal)
    return {
        "halts": queries.halts(),
        "lifted": Halt.objects.exclude(lifted_at=None).order_by("-id")[:SHOWN],
        "still_running": calls.unfinished(CallState.EXECUTING).order_by("-id")[:SHOWN],
        "scopes": SCOPES,
    }
