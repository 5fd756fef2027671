"""The header's one sentence about the whole system, on every page."""

from dataclasses import dataclass
from typing import Any

from django import template
from django.conf import settings
from django.db import DatabaseError

from apps.access import services as access
from apps.access.models import Principal
from apps.audit import services as audit
from apps.gateway import queries as gateway
from apps.providers import queries as providers
from apps.reliability import queries
from apps.reliability.queries import Counts

register = template.Library()

#: How a failed check is said in the header.
WORDS = {
    "sqlite_library": "this SQLite library has a known fault",
    "vault": "the vault is sealed",
    "workers": "no worker is heard of, runs wait",
}


@dataclass(frozen=True)
class System:
    tone: str
    icon: str
    head: str
    text: str
    #: The page that says more; "" for none.
    page: str = ""


@register.simple_tag(takes_context=True)
def annunciator(context: Any) -> System:
    """Say how things are, once for a request; an unreadable or older store is news."""
    request = context.get("request")
    known: System | None = getattr(request, "system", None)
    if known is None:
        known = _look(context)
        if request is not None:
            request.system = known
    return known


@register.simple_tag(takes_context=True)
def standing(context: Any) -> Counts:
    """Count what is not over, once for a request, for whoever is signed in."""
    request = context.get("request")
    known: Counts | None = getattr(request, "counts", None)
    if known is None:
        known = _counts(_reader(request))
        if request is not None:
            request.counts = known
    return known


@register.simple_tag
def environment() -> str:
    """The word that tells this install from the others; "" for none."""
    word: str = settings.POLAR_ENVIRONMENT
    return word


def _reader(request: Any) -> Principal | None:
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    return access.principal_for_user(user=user)


def _counts(reader: Principal | None) -> Counts:
    if reader is None:
        return Counts()
    try:
        return queries.counts(reader)
    except DatabaseError:
        return Counts()


def _look(context: Any) -> System:
    alarm = audit.standing_alarm()
    if alarm is not None:
        head = "RESTORING:" if alarm.kind == "restoring" else "STORE IN DOUBT:"
        text = f"nothing is claimed until an operator decides. {alarm.problem}"
        return System("critical", "conflicted", head, text, "reliability:store")
    try:
        return _system(standing(context), context.get("request"))
    except DatabaseError:
        return System("critical", "critical", "Down:", "the store cannot be read")


def _system(counts: Counts, request: Any) -> System:
    halts = list(gateway.halts()[:5])
    if halts:
        what = ", ".join("everything" if h.scope == "all" else h.scope for h in halts)
        text = f"{what}, by {halts[0].set_by}: {halts[0].reason}"
        return System("critical", "halt", "HALTED:", text, "gateway:halts")
    troubles = [
        WORDS.get(check.name, f"{check.name}: {check.detail}")
        for check in queries.conditions()
        if not check.is_ok
    ]
    lanes = providers.lanes_health()
    troubles += [
        f"the {lane.lane} lane is down" for lane in lanes if lane.state == "down"
    ]
    if troubles:
        return System("attention", "attention", "Degraded:", "; ".join(troubles))
    if counts.incidents:
        return _under_way(counts.incidents, _reader(request))
    answering = [
        each for lane in lanes for each in lane.routes if each.state == "ready"
    ]
    if all(each.route.model.provider.kind == "scripted" for each in answering):
        text = "No AI provider is connected, a script answers."
        return System("ok", "ok", "All quiet.", text)
    return System("ok", "ok", "All quiet.", _quiet(len(answering), counts.approvals))


def _under_way(count: int, reader: Principal | None) -> System:
    assert reader is not None  # whoever sees none has none counted
    mine = queries.incidents(principal=reader, state="under_way")
    newest = mine.order_by("severity", "-id").first()
    text = f"{newest.name} {newest.title} ({newest.severity})" if newest else ""
    if count > 1:
        text += f", and {count - 1} more"
    page = "reliability:incidents"
    return System("attention", "attention", "Under way:", text, page)


def _quiet(routes: int, waiting: int) -> str:
    answer = "1 route answers" if routes == 1 else f"{routes} routes answer"
    if not waiting:
        return f"{answer}, nothing waits for a person."
    asks = "1 question waits" if waiting == 1 else f"{waiting} questions wait"
    return f"{answer}; {asks} for a person."
