"""Drill K: workers are killed with SIGKILL again and again under full work."""

from apps.agents.models import TurnState
from apps.audit.models import Event
from apps.common import clock
from apps.reliability.engine.drilling import asking
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.surgery import alter
from apps.runs.models import Run, State

#: A killed worker's leases lapse after 30 s; then another takes them up.
#: Units: seconds.
RECOVERS_WITHIN = 100.0
CONTROL_SEES_WITHIN = 60.0
ENDS = ("turn.answered", "turn.failed", "turn.truncated", "turn.cancelled")


def remove_protection() -> None:
    notebook.tell("attention", "Control: a run may be tried once only")


def ask_for_work(count: int) -> int:
    """Every question takes its worker a second."""
    asking.ask_many(count, asking.WORK_WORD)
    if notebook.is_control:
        alter("UPDATE runs_run SET max_attempts = 1 WHERE kind = 'agents.turn'")
    return count


def kill_workers(times: int) -> int:
    """Kill each worker as soon as it holds runs, and start another."""
    killed, known = 0, set[str]()

    def is_at_work() -> bool:
        return bool(_owners() - known)

    for _ in range(times):
        held = asking.wait_for(
            is_at_work, asking.STARTS_WITHIN, is_missed_by_control=False
        )
        mine = _owners() - known
        runs = Run.objects.filter(state=State.RUNNING, lease_owner__in=mine).count()
        notebook.kept["troupe"]["worker"].end()
        known |= mine
        killed += held
        notebook.fault(f"the worker is killed with {runs} runs in hand")
        asking.start_worker()
    notebook.kept["killed"] = killed
    return killed


def _owners() -> set[str]:
    held = Run.objects.filter(state=State.RUNNING)
    return set(held.values_list("lease_owner", flat=True))


def workers_were_killed(least: int) -> bool:
    """The fault was real: so many workers died with work in hand."""
    killed = int(notebook.kept["killed"])
    said = f"{killed} workers died with work in hand"
    return notebook.observe("killed at work", killed >= least, said)


def all_work_done() -> bool:
    """Everybody who asked is answered, however often it was begun."""
    ids = notebook.kept["asked"]
    within = CONTROL_SEES_WITHIN if notebook.is_control else RECOVERS_WITHIN
    asking.wait_for(lambda: asking.are_settled(ids), within, is_missed_by_control=False)
    found = asking.turns_of(ids)
    done = sum(turn.state == TurnState.ANSWERED for turn in found)
    again = sum(turn.run.attempt > 1 for turn in found)
    letters = sum(turn.run.state == State.DEAD_LETTER for turn in found)
    said = (
        f"{done} of {len(ids)} answered, {again} of them begun anew, "
        f"{letters} dead letters"
    )
    return notebook.observe("all work done", done == len(ids) and again > 0, said)


def none_done_twice() -> bool:
    """The log knows one end of each turn, and no lease outlived its worker."""
    ids = [str(turn_id) for turn_id in notebook.kept["asked"]]
    ends = Event.objects.filter(type__in=ENDS, subject_id__in=ids)
    twice = ends.count() - ends.values("subject_id").distinct().count()
    lapsed = Run.objects.expired(clock.now()).count()
    said = f"{twice} turns ended twice, {lapsed} runs without a living worker"
    return notebook.observe("none done twice", not twice and not lapsed, said)
