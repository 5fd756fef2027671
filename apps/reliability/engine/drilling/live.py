"""Drills on the install itself: lanes that nobody can use, and a scripted loop.

Whatever is changed here `livefaults` knows how to take back.
"""

from datetime import timedelta

from apps.access import queries as access
from apps.access import services as access_services
from apps.agents import services as agents
from apps.agents.models import AgentProfile, TurnState
from apps.common import clock
from apps.gateway.models import Halt
from apps.providers import services as providers
from apps.providers.models import Route
from apps.reliability.engine import livefaults
from apps.reliability.engine.drilling.asking import (
    LOOP_WORD,
    ask_many,
    asked,
    turns_of,
    wait_for,
)
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.livefaults import LOOP_AGENTS, LOOP_PROVIDERS
from apps.reliability.models import UNDER_WAY, Incident
from apps.runs.models import WAITING


def nothing_is_wrong() -> bool:
    """No halt stands, and no grave incident is under way."""
    grave = Incident.objects.filter(
        state__in=UNDER_WAY, severity__in=("S1", "S2"), origin="real"
    )
    names = [row.name for row in grave.order_by("id")[:5]]
    if halted := Halt.objects.active().exists():
        names.append("a halt")
    if names:
        notebook.tell("critical", f"Under way already: {', '.join(names)}")
    return not halted and not names


def nothing_is_left() -> bool:
    """No fault of a live drill stands."""
    return not livefaults.standing()


# --- A: the lanes ------------------------------------------------------------


def hold_lanes(lanes: list[str]) -> int:
    """Let no call leave to these lanes' servers, at most for the cap's seconds."""
    seconds = int(notebook.kept["cap"]["seconds"])
    held = providers.hold_lanes(
        by=access_services.system_principal(),
        lanes=lanes,
        until=clock.now() + timedelta(seconds=seconds),
        reason="a live drill: the blackout",
    )
    notebook.fault(f"{held} routes of {' and '.join(lanes)} are cut for {seconds} s")
    return held


def ask_some() -> int:
    """Ask as many questions as the cap allows."""
    return ask_many(int(notebook.kept["cap"]["turns"]))


def answered_below(lanes: list[str]) -> bool:
    """Each is answered below the cut lanes and says so, or waits by its name."""
    found = asked()
    served = [t for t in found if t.state == TurnState.ANSWERED]
    labelled = sum(t.degraded and t.lane not in lanes for t in served)
    waiting = sum(t.run.state in WAITING for t in found)
    said = f"{labelled} of {len(found)} answered below and labelled, {waiting} waiting"
    held = labelled == len(served) and labelled + waiting == len(found) > 0
    return notebook.observe("answered below or waiting", held, said)


def release_lanes() -> int:
    released = providers.release_lanes(
        by=access_services.system_principal(), reason="the drill gives them back"
    )
    notebook.tell("ok", f"Recovery: {released} routes are given back")
    return released


def who_waited_is_answered() -> bool:
    """With the lanes back everybody who waited goes on."""
    ids = notebook.kept["asked"]

    def all_answered() -> bool:
        return all(t.state == TurnState.ANSWERED for t in turns_of(ids))

    held = wait_for(all_answered, float(notebook.kept["patience"]))
    found = sum(turn.state == TurnState.ANSWERED for turn in turns_of(ids))
    said = f"{found} of {len(ids)} answered in the end"
    return notebook.observe("all answered in the end", held, said)


# --- C: the loop -------------------------------------------------------------


def take_in_loopers() -> int:
    """Two agents whose scripted models call each other. Only drills are served by a
    scripted model, where there is another; the routes stand last in the local lane."""
    system, workspace = access_services.system_principal(), access.default_workspace()
    for slug, agent, other in zip(
        LOOP_PROVIDERS, LOOP_AGENTS, LOOP_AGENTS[::-1], strict=True
    ):
        parts = [{"agent": other, "task": LOOP_WORD}]
        handoff = {"mode": "delegate", "parts": parts}
        rules = [{"match": LOOP_WORD, "tool": "handoff", "arguments": handoff}]
        entry = providers.ProviderEntry(
            slug=slug, kind="scripted", settings={"rules": rules}
        )
        providers.add_provider(by=system, entry=entry, model="loop", lane="local")
        known = AgentProfile.objects.filter(workspace=workspace, slug=agent).first()
        agents.save_profile(
            by=system,
            workspace=workspace,
            slug=agent,
            changes={
                "title": "Drill",
                "lane": "local",
                "pinned_model": Route.objects.get(model__provider__slug=slug).model,
                "allowed_handoff_targets": [other],
                "max_depth": 1000,
                "is_active": True,
            },
            expected_version=known.version if known else 0,
        )
    notebook.tell("running", f"@{LOOP_AGENTS[0]} and @{LOOP_AGENTS[1]} are taken in")
    return 2


def send_loopers_away() -> list[str]:
    found = livefaults.take_back("the drill is over")
    notebook.tell("ok", "Recovery: the two agents are gone")
    return found
