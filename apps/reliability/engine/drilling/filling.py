"""Drill H: the disk of the store is full; new work is refused, nothing is lost."""

from contextlib import suppress
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection

from apps.agents.models import Turn, TurnState
from apps.common import clock
from apps.common.errors import PolarError
from apps.common.middleware import FULL
from apps.reliability.engine.drilling.asking import ask, turns_of, wait_for
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.steady import pages_answer
from apps.reliability.ports import DISK

BALLAST = "ballast"
PIECE = 64 * 1024
#: So many questions fill what the ballast left.
MOST_QUESTIONS = 400
RESUMES_WITHIN = 60.0


def remove_protection() -> None:
    notebook.tell("attention", "Control: nobody will make room again")


def _disk() -> Path:
    return Path(settings.POLAR_CLONE) / DISK


def fill_disk() -> int:
    """Write until the disk takes no more. Returns how much went in."""
    written = 0
    with suppress(OSError), (_disk() / BALLAST).open("wb", buffering=0) as file:
        while True:
            written += file.write(b"\0" * PIECE)
    notebook.fault(f"the store's disk is full; {written // 1024} KB of ballast")
    return written


def work_is_refused() -> bool:
    """Ask until the store says that it is full. What was accepted is kept."""
    accepted, refusal = [], ""
    for number in range(MOST_QUESTIONS):
        try:
            accepted.append(ask(f"Full {number}").id)
        except (DatabaseError, PolarError) as error:
            refusal = str(error)
            break
        clock.sleep(0.01)
    connection.close()
    notebook.kept["accepted"] = accepted
    held = any(words in refusal for words in FULL)
    said = f"{len(accepted)} accepted, then refused: {refusal or 'never'}"
    return notebook.observe("refused when full", held, said[:200])


def board_still_answers() -> bool:
    """Reads go on, or say that the store is full."""
    try:
        held = pages_answer()
    except DatabaseError as error:
        held = any(words in str(error) for words in FULL)
    said = "pages answer" if held else "pages fail"
    return notebook.observe("pages answer", held, said)


def make_room() -> bool:
    """Take the ballast away; in the control nobody does."""
    if not notebook.is_control:
        (_disk() / BALLAST).unlink()
        notebook.tell("ok", "Recovery: there is room again")
    return True


def work_resumes() -> bool:
    """Everything goes on by itself: who was accepted is answered, and one more."""

    def one_more() -> bool:
        if "more" not in notebook.kept:
            notebook.kept["more"] = ask("And now?").id
        return True

    taken = wait_for(one_more, RESUMES_WITHIN)
    ids = [*notebook.kept["accepted"], *([notebook.kept["more"]] if taken else [])]
    wait_for(lambda: _answered(ids) == len(ids), RESUMES_WITHIN)
    with suppress(DatabaseError):
        known = Turn.objects.filter(id__in=ids).count()
        said = f"{known} of {len(ids)} accepted are known, {_answered(ids)} answered"
        held = taken and known == len(ids) == _answered(ids)
        return notebook.observe("resumes by itself", held, said)
    return notebook.observe("resumes by itself", False, "the store is still full")


def tidy() -> None:
    """What the control left full has to take the export of its log."""
    (_disk() / BALLAST).unlink(missing_ok=True)
    connection.close()


def _answered(ids: list[UUID]) -> int:
    return sum(turn.state == TurnState.ANSWERED for turn in turns_of(ids))
