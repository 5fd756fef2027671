"""The audit log for people: search, one event with its proof, verify now."""

from itertools import pairwise
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.audit import queries, services
from apps.audit.models import Event, EventQuerySet
from apps.common import pages
from apps.common.errors import Denied, NotFound

#: `audit` stands below `access`, so a person's roles are read as data.
ROLES_FOR_ALL = ("admin",)
#: Links of the chain on the page.
CHECKPOINTS_SHOWN = 6


@require_GET
def event_list(request: HttpRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()
    kind = request.GET.get("type", "").strip()
    rows = _search(visible_events(request), text)
    if kind:
        rows = rows.filter(type=kind)
    if decision := request.GET.get("decision", ""):
        rows = rows.filter(decision=decision)
    context = _state() | {
        "chain": _chain(),
        "page": pages.keyset(rows, request.GET),
        "text": text,
        "kind": kind,
        "decision": decision,
    }
    return render(request, "audit/list.html", context)


@require_GET
def detail(request: HttpRequest, event_id: UUID) -> HttpResponse:
    event = visible_events(request).filter(id=event_id).first()
    if event is None:
        raise NotFound("There is no such event, or it is not yours to see.")
    proof = services.proof(gseq=event.gseq) if event.gseq is not None else None
    context = {"event": event, "proof": proof, "path": _path(proof)}
    return render(request, "audit/detail.html", context)


@require_POST
def verify(request: HttpRequest) -> HttpResponse:
    """Recompute the whole log and compare it with its witnesses."""
    if not _sees_all(request):
        raise Denied("Verifying the log needs the role admin.")
    verdict = services.verify()
    if verdict.ok:
        messages.success(
            request,
            f"The log is whole: {verdict.size} events, root {verdict.root[:16]}.",
        )
    else:
        messages.error(
            request,
            f"The log is NOT whole, first at {verdict.first_bad}: {verdict.problem}",
        )
    return HttpResponseRedirect(reverse("audit:list"))


def visible_events(request: HttpRequest) -> EventQuerySet:
    """Keep what this person may see: admins everything, others their workspaces."""
    if _sees_all(request):
        return Event.objects.all()
    user: Any = request.user
    mine = user.memberships.values("workspace_id")
    return Event.objects.filter(workspace_id__in=mine)


def _sees_all(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(
        user.is_superuser or user.memberships.filter(role__in=ROLES_FOR_ALL).exists()
    )


def _search(rows: EventQuerySet, text: str) -> EventQuerySet:
    """Find by what people hold in hand: a trace, an actor, a type, a digest."""
    if not text:
        return rows
    wanted = Q(trace_id=text) | Q(actor_label=text) | Q(type=text) | Q(digest=text)
    wanted |= Q(subject_id=text)
    if text.replace(",", "").isdigit():
        wanted |= Q(gseq=int(text.replace(",", "")))
    return rows.filter(wanted)


def _chain() -> list[dict[str, Any]]:
    """The last checkpoints, each with how many events it signed anew."""
    known = queries.newest_checkpoints(CHECKPOINTS_SHOWN + 1)
    return [
        {"checkpoint": later, "first": earlier.size, "more": later.size - earlier.size}
        for earlier, later in pairwise(known)
        if later.size > earlier.size
    ]


def _state() -> dict[str, Any]:
    """How far the log is sealed, signed and copied elsewhere."""
    return {
        "head": queries.head(),
        "unsealed": queries.count_unsealed(),
        "checkpoint": queries.latest_checkpoint(),
        "triggers_missing": services.triggers_missing(),
        "sinks": queries.sink_cursors(),
        "can_seal": services.can_seal(),
    }


def _path(proof: Any) -> list[str]:
    return [] if proof is None else [node.hex() for node in getattr(proof, "path", [])]
