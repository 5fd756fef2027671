"""Reads of extensions and of the tools that models are shown. Never writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q, QuerySet
from django.urls import reverse

from apps.access.models import Principal
from apps.common.errors import NotFound
from apps.common.search import MOST_HITS, Hit, Words
from apps.common.statements import Reading
from apps.gateway import queries as gateway
from apps.gateway.models import Call, Grant
from apps.gateway.ports import Json

from . import ports
from .models import Capability, Extension

#: A model is shown this much of what a tool says of itself. Units: characters.
LONGEST_TOLD = 4_000


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model is shown it. `capability` is "extensionId/capabilityId"."""

    alias: str
    description: str
    schema: Json
    capability: str
    title: str = ""
    risk_level: str = "unknown"
    data_egress: str = "network"
    side_effects: str = "external"


def extensions() -> QuerySet[Extension]:
    """Return every extension with what it offers."""
    return Extension.objects.prefetch_related("capabilities", "connections").order_by(
        "ext_id"
    )


def get_extension(extension_id: UUID) -> Extension:
    """Raises: NotFound."""
    found = Extension.objects.filter(id=extension_id).first()
    if found is None:
        raise NotFound("There is no such extension.")
    return found


def covers(scope: Json | None, ext_id: str, capability_id: str) -> bool:
    """Tell whether a capability scope names this capability."""
    names = ((scope or {}).get("allowed") or {}).get(ext_id) or ()
    return capability_id in names or "*" in names


_OFFERED = Reading(
    lambda: Capability.objects.offerable().select_related("extension"),
    "AND extensions_extension.ext_id = %s",
)
_BY_ALIAS = Reading(
    lambda: Capability.objects.select_related("extension"),
    "WHERE extensions_capability.alias = %s AND extensions_capability.is_current",
)


def tools_for(*, scope: Json) -> list[ToolSpec]:
    """List what a model may be shown under a scope, in a fixed order."""
    allowed = list((scope or {}).get("allowed") or {})
    if not allowed:
        return []
    rows = [row for ext_id in allowed for row in _OFFERED.fetch(ext_id)]
    return [
        ToolSpec(
            row.alias,
            row.description[:LONGEST_TOLD],
            row.input_schema,
            row.name,
            row.title,
            row.risk_level,
            row.data_egress,
            row.side_effects,
        )
        for row in sorted(rows, key=lambda row: str(row.alias))
        if covers(scope, row.extension.ext_id, row.capability_id)
    ]


def find_tool(alias: str) -> Capability | None:
    """Return the capability that a model calls by this alias, or None."""
    return next(iter(_BY_ALIAS.fetch(alias)), None)


def is_approved(row: Extension, definition_hash: str) -> bool:
    """Tell whether the newest verdict on a form approved it."""
    verdicts = row.reviews.filter(definition_hash=definition_hash)
    newest = verdicts.order_by("-id").first()
    return newest is not None and newest.is_approved


def reviewed_form(row: Extension) -> Json:
    """Return the form that was approved last; {} when none ever was."""
    approved = row.reviews.filter(is_approved=True).order_by("-id").first()
    if approved is None:
        return {}
    form = row.versions.filter(definition_hash=approved.definition_hash).first()
    return dict(form.definition) if form else {}


def find_by_name(ext_id: str) -> Extension:
    """Return an extension by the name people use. Raises: NotFound."""
    found = Extension.objects.filter(ext_id=ext_id).first()
    if found is None:
        raise NotFound(f"There is no extension {ext_id[:80]!r}.")
    return found


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What stopping an extension would touch, as far as anybody here knows."""

    calls: list[Call]
    dependents: list[ports.Dependent]
    grants: list[Grant]
    secrets: list[str]

    def of(self, kind: str) -> list[ports.Dependent]:
        return [each for each in self.dependents if each.kind == kind]

    @property
    def profiles(self) -> list[ports.Dependent]:
        return self.of("profile")

    @property
    def schedules(self) -> list[ports.Dependent]:
        return self.of("schedule")

    @property
    def runs(self) -> list[ports.Dependent]:
        return self.of("run")

    def as_json(self) -> Json:
        return {
            "calls": [str(call.id) for call in self.calls],
            "profiles": [each.name for each in self.profiles],
            "schedules": [each.name for each in self.schedules],
            "runs": [each.name for each in self.runs],
            "grants": [str(grant.id) for grant in self.grants],
            "secrets": self.secrets,
        }


def blast_radius(row: Extension) -> BlastRadius:
    """Say what a stop would touch: profiles, schedules, runs in flight, grants."""
    named = [each for ask in ports.dependents.all() for each in ask(row.ext_id)]
    return BlastRadius(
        calls=list(gateway.calls_in_flight(row.ext_id)[:500]),
        dependents=named,
        grants=gateway.grants_naming(row.ext_id),
        secrets=sorted((row.grants or {}).get("secrets", {}).values()),
    )


def find_session(session_id: str) -> ports.Session | None:
    """Ask the higher floors whose session this is."""
    found = (ask(session_id) for ask in ports.sessions.all())
    return next((session for session in found if session is not None), None)


def session_of(principal: Principal, session_id: str) -> ports.Session | None:
    """Return this session if it is the principal's own, else their newest one."""
    session = find_session(session_id)
    if session is not None and session.principal_id == principal.id:
        return session
    found = (ask(principal.id) for ask in ports.own_sessions.all())
    return next((each for each in found if each is not None), None)


def runnable(ext_id: str, capability_id: str, scope: Json | None) -> Capability | None:
    """Find a capability that could run: the one that was asked for, another of its
    extension, or one that ships with Polar."""
    rows = Capability.objects.offerable().select_related("extension")
    asked = rows.filter(extension__ext_id=ext_id)
    simple = Q(risk_level="read", side_effects="none", data_egress="none")
    wishes = (
        asked.filter(capability_id=capability_id),
        asked.filter(simple),
        rows.filter(simple, extension__ext_id=ports.SHIPPED),
    )
    for wish in wishes:
        for row in wish.order_by("capability_id"):
            known = covers(scope, row.extension.ext_id, row.capability_id)
            if scope is None or known:
                return row
    return None


def find(words: Words, principal: Principal) -> Iterator[Hit]:
    """Find extensions by name. They belong to the install, not to a workspace."""
    named = Q(ext_id__icontains=words.name) | Q(title__icontains=words.text)
    for row in Extension.objects.filter(named).order_by("ext_id")[:MOST_HITS]:
        url = reverse("extensions:detail", args=[row.ext_id])
        exact = row.ext_id == words.name
        yield Hit("Extension", row.ext_id, url, row.trust, is_exact=exact)
