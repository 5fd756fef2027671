"""Runs for people: the list, the dead letters, one run, and the home panel."""

from collections.abc import Iterable
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from apps.access import queries as access_queries
from apps.access import services as access
from apps.access.models import Principal, User
from apps.access.policies import check_scope
from apps.access.queries import default_workspace
from apps.common import pages
from apps.common.errors import PolarError, Unauthenticated
from apps.runs import policies, queries, services
from apps.runs.engine import day
from apps.runs.forms import ScheduleForm, form_of
from apps.runs.models import (
    CANCELLABLE,
    WAITING,
    Reason,
    Run,
    RunQuerySet,
    Schedule,
    ScheduleState,
    Slot,
    State,
    Trigger,
)
from apps.runs.ports import (
    About,
    Planned,
    handlers,
    plannable,
    replayers,
    subjects,
)

#: What the filter offers, each a set of states.
GROUPS = {
    "in-flight": (State.QUEUED, State.RUNNING),
    "waiting": WAITING,
    "failed": (State.FAILED, State.TRUNCATED),
    "succeeded": (State.SUCCEEDED,),
    "ended": (State.CANCELLED, State.DISMISSED),
}
#: How many runs and how many schedules the home page shows.
SHOWN, LINES_SHOWN = 5, 7
#: How many schedules their own page draws.
MOST_LINES = 40
STEERED = {"pause": ScheduleState.PAUSED, "resume": ScheduleState.ACTIVE}


def principal_of(request: HttpRequest) -> Principal:
    assert isinstance(request.user, User)
    return access.principal_for_user(user=request.user)


@require_GET
def run_list(request: HttpRequest) -> HttpResponse:
    group = request.GET.get("state", "")
    runs = _visible(request)
    if group in GROUPS:
        runs = runs.filter(state__in=GROUPS[group])
    if kind := request.GET.get("kind", ""):
        runs = runs.filter(kind=kind)
    if trigger := request.GET.get("trigger", ""):
        runs = runs.filter(trigger=trigger)
    page = pages.keyset(runs, request.GET)
    context = {
        "page": page,
        "rows": _told(page.rows, request),
        "trigger": trigger,
        "kinds": handlers.names(),
        "triggers": Trigger.values,
        "group": group,
        "kind": kind,
        "groups": list(GROUPS),
    }
    return render(request, "runs/list.html", context)


