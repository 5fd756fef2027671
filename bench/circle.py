"""Two agents that call each other, three at a time, until the loop guard cuts them."""

import time

from apps.agents import services as agents
from apps.agents.engine import recursion
from apps.agents.models import AgentProfile, Turn
from apps.gateway.models import Setting
from apps.providers.models import Provider
from apps.runs import services as runs
from apps.runs.models import Run, State

from .stand import Stand

BREADTH = 3


def prepare(stand: Stand) -> None:
    """Script a circle of @primary and @researcher, and let only the limit of turns
    cut it."""
    rules = [
        {
            "match": f"^round {one}",
            "tool": "handoff",
            "arguments": {
                "mode": "fanout-fanin",
                "parts": [
                    {"agent": other, "task": f"round {other} {n}"}
                    for n in range(BREADTH)
                ],
            },
        }
        for one, other in (("primary", "researcher"), ("researcher", "primary"))
    ]
    Provider.objects.filter(slug="scripted").update(settings={"rules": rules})
    for slug, other in (("primary", "researcher"), ("researcher", "primary")):
        AgentProfile.objects.filter(slug=slug).update(
            allowed_handoff_targets=[other], max_depth=50
        )
    Setting.load()
    Setting.objects.update(max_same_edge=1000, max_depth=50, max_same_call=1000)


def measure(stand: Stand) -> list[tuple[str, float, str]]:
    prepare(stand)
    conversation = agents.start_conversation(
        workspace=stand.workspace, principal=stand.principal, channel="bench"
    )
    turn = agents.start_turn(
        conversation=conversation,
        principal=stand.principal,
        text="round primary",
        origin="synthetic",
    )
    begun, cpu = time.perf_counter(), time.process_time()
    while due := Run.objects.filter(state=State.QUEUED).in_line().first():
        runs.execute(due.id)
    took, used = time.perf_counter() - begun, time.process_time() - cpu
    turn.refresh_from_db()
    drawn = recursion.of_root(root_id=turn.run_id, principal=stand.principal)
    opened = Turn.objects.filter(run__root_id=turn.run_id).count()
    if (turn.reason, opened) != ("loop_guard", drawn.turns):
        raise SystemExit(f"{turn.state} {turn.reason}: {opened} turns, {drawn.turns}")
    return [
        ("two agents in a circle, three at a time, until cut", took, "s"),
        ("the same, of which this process's own time", used, "s"),
        ("turns of that tree; the map counts the same", opened, ""),
    ]
