"""The audit log for people: search, one event with its proof, verify now."""

from datetime import date, datetime, time
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Max, Min, Q
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
)
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.views.decorators.http import require_GET, require_POST

from apps.audit import ports, queries, services
from apps.audit.engine import telling
from apps.audit.models import Event, EventQuerySet
from apps.common import ids, pages
from apps.common.actor import Actor
from apps.common.errors import Denied, Invalid, NotFound, PolarError
from apps.common.units import whole_number

#: `audit` stands below `access`, so a person's roles are read as data.
ROLES_FOR_ALL = ("admin",)
#: Links of the chain on the page.
CHECKPOINTS_SHOWN = 6
#: Where no index leads, so many of the newest events are looked through.
RECENT = 200_000
#: The greatest number an event can have.
MOST_GSEQ = 2**63 - 1
#: What the filters offer.
DECISIONS = ("denied", "awaiting_approval", "succeeded", "failed", "unknown")
ACTORS = ("human", "agent", "automation", "system")


@require_GET
def event_list(request: HttpRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()
    kind = request.GET.get("type", "").strip()
    rows = _search(visible_events(request), text)
    if kind:
        rows = rows.filter(type=kind)
    if decision := request.GET.get("decision", ""):
        rows = rows.filter(decision=decision)
    if actor := request.GET.get("actor", ""):
        rows = rows.filter(_newest(rows), actor_kind=actor)
    if since := parse_date(request.GET.get("since", "")):
        rows = rows.filter(id__gte=ids.first_at(_midnight(since)))
    page = pages.keyset(rows, request.GET)
    asked = {"q": text, "type": kind, "decision": decision, "actor": actor}
    context = _state() | {
        "chain": _chain(),
        "page": page,
        "rows": telling.told(page.rows),
        "asked": asked | {"since": since},
        "is_asked": any(asked.values()) or since,
        "decisions": DECISIONS,
        "actors": ACTORS,
        "types": [name for name, _ in ports.choices()],
        "recent": RECENT,
        "may_export": _sees_all(request),
        "most": services.MOST_ZIPPED,
    }
    return render(request, "audit/list.html", context)


@require_POST
def export(request: HttpRequest) -> HttpResponseBase:
    """Hand out a range of the log, or what a trace spans, as a signed bundle."""
    if not _sees_all(request):
        raise Denied("Exporting the log needs the role admin.")
    user: Any = request.user
    by = Actor("human", str(user.pk), user.get_username())
    try:
        first, end = _range(request)
        file = services.export_zipped(by=by, from_=first, to=end)
    except PolarError as error:
        messages.error(request, f"Not exported: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("audit:list"))
    name = f"polar-export-{first}-{end}.zip"
    return FileResponse(file, as_attachment=True, filename=name)


def _range(request: HttpRequest) -> tuple[int, int]:
    """Read which events are wanted: from, up to. Raises: Invalid."""
    if trace := request.POST.get("trace", ""):
        sealed = Event.objects.of_trace(trace).sealed()
        ends = sealed.aggregate(first=Min("gseq"), last=Max("gseq"))
        if ends["first"] is None:
            raise Invalid("Nothing of this trace is sealed yet; try again in a second.")
        return ends["first"], ends["last"] + 1
    typed = [request.POST.get(name, "").replace(",", "") for name in ("from", "to")]
    first, end = (whole_number(each, most=MOST_GSEQ) for each in typed)
    if first is None or end is None:
        raise Invalid(
            "Say the numbers of the first event and of the one after the last."
        )
    return first, end


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


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _search(rows: EventQuerySet, text: str) -> EventQuerySet:
    """Find by what people hold in hand: a trace, a number, a type; among the newest,
    also an actor, a subject, a digest, which no index holds."""
    if not text:
        return rows
    wanted = Q(trace_id=text) & ~Q(trace_id="") | Q(type=text)
    place = whole_number(text.replace(",", ""), most=MOST_GSEQ)
    if place is not None:
        wanted |= Q(gseq=place)
    named = Q(actor_label=text) | Q(subject_id=text) | Q(digest=text)
    return rows.filter(wanted | _newest(rows) & named)


def _newest(rows: EventQuerySet) -> Q:
    """What is looked through where no index leads."""
    ends = rows.order_by("-id").values_list("id", flat=True)[RECENT : RECENT + 1]
    return Q(id__gte=ends[0]) if ends else Q()


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
