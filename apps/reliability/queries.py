"""How the install is, asked without changing anything."""

import sqlite3
from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet

from apps.audit import queries as audit
from apps.audit import services as audit_services
from apps.gateway import queries as gateway
from apps.reliability.models import Rollback
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


def rollbacks() -> QuerySet[Rollback]:
    """Return what was found of stores that went back, newest first."""
    return Rollback.objects.order_by("-id")


def count_held(rollback: Rollback | None) -> int:
    """Count the stale runs that still wait to be looked at."""
    if rollback is None:
        return 0
    return Run.objects.filter(waiting_on=rollback.mark, reason="stale").count()
