"""The header's one sentence about the whole system, on every page."""

from dataclasses import dataclass

from django import template
from django.db import DatabaseError

from apps.audit import services as audit
from apps.gateway import queries as gateway
from apps.providers import queries as providers
from apps.reliability import queries

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


@register.simple_tag
def annunciator() -> System:
    """Say how things are; an unreadable or older store is itself the news."""
    standing = audit.standing_alarm()
    if standing is not None:
        head = "RESTORING:" if standing.kind == "restoring" else "STORE IN DOUBT:"
        text = f"nothing is claimed until an operator decides. {standing.problem}"
        return System("critical", "conflicted", head, text, "reliability:store")
    try:
        return _system()
    except DatabaseError:
        return System("critical", "critical", "Down:", "the store cannot be read")


def _system() -> System:
    halts = list(gateway.halts()[:5])
    if halts:
        what = ", ".join("everything" if h.scope == "all" else h.scope for h in halts)
        text = f"{what}, by {halts[0].set_by}: {halts[0].reason}"
        return System("critical", "halt", "HALTED:", text)
    troubles = [
        WORDS.get(check.name, f"{check.name}: {check.detail}")
        for check in queries.readiness()
        if not check.is_ok
    ]
    lanes = providers.lanes_health()
    troubles += [
        f"the {lane.lane} lane is down" for lane in lanes if lane.state == "down"
    ]
    if troubles:
        return System("attention", "attention", "Degraded:", "; ".join(troubles))
    routes = [each.route for lane in lanes for each in lane.routes]
    is_scripted = all(route.model.provider.kind == "scripted" for route in routes)
    text = "no AI provider is connected, a script answers" if is_scripted else ""
    return System("ok", "ok", "All quiet", text)
