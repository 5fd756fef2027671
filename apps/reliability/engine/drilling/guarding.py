"""The stop condition of a live drill, as a control of Chaos Toolkit.

Twice a second it looks whether work that is no drill's was hurt, or whether the drill
grew past its cap. Then it takes the fault back first and ends the experiment after.
"""

import logging
import threading
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import Q

from apps.common import clock
from apps.providers.models import UsageRow
from apps.reliability import ports
from apps.reliability.engine import livefaults
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.models import Incident
from apps.runs.models import Run, State

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
#: Real work that is due for longer waits because of the drill.
STARVED_AFTER = timedelta(seconds=15)
_BAD_ENDS = (State.FAILED, State.DEAD_LETTER, State.TRUNCATED)
_stop = threading.Event()


def before_experiment_control(context: Any, **_: Any) -> None:
    """Begin to look."""
    _stop.clear()
    notebook.kept["began_at"] = clock.now()
    threading.Thread(target=_look_on, name="drill-guard", daemon=True).start()


def after_experiment_control(context: Any, **_: Any) -> None:
    """Look no more."""
    _stop.set()


def hurt(since: datetime) -> list[str]:
    """Name what was harmed since then and is no drill's."""
    calls = UsageRow.objects.filter(origin="real", created_at__gte=since)
    degraded = calls.filter(Q(degraded=True) | Q(ok=False)).count()
    real = Run.objects.filter(origin="real")
    ended = real.filter(state__in=_BAD_ENDS, finished_at__gte=since).count()
    waiting = real.filter(state=State.WAITING_PROVIDER, created_at__gte=since).count()
    starved = real.due(clock.now() - STARVED_AFTER).filter(due_at__gte=since).count()
    incidents = Incident.objects.filter(
        origin="real", severity__in=("S1", "S2"), created_at__gte=since
    )
    counted = (
        (degraded, "model calls failed or fell back"),
        (ended, "runs ended badly"),
        (waiting, "runs wait for a provider"),
        (starved, "runs wait for a worker"),
        (incidents.count(), "S1 or S2 incidents were opened"),
    )
    return [f"{count} {words}" for count, words in counted for _ in range(count)]


def beyond_cap() -> str:
    """Say how the drill grew past what it may touch, or ""."""
    cap = notebook.kept["cap"]
    if "fault_at" in notebook.kept and notebook.since_fault() > cap["seconds"]:
        return f"the fault stands for more than {cap['seconds']} s"
    drill = Run.objects.filter(origin="drill", kind="agents.turn")
    turns = drill.filter(created_at__gte=notebook.kept["began_at"]).count()
    if turns > cap["turns"]:
        return f"the drill came to {turns} turns, {cap['turns']} are allowed"
    return ""


def _look_on() -> None:
    while not _stop.wait(LOOK_SECONDS):
        try:
            why = _why_to_stop()
        except DatabaseError:
            logger.warning("the guard could not look", extra={"event": "drill.guard"})
            continue
        finally:
            connection.close()
        if why:
            abort(why)
            return


def _why_to_stop() -> str:
    found = hurt(notebook.kept["began_at"])
    if len(found) > notebook.kept["cap"]["hurt"]:
        return f"work that is no drill's was hurt: {found[0]}"
    return beyond_cap()


def abort(why: str) -> None:
    """Take the fault back, say why, and end the experiment."""
    _stop.set()
    livefaults.take_back(f"aborted: {why}"[:200])
    notebook.kept["aborted"] = why
    notebook.tell("critical", f"Aborted, and the fault is taken back: {why}")
    ports.stage().abort()
