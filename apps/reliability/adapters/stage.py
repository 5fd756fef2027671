"""Where a rehearsal runs: a process tree of its own, where it can be without network.

With bubblewrap the whole tree shares a namespace without network, sees the file
system read-only but for the clone's folder, sees neither the install's `.env` nor
its `var`, and dies with this process. Without it the tree is a process group, and
Polar's own egress refuses everything that is not loopback.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from chaoslib.exceptions import ChaosException
from chaoslib.experiment import ensure_experiment_is_valid, run_experiment
from django.conf import settings

from apps.reliability.errors import DrillFailed

LOCKED = "bubblewrap: no network, read-only file system"
LOOSE = "a process group: only Polar's own egress guards the network"
#: How long a child may take to leave. Units: seconds.
PATIENCE = 3


class Stage:
    """Starts and ends rehearsals."""

    def isolation(self) -> str:
        """Say how a rehearsal is kept apart here."""
        return LOCKED if _can_lock() else LOOSE

    def start(self, folder: Path, *arguments: str) -> "Troupe":
        """Start `manage.py rehearse` in the clone of this folder."""
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "rehearse"]
        if _can_lock():
            command = [*_locked(folder), *command]
        env = _environment(folder)
        with (folder / "output.txt").open("wb") as out:
            try:
                process = subprocess.Popen(  # noqa: S603 (argv of ours, no shell)
                    [*command, *arguments],
                    env=env,
                    cwd=settings.BASE_DIR,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            except OSError as error:
                raise DrillFailed(f"The rehearsal does not start: {error}") from error
        return Troupe(process)

    def spawn(self, *arguments: str) -> "Troupe":
        """Inside a rehearsal: start one of Polar's own processes."""
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]
        return Troupe(
            subprocess.Popen(  # noqa: S603 (argv of ours, no shell)
                command, cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL
            )
        )

    def play(self, experiment: dict[str, Any]) -> dict[str, Any]:
        """Run a Chaos Toolkit experiment in this process; return its journal.

        Raises: DrillFailed for a file that is no experiment.
        """
        try:
            ensure_experiment_is_valid(experiment)
        except ChaosException as error:
            raise DrillFailed(f"No valid experiment: {error}") from error
        journal = run_experiment(experiment)
        return dict(json.loads(json.dumps(journal, default=str)))


class Troupe:
    """A child process and what it started."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        """Kill it, and its group when it leads one. Again: nothing."""
        with suppress(ProcessLookupError):
            if os.getpgid(self._process.pid) == self._process.pid:
                os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": str(settings.ENVIRONMENT.get("PATH", os.defpath)),
        "LANG": "C.UTF-8",
        "DJANGO_SETTINGS_MODULE": "polar_site.settings",
        "POLAR_CLONE": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _locked(folder: Path) -> list[str]:
    own = ["--bind", str(folder), str(folder)]
    secret = [settings.BASE_DIR / ".env"]
    if "sqlite" in settings.DATABASES["default"]["ENGINE"]:
        secret.append(Path(str(settings.DATABASES["default"]["NAME"])))
    hidden = []
    for path in secret:
        if path.is_file():
            hidden += ["--ro-bind", "/dev/null", str(path)]
    if (settings.BASE_DIR / "var").is_dir():
        hidden += ["--tmpfs", str(settings.BASE_DIR / "var")]
    return [
        *("bwrap", "--die-with-parent", "--unshare-net", "--unshare-pid"),
        *("--unshare-ipc", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *hidden,
        *own,
        "--",
    ]


@lru_cache(maxsize=1)
def _can_lock() -> bool:
    if shutil.which("bwrap") is None:
        return False
    tried = subprocess.run(  # noqa: S603 (argv of ours, no shell)
        [*_locked(Path("/tmp")), "true"],  # noqa: S108 (bound to itself, unused)
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0
