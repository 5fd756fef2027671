"""Drill B from the inside: an older file becomes the store of the clone."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection

from apps.access import queries as access
from apps.access import services as access_services
from apps.audit import services as audit
from apps.common import clock
from apps.common.errors import PolarError
from apps.reliability import ports
from apps.reliability.engine import cloning
from apps.reliability.engine.drilling.asking import (
    SLOW,
    SLOW_WORD,
    ask,
    settled,
    tell_answers,
    wait_for,
)
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.engine.drilling.steady import board_answers
from apps.reliability.models import Rollback, RollbackState
from apps.runs import services as runs
from apps.runs.models import Run, State


def remove_protection() -> None:
    notebook.tell("attention", "Control: the witness will go back with the store")


def ask_and_wait(count: int) -> int:
    found = settled([ask(f"Errand {number}") for number in range(count)])
    tell_answers(found)
    notebook.kept["later"] = [turn.run_id for turn in found]
    return len(found)


def store_path() -> Path:
    return Path(settings.POLAR_CLONE) / cloning.STORE


def begin_long_work() -> int:
    """A turn that ends after the copy, and a run that waits for tomorrow."""
    turn = ask(SLOW_WORD, profile=SLOW)
    later = runs.enqueue(
        kind="reliability.snapshot",
        payload={},
        principal=access_services.system_principal(),
        workspace=access.default_workspace(),
        due_at=clock.now() + timedelta(days=1),
        trigger="drill",
        origin="drill",
    )
    notebook.kept["slow"] = turn
    notebook.kept["waiting"] = later.id
    wait_for(lambda: Run.objects.filter(id=turn.run_id, state=State.RUNNING).exists())
    return 2


def keep_copy() -> bool:
    audit.seal_all()
    connection.close()
    older = store_path().with_name("older.db")
    with (
        closing(sqlite3.connect(store_path(), timeout=20)) as old,
        closing(sqlite3.connect(older)) as new,
    ):
        old.backup(new)
        new.execute("PRAGMA journal_mode=DELETE")
    witness = Path(settings.POLAR_WITNESS_DIR)
    shutil.copytree(witness, witness.with_name("witness-older"))
    notebook.tell("ok", "A copy of the store is set aside")
    return True


def swap_store() -> bool:
    """Put the older file into place; for the control, the witness with it."""
    settled([notebook.kept["slow"]])
    audit.seal_all()
    connection.close()
    notebook.kept["epoch"] = audit.epoch()
    connection.close()
    control = notebook.is_control
    if control:
        for each in notebook.kept["troupe"].values():
            each.end()
    store = store_path()
    for end in ("-wal", "-shm"):
        store.with_name(store.name + end).unlink(missing_ok=True)
    store.with_name("older.db").replace(store)
    if control:
        witness = Path(settings.POLAR_WITNESS_DIR)
        shutil.rmtree(witness)
        witness.with_name("witness-older").rename(witness)
        stage = ports.stage()
        notebook.kept["troupe"] = {
            "worker": stage.spawn("worker", "--concurrency", "8"),
            "clock": stage.spawn("clock"),
        }
    notebook.fault("an older file is the store")
    return True


def swap_noticed() -> bool:
    seen = wait_for(lambda: audit.standing_alarm() is not None)
    standing = audit.standing_alarm()
    said = f"alarm: {standing.problem}" if standing else "no alarm stands"
    return notebook.observe("swap noticed", seen, said)


def nothing_claimed() -> bool:
    """A run that is due stays where it is while the store is in doubt."""
    if audit.standing_alarm() is None:
        return notebook.observe("nothing claimed", False, "work goes on")
    before = Run.objects.filter(state=State.RUNNING, fence__gt=0).count()
    try:
        turn = ask("Are you there?")
        clock.sleep(3)
        state = Run.objects.get(id=turn.run_id).state
    except PolarError as error:
        state = error.code
    held = state != State.RUNNING and state != State.SUCCEEDED
    said = f"a new run is {state}; {before} were under way in the copy"
    return notebook.observe("nothing claimed", held, said)


def runs_classified() -> bool:
    done = RollbackState.CLASSIFIED
    if audit.standing_alarm() is None:
        return notebook.observe("runs classified", False, "nothing was classified")
    wait_for(lambda: Rollback.objects.filter(state=done).exists())
    row = Rollback.objects.filter(state=done).first()
    if row is None:
        return notebook.observe("runs classified", False, "nothing was classified")
    later = len(notebook.kept.get("later", []))
    held = row.lost == later and row.conflicted >= 1 and row.stale >= 1
    said = (
        f"{row.conflicted} conflicted, {row.lost} lost of {later}, {row.stale} stale, "
        f"{row.events_lost} events given up"
    )
    return notebook.observe("runs classified", held, said)


def board_marks() -> bool:
    letters = Run.objects.filter(
        state=State.DEAD_LETTER, reason__in=("conflicted_history", "lost_by_rollback")
    ).count()
    answers = board_answers()
    said = f"{letters} dead letters by name; pages {'answer' if answers else 'fail'}"
    return notebook.observe("board shows them", answers and letters > 0, said)


def nothing_repeated() -> bool:
    ids = notebook.kept.get("later", [])
    again = Run.objects.filter(id__in=ids).exclude(state=State.DEAD_LETTER).count()
    known = Run.objects.filter(id__in=ids).count()
    held = again == 0 and known == len(ids) > 0
    said = f"{known} of {len(ids)} lost runs are kept as dead letters, {again} others"
    return notebook.observe("nothing repeated", held, said)


def accept_rollback() -> bool:
    if audit.standing_alarm() is None:
        return False
    connection.close()
    call_command("store", "accept", "--reason", "the drill goes on", verbosity=0)
    new = audit.epoch() != notebook.kept.get("epoch")
    notebook.tell("ok", "Recovery: accepted, a new epoch has begun")
    return new
