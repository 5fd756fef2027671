"""A harness process that stays: one start, many commands, each as a fresh process
would find the world.

Before every command it closes its connection, forgets what it has seen and points
itself at the store and the witness that it is told of; so a matrix of broken stores
costs one start of Python and not one for each look.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tests.journeys.processes import ROOT, House

#: Static files were not collected here, so pages name them as they are.
PLAIN = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}


class Resident:
    """The side of the test."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._errors = (house.folder / "resident.txt").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.journeys.harness", "resident"],
            cwd=ROOT,
            env=house.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        house.processes.append(self.process)  # type: ignore[arg-type]

    def close(self) -> None:
        """Let it end, and its pipes with it."""
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                pipe.close()
        self.process.wait(timeout=30)

    def do(self, *words: str, folder: Path | None = None, url: str = "") -> Any:
        """Let it run one command and return what came out.

        Shape: {"code", "said", "seconds"}; `folder` holds polar.db and witness.
        """
        where = folder or self.house.folder
        if not url:
            url = f"sqlite:///{where}/polar.db" if folder else self.house.url
        asked = {"do": words, "folder": str(where), "url": url}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, (self.house.folder / "resident.txt").read_text()[-2000:]
        return json.loads(answer)


def serve() -> None:
    """The side of the process: do what is asked, line by line."""
    out = sys.stdout
    for line in sys.stdin:
        asked = json.loads(line)
        _begin_anew(asked["url"], Path(asked["folder"]))
        from apps.common import clock

        began = clock.monotonic()
        code, said = _do(asked["do"])
        answer = {"code": code, "said": said, "seconds": clock.monotonic() - began}
        out.write(json.dumps(answer, default=str) + "\n")
        out.flush()


def _begin_anew(url: str, folder: Path) -> None:
    from django.conf import settings
    from django.db import connection

    from apps.audit.engine import anchoring, memory

    memory.forget()
    anchoring._walked = 0
    name = url.removeprefix("sqlite:///") if "sqlite" in url else url.split("/")[-1]
    connection.settings_dict["NAME"] = name
    settings.STORAGES = PLAIN
    settings.POLAR_WITNESS_DIR = folder / "witness"
    settings.POLAR_SNAPSHOT_DIR = folder / "snapshots"


def _do(words: list[str]) -> tuple[int, Any]:
    from django.core.management import call_command
    from django.db import connection

    from apps.audit.engine import opened

    printed = io.StringIO()
    try:
        if words[0] in OWN:
            return 0, OWN[words[0]](*words[1:])
        with redirect_stdout(printed):
            call_command(*words)
        return 0, _read(printed.getvalue())
    except SystemExit as ended:
        return int(str(ended.code)), _read(printed.getvalue())
    except Exception as error:  # noqa: BLE001 (a process of its own would exit 1)
        traceback.print_exc()
        return 2, f"{type(error).__name__}: {error}"
    finally:
        # Nothing stays open between two commands.
        opened.open_anew()
        getattr(connection, "close_pool", opened.open_anew)()


def _read(printed: str) -> Any:
    try:
        return json.loads(printed)
    except ValueError:
        return printed


def _live(count: str) -> list[str]:
    from tests.journeys.harness import live

    return [str(run.id) for run in live(int(count))]


def _tasks(*run_ids: str) -> int:
    """A card for each run."""
    from uuid import UUID

    from apps.access import queries
    from apps.access import services as access
    from apps.boards import services as boards

    system = access.system_principal()
    board = boards.ensure_board(
        by=system, workspace=queries.default_workspace(), slug="m", title="M"
    )
    for run_id in run_ids:
        draft = boards.TaskDraft(title=f"for {run_id}", run_id=UUID(run_id))
        boards.upsert_task(by=system, board=board, draft=draft)
    return len(run_ids)


def _work(*run_ids: str) -> int:
    """Carry these runs, or whatever may be claimed."""
    from uuid import UUID

    from apps.audit import services as audit
    from apps.runs import services
    from apps.runs.engine.claim import claim

    ids = [UUID(text) for text in run_ids]
    if not ids:
        from apps.runs.models import Run, State

        ids = list(Run.objects.filter(state=State.QUEUED).values_list("id", flat=True))
    carried = sum(services.execute(run_id) for run_id in ids)
    if not run_ids and not carried:
        carried = len(claim(owner="resident", queues=["default"]))
    if not audit.standing_alarm():
        audit.seal_all()
    return carried


def _sign_in() -> None:
    """Be an administrator with a page open, from here on."""
    from apps.access import services as access
    from apps.access.models import Role, User

    if not User.objects.filter(username="ada").exists():
        new = access.NewUser(
            "ada", "a-long-password-1", Role.ADMIN, access.ensure_default_workspace()
        )
        access.create_user(by=access.system_principal(), new=new)
    _client().force_login(User.objects.get(username="ada"))


def _answers(*paths: str) -> dict[str, int]:
    """What the open pages answer."""
    return {path: _client().get(path).status_code for path in paths}


def _post(path: str, title: str) -> list[Any]:
    """Send a form from the open page. Shape: status, Retry-After."""
    answer = _client().post(path, {"title": title, "slug": title})
    return [answer.status_code, answer.headers.get("Retry-After")]


def _churn(rounds: str) -> dict[str, int]:
    """Begin as a process does, write and seal, be killed with SIGKILL; again.

    Each round is a fork that remembers nothing: it compares the store with the
    witness as at a start, and writes until it is killed somewhere.
    """
    from django.db import connection

    from apps.audit.engine import opened

    found = {"rounds": 0, "alarms": 0}
    for number in range(int(rounds)):
        opened.open_anew()
        getattr(connection, "close_pool", opened.open_anew)()
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            _write_until_killed(told)
        os.close(told)
        said = os.read(ready, 1)
        time.sleep(number % 20 / 100)  # somewhere in a transaction, a seal, a line
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        found["rounds"] += said == b"y"
        found["alarms"] += said == b"n"
    return found


def _write_until_killed(told: int) -> None:
    from apps.audit import services as audit
    from apps.audit.engine import memory
    from tests.journeys.harness import live

    try:
        memory.forget()
        os.write(told, b"n" if audit.check_store() else b"y")
        while True:
            live(1)
    finally:
        os._exit(1)


_clients: list[Any] = []


def _client() -> Any:
    from django.test import Client

    if not _clients:
        _clients.append(Client(raise_request_exception=False))
    return _clients[0]


OWN: dict[str, Any] = {
    "live": _live,
    "tasks": _tasks,
    "work": _work,
    "sign-in": _sign_in,
    "answers": _answers,
    "post": _post,
    "churn": _churn,
}
