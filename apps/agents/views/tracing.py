"""One trace: the waterfall of what a run did, and why."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from apps.agents.engine import waterfall
from apps.agents.models import Turn
from apps.agents.views.asking import principal_of
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import pages
from apps.gateway.models import Call, CallKind, CallState

#: How many events stand beside a trace; the rest are in the audit log.
EVENTS_SHOWN = 40


@require_GET
def trace(request: HttpRequest, trace_id: str) -> HttpResponse:
    found = waterfall.read_trace(trace_id, principal_of(request))
    context = {
        "trace": found,
        "turn": found.turns[0] if found.turns else None,
        "run": found.runs[0] if found.runs else None,
        "facts": _facts(found),
        "chosen": _chosen(found, request.GET.get("row", "")),
        "events": audit.told(Event.objects.of_trace(trace_id)[:EVENTS_SHOWN]),
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
