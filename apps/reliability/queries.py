"""How the install is, asked without changing anything."""

import sqlite3
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import F, Func, IntegerField, QuerySet, Subquery

from apps.access.models import Principal
from apps.audit import queries as audit
from apps.audit import services as audit_services
from apps.common import clock
from apps.common.errors import NotFound
from apps.gateway import queries as gateway
from apps.gateway.models import ApprovalRequest
from apps.reliability.models import (
    Alert,
    AlertOrigin,
    Incident,
    IncidentQuerySet,
    Recovery,
    Rollback,
    Silence,
)
from apps.runs import queries as runs
from apps.runs.models import Run
from apps.vault import services as vault


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and what was found."""

    name: str
    is_ok: bool
    detail: str


def readiness() -> list[Check]:
    """Look at what serving needs and at what only degrades it."""
    return [_alarm(), _store(), _sqlite(), _vault(), _workers(), _halts(), _chain()]


def conditions() -> list[Check]:
    """Look at what only degrades it, for a reader who knows of alarm and halts."""
    return [_sqlite(), _vault(), _workers()]


def _alarm() -> Check:
    standing = audit_services.standing_alarm()
    return Check("witness", standing is None, standing.problem if standing else "")


def _store() -> Check:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    return Check("store", True, connection.vendor)


def _sqlite() -> Check:
    """The WAL-reset bug is in 3.7.0 to 3.51.2, but for two back-ports."""
    if connection.vendor != "sqlite":
        return Check("sqlite_library", True, "not in use")
    from_library = sqlite3.sqlite_version_info
    fixed = from_library >= (3, 51, 3) or from_library[:3] in FIXED_SQLITE
    version = ".".join(str(part) for part in from_library)
    return Check("sqlite_library", fixed, version)


FIXED_SQLITE = {(3, 50, 7), (3, 44, 6)}


def _vault() -> Check:
    status = vault.status()
    return Check("vault", status.state == "open", status.reason or status.state)


def _workers() -> Check:
    live = runs.live_workers()
    detail = f"{len(live)} heard in the last {runs.BEAT_SECONDS} s"
    return Check("workers", bool(live), detail)


def _halts() -> Check:
    active = list(gateway.halts()[:5])
    detail = "; ".join(f"{halt.scope} by {halt.set_by}" for halt in active)
    return Check("halts", not active, detail or "none")


def _chain() -> Check:
    head = audit.head()
    where = settings.POLAR_WITNESS_DIR
    return Check("audit", True, f"{head.size} events sealed, witness in {where.name}")


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of each list is not over, for the numbers beside the pages' names."""

    runs: int = 0
    approvals: int = 0
    dead: int = 0
    alerts: int = 0
    incidents: int = 0


def counts(principal: Principal) -> Counts:
    """Count what is not over, as far as the principal may see it.

    Reads: one statement; each count goes by the index that its list uses.
    """
    mine = Run.objects.visible_to(principal)
    asked = ApprovalRequest.objects.visible_to(principal)
    own = Principal.objects.filter(id=principal.id)
    found = own.values_list(
        _counted(mine.unsettled()),
        _counted(asked.pending()),
        _counted(mine.dead_letters()),
        _counted(Alert.objects.standing().real()),
        _counted(incidents(principal=principal, state="under_way")),
    ).first()
    return Counts(*found) if found else Counts()


def _counted(rows: QuerySet[Any]) -> Subquery:
    """The number of rows as part of another statement."""
    number = Func(F("pk"), function="COUNT", output_field=IntegerField())
    return Subquery(rows.order_by().annotate(found_rows=number).values("found_rows"))


def rollbacks() -> QuerySet[Rollback]:
    """Return what was found of stores that went back, newest first."""
    return Rollback.objects.order_by("-id")


def recoveries(*, kind: str = "") -> QuerySet[Recovery]:
    """Return the restores, real and rehearsed, newest first."""
    rows = Recovery.objects.order_by("-id")
    return rows.filter(kind=kind) if kind else rows


def newest_proof() -> Recovery | None:
    """Return the newest restore that succeeded, real or rehearsed."""
    return recoveries().filter(ok=True).first()


def count_held(rollback: Rollback | None) -> int:
    """Count the stale runs that still wait to be looked at."""
    if rollback is None:
        return 0
    return Run.objects.filter(waiting_on=rollback.mark, reason="stale").count()


def alerts(*, state: str = "", code: str = "", origin: str = "") -> QuerySet[Alert]:
    """Return alerts that match all that is given, newest first.

    Shape: state may also be `standing`.
    """
    rows = Alert.objects.select_related("incident").order_by("-id")
    if state == "standing":
        rows = rows.standing()
    elif state:
        rows = rows.filter(state=state)
    given = {"code": code, "origin": origin}
    return rows.filter(**{name: value for name, value in given.items() if value})


def silences() -> QuerySet[Silence]:
    """Return what is silenced now."""
    rows = Silence.objects.filter(lifted_at__isnull=True, until__gt=clock.now())
    return rows.order_by("until", "id")


def incidents(*, principal: Principal, state: str = "") -> IncidentQuerySet:
    """Return the incidents a principal may see. `under_way` is a state here too."""
    rows: IncidentQuerySet = Incident.objects.visible_to(principal)
    if state == "under_way":
        return rows.under_way()
    return rows.filter(state=state) if state else rows


def get_incident(incident_id: UUID, *, principal: Principal) -> Incident:
    """Raises: NotFound."""
    mine = incidents(principal=principal).select_related("workspace")
    found: Incident | None = mine.filter(id=incident_id).first()
    if found is None:
        raise NotFound("There is no such incident.")
    return found


def newest_breach() -> Alert | None:
    """Return the newest made-up breach; whether it arrived is in its notices."""
    rows = Alert.objects.filter(origin=AlertOrigin.SYNTHETIC)
    return rows.prefetch_related("notices").order_by("-id").first()
