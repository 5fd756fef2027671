"""The home page's proofs: the log, its copies, the snapshot, the keys, the drills."""

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from apps.access import queries as access
from apps.access.models import Role
from apps.access.policies import check_role
from apps.audit import queries as audit
from apps.audit import services as audit_services
from apps.common import pages
from apps.reliability import queries, services
from apps.reliability.views.asking import principal_of
from apps.vault import services as vault


@dataclass(frozen=True, slots=True)
class Proof:
    """One line: what was looked at, what was found, and where more is said."""

    tone: str
    icon: str
    title: str
    said: str
    url: str
    at: datetime | None = None


@require_GET
def proof_panel(request: HttpRequest) -> HttpResponse:
    check_role(principal_of(request), Role.VIEWER, access.default_workspace())
    lines = [_seal(), _guard(), *_copies(), _snapshot(), _vault(), _drills()]
    return pages.panel(request, "reliability/_proof.html", {"lines": lines})


def _line(is_ok: bool, title: str, said: str, url: str, **more: datetime) -> Proof:
    tone, icon = ("ok", "ok") if is_ok else ("attention", "attention")
    return Proof(tone, icon, title, said, url, **more)


def _seal() -> Proof:
    head, signed = audit.head(), audit.latest_checkpoint()
    waiting = audit.count_unsealed()
    said = f"{waiting:,} waiting for the next seal. " if waiting else ""
    said += f"Signed to {signed.size:,}." if signed else "No checkpoint is signed yet."
    if not audit_services.can_seal():
        said += " No witness directory on this host."
        return _line(False, f"{head.size:,} events sealed", said, reverse("audit:list"))
    at = signed.created_at if signed else None
    title, url = f"{head.size:,} events sealed", reverse("audit:list")
    return Proof("ok", "seal", title, said, url, at)


def _guard() -> Proof:
    missing = audit_services.triggers_missing()
    url = reverse("audit:list")
    if missing:
        said = ", ".join(missing)
        return Proof("critical", "critical", "Guard triggers are missing", said, url)
    said = "Triggers stand in the database."
    return _line(True, "The store refuses changes to the log", said, url)


def _copies() -> list[Proof]:
    url = reverse("audit:list") + "#sinks"
    return [
        Proof(
            "attention" if sink.problem else "ok",
            "attention" if sink.problem else "ok",
            f"Copy to {sink.name}",
            sink.problem or f"It has every event up to {sink.last_seq:,}.",
            url,
            sink.last_ack_at,
        )
        for sink in audit.sink_cursors()
    ]


def _snapshot() -> Proof:
    url, newest = reverse("reliability:store"), services.newest_snapshot()
    if newest is None:
        return _line(False, "No snapshot yet", "A schedule takes one every 6 h.", url)
    proved = queries.newest_proof()
    said = f"{newest.events:,} events. "
    said += "A restore was rehearsed." if proved else "No restore was ever rehearsed."
    return _line(proved is not None, "Snapshot", said, url, at=newest.taken_at)


def _vault() -> Proof:
    url, found = reverse("vault:status"), vault.status()
    first = next((key for key in found.keys if key.first), None)
    if found.state != "open":
        return Proof("critical", "lock", "The vault is sealed", found.detail, url)
    secrets = f"{found.secrets} secret{'' if found.secrets == 1 else 's'}"
    secrets += f", {found.unreadable} unreadable" if found.unreadable else ""
    proved = first.backup_proved_at if first else None
    if proved is None:
        said = f"{secrets}. No backup of its key was ever proved."
        return _line(False, "Vault open", said, url)
    said = f"{secrets}. A backup of its key was proved."
    return _line(not found.unreadable, "Vault open", said, url, at=proved)


def _drills() -> Proof:
    url, shelf = reverse("reliability:drills"), services.shelf_of_drills()
    overdue = [each.drill.letter for each in shelf if each.stale]
    passed = [each.passed_at for each in shelf if each.passed_at]
    title = f"{len(shelf) - len(overdue)} of {len(shelf)} drills are fresh"
    said = f"Overdue: {', '.join(overdue)}." if overdue else "Each was passed lately."
    last = {"at": max(passed)} if passed else {}
    return _line(not overdue, title, said, url, **last)
