"""Drill C: an agent and its sub-agent call each other without an exit."""

import json
from contextlib import suppress
from io import StringIO
from typing import Any

from django.core.management import call_command

from apps.access import services as access_services
from apps.agents.models import Turn, TurnState
from apps.audit.models import Event
from apps.common.errors import Conflict, PolarError
from apps.gateway.models import Setting
from apps.reliability.engine.drilling.asking import (
    LOOP_WORD,
    LOOPERS,
    OVER,
    ask,
    wait_for,
)
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.surgery import alter
from apps.reliability.errors import DrillFailed
from apps.runs import services as runs
from apps.runs.models import Run

#: So long a loop may take to reach the limits; it needs a few seconds.
LOOP_PATIENCE = 40.0
#: The largest value of each limit that is valid: the loop guard as good as gone.
LARGEST = {
    "max_depth": 32767,
    "max_turns_per_root": 2147483647,
    "max_same_edge": 32767,
    "max_same_call": 32767,
    "max_fan_out": 32767,
}


def remove_protection() -> None:
    Setting.load()  # makes the row
    said = ", ".join(f"{name} = {value}" for name, value in LARGEST.items())
    if alter(f"UPDATE gateway_setting SET {said}") != 1:  # noqa: S608 (names of ours)
        raise Conflict("The limits of the loop guard have no row to widen.")
    notebook.tell("attention", "Control: every limit at its largest valid value")


def ask_loop() -> str:
    turn = ask(LOOP_WORD, profile=LOOPERS[0])
    notebook.kept["loop"] = turn
    notebook.fault(f"@{LOOPERS[0]} and @{LOOPERS[1]} call each other")
    return str(turn.id)


def tree() -> Any:
    root = notebook.kept["loop"].run_id
    return Turn.objects.filter(run__root_id=root)


def loop_truncated() -> bool:
    """Wait until the loop is cut or has gone past every limit.

    Raises: DrillFailed when it did neither, which proves nothing of a control.
    """
    first = notebook.kept["loop"]
    over = Turn.objects.filter(id=first.id, state__in=OVER)
    most = most_turns()
    if not wait_for(
        lambda: over.exists() or tree().count() > most,
        LOOP_PATIENCE,
        is_missed_by_control=False,
    ):
        raise DrillFailed(
            f"The loop came to {tree().count()} turns in {LOOP_PATIENCE:.0f} s: "
            "too few to tell whether anything cuts it. Run it on a quieter machine."
        )
    turn = Turn.objects.get(id=first.id)
    cut = turn.state == TurnState.TRUNCATED and turn.reason == "loop_guard"
    said = f"after {tree().count()} turns it is {turn.state} {turn.reason}".strip()
    return notebook.observe("cut by the loop guard", cut, said)


def most_turns() -> int:
    limits = Setting.load()
    return min(50, limits.max_turns_per_root, 2 * limits.max_same_edge + 2)


def loop_within_limits() -> bool:
    most, count = most_turns(), tree().count()
    over = notebook.seen.get("cut by the loop guard", (False, ""))[0]
    said = f"{count} turns, the limits allow {most}"
    return notebook.observe("within the limits", over and count <= most, said)


def heat_map_counts() -> bool:
    """Count the turns that the audit trail names; both must agree."""
    turn = notebook.kept["loop"]
    told = Event.objects.of_trace(turn.trace_id).filter(type="turn.started").count()
    count = tree().count()
    cells = {(t.profile.slug, t.depth) for t in tree().select_related("profile")}
    said = f"the trail counts {told} of {count} turns in {len(cells)} cells"
    held = told == count and len(cells) > 1
    return notebook.observe("recursion map", held, said)


def heat_map_names_cycle() -> bool:
    """The map, read from the audit trail alone, names both ways of the circle and
    where it was cut."""
    root, said = notebook.kept["loop"].run_id, StringIO()
    call_command("agents", "recursion", "--root", str(root), "--json", stdout=said)
    read = json.loads(said.getvalue())["by_edge"]
    edges = {(edge["source"], edge["target"]): edge for edge in read}
    there, back = edges.get(LOOPERS), edges.get(LOOPERS[::-1])
    cuts = [f"@{a} to @{b}" for (a, b), edge in sorted(edges.items()) if edge["cut"]]
    times = [f"@{a} to @{b} {e['handoffs']} times" for (a, b), e in edges.items()]
    held = bool(there and back and cuts)
    words = f"{', '.join(times)}; cut at {', '.join(cuts) or 'no edge'}"
    return notebook.observe("cycle named", held, words)


def stop_loop() -> int:
    """Cancel what the control leaves running."""
    system = access_services.system_principal()
    root = notebook.kept["loop"].run_id
    stopped = 0
    for run in Run.objects.filter(root_id=root).order_by("created_at"):
        with suppress(PolarError):
            runs.cancel(by=system, run_id=run.id, reason="the drill is over")
            stopped += 1
    return stopped
