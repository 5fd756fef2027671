"""Drill A: every remote model server is gone; the local lane answers."""

from apps.access import queries as access
from apps.access import services as access_services
from apps.agents.models import Turn, TurnState
from apps.providers import services as providers
from apps.providers.models import Route, UsageRow
from apps.reliability.engine.drilling.asking import asked, wait_for
from apps.reliability.engine.drilling.doubles import play_lanes
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.ports import Double
from apps.runs import services as runs


def prepare() -> None:
    """Three model servers; in the clone everybody is real, as detectors count them."""
    notebook.kept["origin"] = "real"
    notebook.kept["lanes"] = play_lanes()


def remove_protection() -> None:
    system = access_services.system_principal()
    providers.remove_provider(by=system, slug="drill-local")
    notebook.tell("attention", "Control: there is no local route")


def cut_lanes(lanes: list[str]) -> list[str]:
    """Let the servers of these lanes refuse every connection."""
    for lane in lanes:
        _double(lane).cut()
    notebook.kept["heard"] = {lane: len(_double(lane).heard) for lane in lanes}
    notebook.fault(f"the servers of {' and '.join(lanes)} are gone")
    return lanes


def mend_lanes(lanes: list[str]) -> list[str]:
    """Bring the servers back and close the breakers, as an operator does."""
    system = access_services.system_principal()
    for lane in lanes:
        _double(lane).mend()
        for route in Route.objects.filter(lane=lane):
            providers.close_breaker(by=system, route=route)
    notebook.tell("ok", f"Recovery: {' and '.join(lanes)} answer again")
    return lanes


def _double(lane: str) -> Double:
    found: Double = notebook.kept["lanes"][lane]
    return found


def start_automation() -> str:
    """Let the shipped morning note, or one like it, start as its own principal."""
    workspace = access.default_workspace()
    run = runs.enqueue(
        kind="reliability.scheduled_turn",
        payload={"profile": "primary", "text": "What is planned for today?"},
        principal=access_services.principal_for_automation(
            key="drill-note", label="Drill note", workspace=workspace
        ),
        workspace=workspace,
        trigger="drill",
        origin=str(notebook.kept.get("origin", "drill")),
    )
    notebook.kept["automation"] = run.id
    return str(run.id)


def all_answered_by(lane: str) -> bool:
    found = asked()
    served = sum(t.state == TurnState.ANSWERED and t.lane == lane for t in found)
    said = f"{served} of {len(found)} turns answered by the {lane} lane"
    return notebook.observe("served by fallback", served == len(found) > 0, said)


def all_labelled_degraded() -> bool:
    found = [turn for turn in asked() if turn.state == TurnState.ANSWERED]
    marked = sum(turn.degraded for turn in found)
    said = f"{marked} of {len(found)} answers say that they are degraded"
    return notebook.observe("labelled degraded", marked == len(found) > 0, said)


def automation_went_on() -> bool:
    key = str(notebook.kept.get("automation", ""))
    turns = Turn.objects.filter(conversation__external_key=key)
    done = wait_for(lambda: turns.filter(state=TurnState.ANSWERED).exists(), 20)
    said = "the automation was answered" if done else "the automation has no answer"
    return notebook.observe("automation went on", done, said)


def fallback_rate_shows(least: int) -> bool:
    rows = UsageRow.objects.filter(turn_id__in=[turn.id for turn in asked()])
    total, fell = rows.count(), rows.filter(degraded=True).count()
    rate = 100 * fell // total if total else 0
    said = f"{fell} of {total} usage rows show the fallback ({rate} %)"
    return notebook.observe("fallback rate shows", rate >= least, said)