@require_GET
def dead_letters(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    which = {name: request.GET.get(name, "")[:64] for name in ("reason", "kind")}
    matching = queries.dead_letters_like(
        principal=principal, reason=which["reason"], kind=which["kind"]
    )
    page = pages.keyset(matching.select_related("principal"), request.GET)
    effects = queries.effects_of(page.rows, principal)
    context = {
        "page": page,
        "rows": [
            (run, effects[run.id], about) for run, about in _told(page.rows, request)
        ],
        "which": which,
        "matching": matching.count(),
        "reasons": Reason.values,
        "kinds": queries.dead_letter_kinds(principal=principal),
        "bulk": services.BULK,
    }
    return render(request, "runs/dead_letters.html", context)


@require_GET
def detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    return _shown(request, run_id)


@require_POST
def replay(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Decide a run's steps anew on what was recorded, and say whether they differ."""
    try:
        found = services.replay(by=principal_of(request), run_id=run_id)
    except PolarError as error:
        messages.error(request, f"Not replayed: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("runs:detail", args=[run_id]))
    return _shown(request, run_id, replayed=found)


def _shown(request: HttpRequest, run_id: UUID, **more: object) -> HttpResponse:
    run = queries.get_run(run_id, principal=principal_of(request))
    context = {
        **more,
        "effects": queries.effects_of([run], principal_of(request))[run.id],
        "run": run,
        "about": subjects.of([run], principal_of(request)).get(run.id),
        "may_replay": replayers.knows(run.kind),
        "may_cancel": run.state in CANCELLABLE,
        "is_dead": run.state == State.DEAD_LETTER,
        "children": _told(run.children.order_by("id")[: pages.PAGE_SIZE], request),
    }
    return render(request, "runs/detail.html", context)


@require_GET
def panel(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    counts = queries.count_by_state(principal=principal)
    open_runs = Run.objects.visible_to(principal).unsettled()
    context = {
        "in_flight": sum(counts.get(state, 0) for state in GROUPS["in-flight"]),
        "waiting": sum(counts.get(state, 0) for state in WAITING),
        "dead": counts.get(State.DEAD_LETTER, 0),
        "runs": _told(open_runs.order_by("-id")[:SHOWN], request),
        "workers": len(queries.live_workers()),
    }
    return pages.panel(request, "runs/_panel.html", context)


@require_POST
def cancel(request: HttpRequest, run_id: UUID) -> HttpResponse:
    principal = principal_of(request)
    reason = request.POST.get("reason", "").strip() or "cancelled at the desk"
    try:
        services.cancel(by=principal, run_id=run_id, reason=reason)
        messages.success(request, "Cancelled. What it already did is kept.")
    except PolarError as error:
        messages.error(request, f"Not cancelled: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("runs:detail", args=[run_id]))


@require_POST
def act(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Retry, requeue or dismiss a dead letter."""
    try:
        services.act_on_dead_letter(
            by=principal_of(request),
            run_id=run_id,
            action=request.POST.get("action", ""),
            reason=request.POST.get("reason", ""),
        )
        messages.success(request, "Done; the decision is in the audit log.")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("runs:dead_letters"))


@require_POST
def act_on_matching(request: HttpRequest) -> HttpResponse:
    """Act on the oldest dead letters that match the filter, a bounded many."""
    which = {name: request.POST.get(name, "")[:64] for name in ("reason_code", "kind")}
    try:
        progress = services.act_on_matching(
            by=principal_of(request),
            which=services.Filter(which["reason_code"], which["kind"]),
            action=request.POST.get("action", ""),
            reason=request.POST.get("reason", ""),
        )
        for refused in progress.refused[:3]:
            messages.error(request, f"Not done: {refused}")
        more = f" {progress.left} still match; press again." if progress.left else ""
        messages.success(request, f"{progress.done} done.{more}")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    query = urlencode({"reason": which["reason_code"], "kind": which["kind"]})
    return HttpResponseRedirect(f"{reverse('runs:dead_letters')}?{query}")


@require_POST
def settle_effect(request: HttpRequest, run_id: UUID, call_id: UUID) -> HttpResponse:
    """Take the operator's word for an effect in doubt."""
    try:
        services.settle_effect(
            by=principal_of(request),
            run_id=run_id,
            call_id=call_id,
            verdict=request.POST.get("verdict", ""),
            reason=request.POST.get("reason", ""),
        )
        messages.success(request, "Settled. The run goes on.")
    except PolarError as error:
        messages.error(request, f"Not settled: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("runs:detail", args=[run_id]))


@login_not_required
@require_GET
def metrics(request: HttpRequest) -> HttpResponse:
    """The state of the work for Prometheus: from this machine, or with a token."""
    if not _is_local(request):
        scheme, _, raw = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not raw.strip():
            raise Unauthenticated("Send Authorization: Bearer <token> with runs:read.")
        check_scope(access_queries.authenticate(raw.strip()), "runs:read")
    return HttpResponse(
        services.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8"
    )


def _is_local(request: HttpRequest) -> bool:
    """Behind a proxy everybody comes from loopback, so nobody is local there."""
    proxied = settings.POLAR_BEHIND_TLS or any(
        name in request.headers for name in ("X-Forwarded-For", "Forwarded")
    )
    return not proxied and request.META.get("REMOTE_ADDR") in ("127.0.0.1", "::1")


# --- schedules


@require_GET
def schedules(request: HttpRequest) -> HttpResponse:
    principal = principal_of(request)
    rows = queries.schedules(principal=principal)
    slots = queries.newest_slots(rows)
    context = {
        "rows": [_as_row(schedule, slots[schedule.id]) for schedule in rows],
        "proposals": queries.open_proposals(principal=principal),
        "day": day.drawn(rows, most=MOST_LINES),
    }
    return render(request, "runs/schedules.html", context)


@require_GET
def schedules_panel(request: HttpRequest) -> HttpResponse:
    """The hours around now: those with a gap first, then the next to come."""
    rows = queries.schedules(principal=principal_of(request))
    context = {"day": day.drawn(rows, most=LINES_SHOWN), "total": len(rows)}
    return pages.panel(request, "runs/_schedules_panel.html", context)


@require_GET
def schedule(request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    """One schedule: what it does, what became of its moments, what comes next."""
    found = queries.get_schedule(schedule_id, principal=principal_of(request))
    slots = queries.newest_slots([found], limit=60)[found.id]
    context = {**_as_row(found, slots), "slots": slots[::-1]}
    try:
        context["trial"] = services.try_out(schedule=found)
    except PolarError as error:
        context["problem"] = error
    return render(request, "runs/schedule.html", context)


@require_http_methods(["GET", "POST"])
def edit_schedule(
    request: HttpRequest, schedule_id: UUID | None = None
) -> HttpResponse:
    """The form of a new or known schedule; a dry run shows what it would do."""
    principal = principal_of(request)
    known = (
        queries.get_schedule(schedule_id, principal=principal) if schedule_id else None
    )
    kinds = plannable.all()
    planned = plannable.find(known.run_kind) if known else _chosen(request, kinds)
    context: dict[str, object] = {
        "schedule": known,
        "kinds": kinds,
        "planned": planned,
    }
    if request.method == "GET":
        context["form"] = form_of(known) if known else ScheduleForm(planned=planned)
        return render(request, "runs/schedule_form.html", context)
    form = ScheduleForm(request.POST, planned=planned)
    context["form"] = form
    if form.is_valid() and (known or planned):
        try:
            if "try" in request.POST:
                context["trial"] = services.try_out(
                    schedule=_tried(principal, form, known, planned)
                )
            else:
                saved = _save(principal, form, known, planned)
                messages.success(request, f"Saved: {services.words_of(saved)}.")
                return HttpResponseRedirect(reverse("runs:schedule", args=[saved.id]))
        except PolarError as error:
            _show(form, error)
    status = 200 if "trial" in context else 422
    return render(request, "runs/schedule_form.html", context, status=status)


@require_POST
def steer_schedule(request: HttpRequest, schedule_id: UUID) -> HttpResponse:
    """Pause, resume or run a schedule now."""
    principal, verb = principal_of(request), request.POST.get("verb", "")
    try:
        if verb == "run":
            run = services.run_now(by=principal, schedule_id=schedule_id)
            messages.success(request, f"Started run {run.id.hex[-6:]}.")
        elif verb in STEERED:
            services.set_schedule_state(
                by=principal,
                schedule_id=schedule_id,
                state=STEERED[verb],
                reason=request.POST.get("reason", "").strip() or "at the desk",
            )
            messages.success(request, f"The schedule is {STEERED[verb]}.")
        else:
            messages.error(request, "Say what to do: pause, resume or run.")
    except PolarError as error:
        messages.error(request, f"Not done: {error.detail} ({error.code})")
    return HttpResponseRedirect(reverse("runs:schedule", args=[schedule_id]))


@require_http_methods(["GET", "POST"])
def proposal(request: HttpRequest, proposal_id: UUID) -> HttpResponse:
    """What an agent would like to happen on a schedule, and the decision."""
    principal = principal_of(request)
    found = queries.get_proposal(proposal_id, principal=principal)
    if request.method == "POST":
        approve = request.POST.get("decision") == "approve"
        try:
            services.decide_proposal(
                by=principal,
                proposal_id=proposal_id,
                approve=approve,
                reason=request.POST.get("reason", ""),
            )
            messages.success(
                request, "Approved: it is planned." if approve else "Rejected."
            )
        except PolarError as error:
            messages.error(request, f"Not decided: {error.detail} ({error.code})")
        return HttpResponseRedirect(reverse("runs:proposal", args=[proposal_id]))
    context: dict[str, object] = {"proposal": found}
    try:
        context["trial"] = services.try_out(schedule=services.draft_of(found))
    except PolarError as error:
        context["problem"] = error
    return render(request, "runs/proposal.html", context)


def _chosen(request: HttpRequest, kinds: list[Planned]) -> Planned | None:
    """Return the kind that the address names, or the first."""
    return plannable.find(request.GET.get("run_kind", "")) or next(iter(kinds), None)


def _as_row(schedule: Schedule, slots: list[Slot]) -> dict[str, object]:
    done = [slot for slot in slots if slot.outcome]
    return {
        "schedule": schedule,
        "words": services.words_of(schedule),
        "strip": services.strip_of(schedule, slots),
        "last": done[-1] if done else None,
        "gaps": sum(slot.state != "fired" for slot in slots),
    }


def _tried(
    by: Principal, form: ScheduleForm, known: Schedule | None, planned: Planned | None
) -> Schedule:
    values = form.values()
    slug, when = values.pop("slug"), (values.pop("kind"), values.pop("expression"))
    workspace = known.workspace if known else default_workspace()
    run_kind = known.run_kind if known else planned.kind if planned else ""
    if known:
        values = {"payload": known.payload, **values, "principal": known.principal}
    policies.check_may_plan(by, workspace)
    return services.build(by, workspace, slug, when, run_kind, **values)


def _save(
    by: Principal, form: ScheduleForm, known: Schedule | None, planned: Planned | None
) -> Schedule:
    values = form.values()
    slug = values.pop("slug")
    if known is not None:
        return services.update_schedule(
            by=by,
            schedule_id=known.id,
            expected_version=form.cleaned_data["expected_version"] or known.version,
            **values,
        )
    assert planned is not None
    return services.create_automation(
        by=by,
        workspace=default_workspace(),
        slug=slug,
        when=(values.pop("kind"), values.pop("expression")),
        run_kind=planned.kind,
        **values,
    )


def _show(form: ScheduleForm, error: PolarError) -> None:
    """Put a refusal beside the field that it names, or above the form."""
    for field in error.fields:
        name = field.path.replace("payload.", "payload-")
        if name in form.fields:
            form.add_error(name, f"{field.problem}: expected {field.expected}")
    form.add_error(None, error.detail)


def _told(runs: Iterable[Run], request: HttpRequest) -> list[tuple[Run, About | None]]:
    """Each run with what it is about, where somebody knows."""
    found = list(runs)
    known = subjects.of(found, principal_of(request))
    return [(run, known.get(run.id)) for run in found]


def _visible(request: HttpRequest) -> RunQuerySet:
    return Run.objects.visible_to(principal_of(request)).select_related("principal")
