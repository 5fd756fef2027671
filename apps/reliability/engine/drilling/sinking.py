"""Drill G: the place that keeps the log's copy is away; nothing is lost for it."""

from datetime import timedelta

from apps.agents.models import TurnState
from apps.audit import services as audit
from apps.audit.models import Event
from apps.common import clock
from apps.reliability.engine import alerts
from apps.reliability.engine.drilling.asking import ask_many, asked, wait_for
from apps.reliability.engine.drilling.doubles import play
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.findings import Finding
from apps.reliability.models import AlertCode
from apps.reliability.ports import Double

#: An event may wait so long; the drill sets its own clock past it to ask.
LATE = timedelta(minutes=6)
CATCHES_UP_WITHIN = 40.0


def prepare() -> None:
    notebook.kept["host"] = play("log", 0)


def remove_protection() -> None:
    notebook.tell("attention", "Control: the log host will claim what it never got")


def _host() -> Double:
    found: Double = notebook.kept["host"]
    return found


def sink_is_level() -> bool:
    """The host holds the whole log, without a gap."""
    audit.seal_all()
    return wait_for(_is_level, CATCHES_UP_WITHIN, is_missed_by_control=False)


def _is_level() -> bool:
    held = [line["metadata"]["sequence"] for line in _host().heard]
    sealed = Event.objects.filter(gseq__isnull=False).count()
    return held == list(range(len(held))) and len(held) >= sealed


def cut_sink() -> int:
    held = len(_host().heard)
    notebook.kept["held"] = held
    _host().cut()
    notebook.fault(f"the log host is gone; it holds {held} events")
    return held


def work_went_on(count: int) -> bool:
    """A sink that is away stops nobody."""
    ask_many(count)
    found = sum(turn.state == TurnState.ANSWERED for turn in asked())
    waiting = Event.objects.count() - len(_host().heard)
    said = f"{found} of {count} answered; {waiting} events wait for the host"
    notebook.kept["waited"] = waiting
    return notebook.observe("work went on", found == count and waiting > 0, said)


def lag_is_told() -> bool:
    """Ask the detector as it will be asked once five minutes have passed."""
    found = _findings()
    said = found[0].summary if found else "the detector says nothing"
    return notebook.observe("lag told", bool(found), said)


def _findings() -> list[Finding]:
    with clock.frozen(clock.now() + LATE):
        return [
            finding
            for finding in alerts.sink(clock.now())
            if finding.code == AlertCode.SINK
        ]


def mend_sink() -> bool:
    """Bring the host back; for the control, it says it holds what it never got."""
    if notebook.is_control:
        audit.seal_all()
        _host().manner["claims"] = Event.objects.filter(gseq__isnull=False).count() - 1
    _host().mend()
    notebook.tell("ok", "Recovery: the log host answers again")
    return True


def nothing_was_lost() -> bool:
    """The host has every event once and in order, and the alert is over."""
    audit.seal_all()
    level = wait_for(_is_level, CATCHES_UP_WITHIN)
    held = [line["metadata"]["sequence"] for line in _host().heard]
    gaps = sum(one + 1 != other for one, other in zip(held, held[1:], strict=False))
    quiet = not _findings() if level else False
    sealed = Event.objects.filter(gseq__isnull=False).count()
    said = f"the host holds {len(held)} of {sealed} events, {gaps} gaps"
    return notebook.observe("nothing lost", level and quiet, said)
