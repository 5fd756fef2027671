"""Which class an incident has, and where its timeline comes from.

When in doubt the higher class: an incident is raised by what comes after, and only
a person lowers it.
Source: the first user's page on incidents, section 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from apps.audit.models import Event
from apps.common import ids
from apps.reliability.models import Alert, AlertCode, Incident, Level, Severity

MEANS = {
    Severity.S1: "Core orchestration loop broken; data corruption; unauthorized"
    " privilege expansion.",
    Severity.S2: "All external channels down; extension execution failing globally.",
    Severity.S3: "Degraded performance; isolated tool failures; budget alerts.",
    Severity.S4: "UI cosmetic issues; non-critical automation delays.",
}
A = AlertCode
#: The area, the class of a warning and of a critical alert, and why.
CLASSES: dict[str, tuple[str, str, str, str]] = {
    A.ROLLBACK: ("store", "S1", "S1", "the store is not the one the witness knows"),
    A.CHAIN: ("store", "S1", "S1", "the log contradicts itself"),
    A.VAULT: ("vault", "S2", "S2", "no secret opens, so nothing can be reached"),
    A.CHANNEL: ("channels", "S3", "S2", "people are not heard or not answered"),
    A.BLACKOUT: ("providers", "S2", "S2", "models fail, and how far is not known"),
    A.USAGE_FAILURE: ("providers", "S3", "S2", "model calls fail"),
    A.USAGE_FALLBACK: ("providers", "S3", "S3", "answers are degraded"),
    A.USAGE_DURATION: ("providers", "S3", "S3", "answers are slow"),
    A.ESCALATION: ("providers", "S3", "S3", "lanes are used that nobody planned"),
    A.HANDOFF_FAILURE: ("handoffs", "S3", "S3", "agents fail one another"),
    A.HANDOFF_ADJUSTED: ("handoffs", "S4", "S3", "agents get less than they ask"),
    A.SINK: ("audit", "S3", "S3", "copies of the log are late"),
    A.BUDGET: ("budget", "S3", "S3", "a budget is nearly or wholly spent"),
    A.LOOP: ("handoffs", "S3", "S3", "agents ran in a circle"),
    A.SNAPSHOT: ("snapshots", "S3", "S3", "the store is not being copied"),
    A.SCHEDULE: ("schedules", "S4", "S4", "an automation is delayed"),
    A.DRILL: ("drills", "S4", "S4", "a rehearsal is overdue"),
}
MOST_EVENTS = 200
#: What happened in a trace and belongs on the timeline.
TRACE_NOISE = ("vault.leased", "call.authorized")


@dataclass(frozen=True, slots=True)
class Class:
    area: str
    severity: str
    because: str


def classify(code: str, level: str) -> Class:
    """Propose the class of an alert. An unknown code is S1 until looked at."""
    known = CLASSES.get(code)
    if known is None:
        return Class("", Severity.S1, f"{code} is not known: the highest until seen")
    area, warning, critical, because = known
    return Class(area, critical if level == Level.CRITICAL else warning, because)


def higher(one: str, other: str) -> str:
    """S1 before S4."""
    return min(one, other)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a timeline, with where to find its proof."""

    at: datetime
    type: str
    who: str
    words: str
    gseq: int | None
    digest: str
    event_id: str


def timeline(incident: Incident, alerts: Iterable[Alert]) -> list[Entry]:
    """Read from the audit log what happened, newest last.

    Reads: one statement for each index it goes by; at most 200 events, the newest.
    Shape: what concerns the incident and its alerts, the traces it is linked to,
    and every halt since it began.
    """
    found: dict[UUID, Event] = {}
    for rows in _parts(incident, alerts):
        kept = rows.exclude(type__in=TRACE_NOISE).order_by("-id")[:MOST_EVENTS]
        found |= {event.id: event for event in kept.defer("body")}
    newest = [found[key] for key in sorted(found)[-MOST_EVENTS:]]
    return [
        Entry(
            event.occurred_at,
            event.type,
            event.actor_label,
            event.reason or event.decision,
            event.gseq,
            event.digest,
            str(event.id),
        )
        for event in newest
    ]


def _parts(
    incident: Incident, alerts: Iterable[Alert]
) -> Iterator[QuerySet[Event, Event]]:
    """What is on the timeline, one index at a time: an OR would read the whole log."""
    events = Event.objects
    yield events.about("incident", str(incident.id))
    if shown := [str(alert.id) for alert in alerts]:
        yield events.filter(subject_kind="alert", subject_id__in=shown)
    if incident.trace_ids:
        yield events.filter(trace_id__in=incident.trace_ids).exclude(trace_id="")
    since = ids.first_at(incident.created_at)
    for kind in ("halt.set", "halt.lifted"):
        halts = events.filter(type=kind, id__gte=since)
        if incident.resolved_at:
            halts = halts.filter(occurred_at__lte=incident.resolved_at)
        yield halts
