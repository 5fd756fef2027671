"""People ask, and a drill waits for what becomes of it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connection

from apps.access import queries as access
from apps.access import services as access_services
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Turn, TurnState
from apps.common import clock
from apps.providers import services as providers
from apps.providers.models import Provider
from apps.reliability import ports
from apps.reliability.engine.drilling.notebook import notebook
from apps.runs.models import WAITING, WorkerBeat

LANES = ("brain", "worker", "local")
SLOW = "drill-slow"
LOOPERS = ("drill-parent", "drill-child")
#: The words that make the scripted model call the other agent.
LOOP_WORD = "round and round"
SLOW_WORD = "take your time"
WORK_WORD = "do some work"
OVER = (TurnState.ANSWERED, TurnState.TRUNCATED, TurnState.FAILED, TurnState.CANCELLED)
#: How long one look waits for what it wants to see. Units: seconds.
PATIENCE = 30.0
STARTS_WITHIN = 120.0
#: Runs that a rehearsal's worker carries at once.
CONCURRENCY = "8"
CONTROL_PATIENCE = 12.0


def rules_of(lane: str) -> list[dict[str, Any]]:
    """What the scripted model of a lane says. The brain calls the worker's agent."""
    other = {"brain": LOOPERS[1], "worker": LOOPERS[0]}.get(lane)
    parts = [{"agent": other, "task": LOOP_WORD}]
    handoff = {"mode": "delegate", "parts": parts}
    rules: list[dict[str, Any]] = []
    if other:
        rules.append({"match": LOOP_WORD, "tool": "handoff", "arguments": handoff})
    rules.append({"match": SLOW_WORD, "delay_seconds": 8, "reply": "At last."})
    rules.append({"match": WORK_WORD, "delay_seconds": 1, "reply": "Done."})
    rules.append({"match": "", "reply": f"This is {lane}."})
    return rules


def give_rules(lane: str, rules: list[dict[str, Any]]) -> None:
    row = Provider.objects.get(slug=f"drill-{lane}")
    entry = providers.ProviderEntry(
        slug=row.slug, kind=row.kind, settings={"rules": rules}
    )
    providers.save_provider(by=access_services.system_principal(), entry=entry)


def ask(text: str, profile: str = "primary") -> Turn:
    """Ask as one more person, in a conversation of its own."""
    system = access_services.system_principal()
    workspace = access.default_workspace()
    talk = agents.start_conversation(
        workspace=workspace, principal=system, channel="drill", title=text
    )
    return agents.start_turn(
        conversation=talk,
        principal=system,
        text=text,
        profile=AgentProfile.objects.get(workspace=workspace, slug=profile),
        trigger="drill",
        origin=str(notebook.kept.get("origin", "drill")),
    )


def ask_many(count: int, text: str = "Question") -> int:
    asked = [ask(f"{text} {number}") for number in range(count)]
    notebook.kept["asked"] = [turn.id for turn in asked]
    notebook.tell("running", f"{count} people ask")
    return count


def settled(asked: list[Turn]) -> list[Turn]:
    """Wait until each turn is over or its run waits by name."""
    ids = [turn.id for turn in asked]
    wait_for(lambda: are_settled(ids))
    return turns_of(ids)


def are_settled(ids: list[UUID]) -> bool:
    open_ones = Turn.objects.filter(id__in=ids).exclude(state__in=OVER)
    return not open_ones.exclude(run__state__in=WAITING).exists()


def turns_of(ids: list[UUID]) -> list[Turn]:
    return list(Turn.objects.filter(id__in=ids).select_related("run").order_by("id"))


def tell_answers(turns: list[Turn]) -> None:
    told: dict[str, int] = {}
    for turn in turns:
        name = turn.lane if turn.state == TurnState.ANSWERED else "none"
        told[name] = told.get(name, 0) + 1
    said = ", ".join(f"{count} by {lane}" for lane, count in sorted(told.items()))
    notebook.tell("ok", f"{len(turns)} turns: {said}", lanes=told)


def wait_for(
    true: Callable[[], bool],
    within: float = PATIENCE,
    *,
    is_missed_by_control: bool = True,
) -> bool:
    """Wait until it holds. A control waits less long for what it must miss."""
    if is_missed_by_control and notebook.is_control:
        within = min(within, CONTROL_PATIENCE)
    until = clock.monotonic() + within
    while clock.monotonic() < until:
        with suppress(DatabaseError):
            if true():
                return True
        connection.close()
        clock.sleep(0.3)
    return False


def asked() -> list[Turn]:
    """Return what was asked last, once it is settled."""
    if "settled" not in notebook.kept:
        ids = notebook.kept.get("asked", [])
        wait_for(lambda: are_settled(ids), float(notebook.kept["patience"]))
        found = turns_of(ids)
        tell_answers(found)
        notebook.kept["settled"] = found
    return list(notebook.kept["settled"])


def start_worker() -> bool:
    """Start a worker anew and wait until it is heard of. A busy machine is slow."""
    known = set(WorkerBeat.objects.values_list("id", flat=True))
    troupe = ports.stage().spawn("worker", "--concurrency", CONCURRENCY)
    notebook.kept["troupe"]["worker"] = troupe
    new = WorkerBeat.objects.exclude(id__in=known)
    return wait_for(new.exists, STARTS_WITHIN, is_missed_by_control=False)


def all_answered() -> bool:
    """Nobody who asked was forgotten."""
    wanted = len(notebook.kept.get("asked", []))
    found = sum(turn.state == TurnState.ANSWERED for turn in asked())
    said = f"{found} of {wanted} questions answered"
    return notebook.observe("all answered", found == wanted > 0, said)


def none_silent() -> bool:
    """Nobody is left without an answer or a reason."""
    silent = [
        turn
        for turn in asked()
        if turn.run.state not in WAITING
        and not (turn.state == TurnState.ANSWERED and turn.answer_text)
        and not turn.reason
    ]
    said = f"{len(silent)} turns ended without an answer or a reason"
    return notebook.observe("no silent failure", not silent, said)
