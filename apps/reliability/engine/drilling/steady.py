"""The steady state: what must hold before a fault and after it."""

from contextlib import suppress

from django.conf import settings
from django.contrib.auth import login
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError
from django.http import HttpRequest
from django.test import Client
from django.urls import reverse

from apps.access.models import User
from apps.agents.models import TurnState
from apps.audit import services as audit
from apps.boards.models import Board
from apps.common.errors import PolarError
from apps.reliability.engine.drilling.asking import (
    are_settled,
    ask,
    tell_answers,
    turns_of,
    wait_for,
)
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.models import Alert
from apps.runs.models import Run, State

#: Canaries must sing, in a control too, and a small busy machine starts slowly.
CANARY_PATIENCE = 120.0


def chain_verifies() -> bool:
    with suppress(PolarError, DatabaseError):
        audit.seal_all()  # also what came this moment
    verdict = audit.verify()
    notebook.tell("ok" if verdict.ok else "critical", f"Log: {verdict.size} events")
    return verdict.ok


def board_answers() -> bool:
    """Open the board and the runs as an operator does who signed in before."""
    with suppress(DatabaseError):
        if pages_answer():
            return True
        notebook.kept.pop("desk", None)  # a store that went back knows no session
        return pages_answer()
    return False


def pages_answer() -> bool:
    client = notebook.kept.get("desk") or _signed_in()
    if client is None:
        return False
    notebook.kept["desk"] = client
    board = Board.objects.order_by("id").first()
    pages = [reverse("runs:list"), reverse("runs:dead_letters")]
    if board is not None:
        pages.append(reverse("boards:board", args=[board.id]))
    found = [client.get(page).status_code for page in pages]
    return found == [200] * len(found)


def _signed_in() -> Client | None:
    client = Client(HTTP_HOST="localhost")
    user = User.objects.filter(is_active=True).order_by("date_joined").first()
    if user is None:
        return None
    session = HttpRequest()
    session.session = SessionStore()
    login(session, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    session.session.save()
    key = session.session.session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = str(key)
    return client


def observations_held() -> bool:
    return notebook.all_held()


def no_alarm() -> bool:
    return audit.standing_alarm() is None


def at_rest() -> bool:
    return wait_for(lambda: not Run.objects.filter(state=State.RUNNING).exists())


def canaries_answered(count: int, lane: str) -> bool:
    """Ask a few and see that the expected lane answers them all."""
    try:
        canaries = [ask(f"Canary {number}") for number in range(count)]
    except DatabaseError:
        return False
    ids = [turn.id for turn in canaries]
    wait_for(lambda: are_settled(ids), CANARY_PATIENCE, is_missed_by_control=False)
    found = turns_of(ids)
    tell_answers(found)
    return all(t.state == TurnState.ANSWERED and t.lane == lane for t in found)


def alert_raised(code: str, within: float) -> bool:
    """The clock's own detectors say so in time. Units: seconds since the fault."""
    origin = "drill" if notebook.kept.get("live") else "real"
    rows = Alert.objects.standing().filter(code=code, origin=origin)
    raised = wait_for(rows.exists, max(1.0, within - notebook.since_fault()))
    took = notebook.since_fault()
    summary = rows.values_list("summary", flat=True).first()
    said = f"{code} {took:.0f} s after the fault: {summary}" if raised else f"no {code}"
    return notebook.observe(f"alert {code}", raised and took <= within, said[:300])
