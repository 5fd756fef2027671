"""A live drill from the inside: play it beside the install, guarded, and write it down.

Called by `manage.py rehearse --live`, in a process that the drill's run started.
"""

import json
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings

from apps.access import services as access_services
from apps.audit import queries as audit_queries
from apps.audit import services as audit
from apps.common.errors import Conflict, PolarError
from apps.reliability import ports
from apps.reliability.engine import cloning, evidence, livefaults, shelf
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.rehearsing import facts
from apps.reliability.models import DrillMode, DrillRun, DrillState

#: How long its questions may take. Units: seconds.
PATIENCE = 60.0


def play_live(slug: str, drill_id: UUID) -> dict[str, Any]:
    """Play a live drill that was asked for and runs; leave journal, log and facts.

    Raises: NotFound; Conflict for another one, or inside a clone.
    """
    drill = shelf.get(slug)
    row = DrillRun.objects.filter(
        id=drill_id, slug=slug, mode=DrillMode.LIVE, state=DrillState.RUNNING
    ).first()
    if settings.POLAR_CLONE or row is None or drill.live is None:
        raise Conflict("No such live drill runs: ./polar drill run --live")
    notebook.folder = settings.POLAR_DRILLS_DIR / str(row.id) / evidence.MAIN
    notebook.kept |= {"live": True, "cap": row.cap, "patience": PATIENCE}
    notebook.tell("attention", f"Live, with at most {_said(row.cap)}")
    with suppress(PolarError):  # a host without the witness does not seal
        audit.seal_all()
    since = audit_queries.head().size
    try:
        journal = ports.stage().play(drill.live)
    finally:
        livefaults.take_back("the drill is over")
    (notebook.folder / cloning.JOURNAL).write_text(json.dumps(journal, sort_keys=True))
    found = {**facts(), "aborted": str(notebook.kept.get("aborted", ""))}
    (notebook.folder / cloning.FACTS).write_text(json.dumps(found, sort_keys=True))
    system = access_services.system_principal()
    with suppress(PolarError):
        audit.checkpoint()
    audit.export(notebook.folder / cloning.EXPORT, by=system.actor, from_=since)
    return journal


def _said(cap: dict[str, int]) -> str:
    return (
        f"{cap['turns']} turns, {cap['seconds']} s of the fault, "
        f"{cap['hurt']} runs of others hurt"
    )
