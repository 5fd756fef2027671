"""Drill D: the broker loses everything; rows and the sweep know better."""

from apps.reliability import ports
from apps.reliability.engine.drilling import asking
from apps.reliability.engine.drilling.doubles import place
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.surgery import alter
from apps.runs.models import State


def prepare() -> None:
    broker = ports.stage().broker(place(0))
    notebook.kept["broker"] = notebook.kept["troupe"]["broker"] = broker


def remove_protection() -> None:
    notebook.tell("attention", "Control: the waiting rows will go with the broker's")


def stop_workers() -> bool:
    """From here on hints pile up."""
    notebook.kept["troupe"]["worker"].end()
    notebook.tell("running", "The worker is gone; hints pile up in the broker")
    return True


def ask_into_the_queue(count: int) -> int:
    asking.ask_many(count)
    broker = notebook.kept["broker"]
    asking.wait_for(lambda: broker.holds() >= count, 10, is_missed_by_control=False)
    return int(broker.holds())


def wipe_broker() -> int:
    """Lose every hint; for the control, every waiting row with it."""
    broker = notebook.kept["broker"]
    lost = int(broker.holds())
    broker.wipe()
    notebook.kept["lost_hints"] = lost - int(broker.holds())
    notebook.fault(f"the broker lost {lost} hints")
    if notebook.is_control:
        alter("DELETE FROM runs_run WHERE state = ?", [State.QUEUED])
    return lost


def hints_were_lost(least: int) -> bool:
    """The fault was real: hints stood in the broker and are gone."""
    lost = int(notebook.kept["lost_hints"])
    said = f"{lost} hints are gone"
    return notebook.observe("hints lost", lost >= least, said)


def start_workers() -> bool:
    """Its first answers show that it is there; a busy machine starts it slowly."""
    notebook.tell("running", "A worker starts beside the empty broker")
    return asking.start_worker()
