"""What the experiments do and look at: the Chaos Toolkit provider of the drills.

Every function here is named by an experiment file and is called inside a clone.
A look at what happens under the fault is written down; the steady state after the
fault asks for all of them, so that Chaos Toolkit's own verdict deviates with them.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import login
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError, connection
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse

from apps.access import queries as access
from apps.access import services as access_services
from apps.access.models import User
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Turn, TurnState
from apps.audit import services as audit
from apps.audit.models import Event
from apps.boards.models import Board
from apps.common import clock
from apps.common.errors import PolarError
from apps.gateway.models import Setting
from apps.providers import services as providers
from apps.providers.models import Provider, Route, UsageRow
from apps.reliability.engine.notebook import notebook
from apps.reliability.errors import DrillFailed
from apps.runs import services as runs
from apps.runs.models import WAITING, Run, State

LANES = ("brain", "worker", "local")
SLOW = "drill-slow"
LOOPERS = ("drill-parent", "drill-child")
#: The words that make the scripted model call the other agent.
LOOP_WORD = "round and round"
SLOW_WORD = "take your time"
OVER = (TurnState.ANSWERED, TurnState.TRUNCATED, TurnState.FAILED, TurnState.CANCELLED)
#: How long one look waits for what it wants to see. Units: seconds.
PATIENCE = 30.0
CONTROL_PATIENCE = 12.0
#: So long a loop may take to reach the limits; it needs a few seconds.
LOOP_PATIENCE = 40.0
#: Canaries must sing, in a control too, and a small busy machine starts slowly.
CANARY_PATIENCE = 120.0


def rules_of(lane: str) -> list[dict[str, Any]]:
    """What the scripted model of a lane says. The brain calls the worker's agent."""
    other = {"brain": LOOPERS[1], "worker": LOOPERS[0]}.get(lane)
    parts = [{"agent": other, "task": LOOP_WORD}]
    handoff = {"mode": "delegate", "parts": parts}
    rules: list[dict[str, Any]] = []
    if other:
        rules.append({"match": LOOP_WORD, "tool": "handoff", "arguments": handoff})
    rules.append({"match": SLOW_WORD, "delay_seconds": 8, "reply": "At last."})
    rules.append({"match": "", "reply": f"This is {lane}."})
    return rules


def give_rules(lane: str, rules: list[dict[str, Any]]) -> None:
    row = Provider.objects.get(slug=f"drill-{lane}")
    entry = providers.ProviderEntry(
        slug=row.slug, kind=row.kind, settings={"rules": rules}
    )
    providers.save_provider(by=access_services.system_principal(), entry=entry)


# --- Steady state -----------------------------------------------------------


def chain_verifies() -> bool:
    verdict = audit.verify()
    notebook.tell("ok" if verdict.ok else "critical", f"Log: {verdict.size} events")
    return verdict.ok


def board_answers() -> bool:
    """Open the board and the runs as an operator would."""
    client = Client(HTTP_HOST="localhost")
    user = User.objects.filter(is_active=True).order_by("date_joined").first()
    if user is None:
        return False
    session = HttpRequest()
    session.session = SessionStore()
    login(session, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    session.session.save()
    key = session.session.session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = str(key)
    board = Board.objects.order_by("id").first()
    pages = [reverse("runs:list"), reverse("runs:dead_letters")]
    if board is not None:
        pages.append(reverse("boards:board", args=[board.id]))
    found = [client.get(page).status_code for page in pages]
    return found == [200] * len(found)


def observations_held() -> bool:
    return notebook.all_held()


def no_alarm() -> bool:
    return audit.standing_alarm() is None


def at_rest() -> bool:
    return wait_for(lambda: not Run.objects.filter(state=State.RUNNING).exists())


def canaries_answered(count: int, lane: str) -> bool:
    """Ask a few and see that the expected lane answers them all."""
    canaries = [ask(f"Canary {number}") for number in range(count)]
    ids = [turn.id for turn in canaries]
    wait_for(lambda: _are_settled(ids), CANARY_PATIENCE, is_missed_by_control=False)
    found = _turns(ids)
    tell_answers(found)
    return all(t.state == TurnState.ANSWERED and t.lane == lane for t in found)


# --- Asking -----------------------------------------------------------------


def ask(text: str, profile: str = "primary") -> Turn:
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
        origin="drill",
    )


def ask_many(count: int) -> int:
    asked = [ask(f"Question {number}") for number in range(count)]
    notebook.kept["asked"] = [turn.id for turn in asked]
    notebook.tell("running", f"{count} people ask")
    return count


def settled(asked: list[Turn]) -> list[Turn]:
    """Wait until each turn is over or its run waits by name."""
    ids = [turn.id for turn in asked]
    wait_for(lambda: _are_settled(ids))
    return _turns(ids)


def _are_settled(ids: list[UUID]) -> bool:
    open_ones = Turn.objects.filter(id__in=ids).exclude(state__in=OVER)
    return not open_ones.exclude(run__state__in=WAITING).exists()


def _turns(ids: list[UUID]) -> list[Turn]:
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
    if is_missed_by_control and notebook.kept.get("control"):
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
    if "settled" not in notebook.kept:
        ids = notebook.kept.get("asked", [])
        found = settled(list(Turn.objects.filter(id__in=ids)))
        tell_answers(found)
        notebook.kept["settled"] = found
    return list(notebook.kept["settled"])


# --- A: total provider blackout ---------------------------------------------


def cut_lanes(lanes: list[str]) -> list[str]:
    """Let every route of these lanes fail as an unreachable vendor does."""
    for lane in lanes:
        give_rules(lane, [{"match": "", "error": "network"}])
    notebook.tell("critical", f"Fault: {' and '.join(lanes)} fail every call")
    return lanes


def mend_lanes(lanes: list[str]) -> list[str]:
    """Undo the cut and close the breakers, as an operator does from the desk."""
    system = access_services.system_principal()
    for lane in lanes:
        give_rules(lane, rules_of(lane))
        for route in Route.objects.filter(lane=lane):
            providers.close_breaker(by=system, route=route)
    notebook.tell("ok", f"Recovery: {' and '.join(lanes)} answer again")
    return lanes


def start_automation() -> str:
    """Let the shipped morning note, or one like it, start as its own principal."""
    workspace = access.default_workspace()
    key = "drill-note"
    run = runs.enqueue(
        kind="reliability.scheduled_turn",
        payload={"profile": "primary", "text": "What is planned for today?"},
        principal=access_services.principal_for_automation(
            key=key, label="Drill note", workspace=workspace
        ),
        workspace=workspace,
        trigger="drill",
        origin="drill",
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


def none_silent() -> bool:
    silent = [
        turn
        for turn in asked()
        if turn.run.state not in WAITING
        and not (turn.state == TurnState.ANSWERED and turn.answer_text)
        and not turn.reason
    ]
    said = f"{len(silent)} turns ended without an answer or a reason"
    return notebook.observe("no silent failure", not silent, said)


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


# --- C: multi-agent loop panic ----------------------------------------------


def ask_loop() -> str:
    turn = ask(LOOP_WORD, profile=LOOPERS[0])
    notebook.kept["loop"] = turn
    notebook.tell("critical", f"Fault: @{LOOPERS[0]} and @{LOOPERS[1]} call each other")
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
