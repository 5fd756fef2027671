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
import socket
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from chaoslib.exceptions import ChaosException
from chaoslib.exit import exit_gracefully
from chaoslib.experiment import ensure_experiment_is_valid, run_experiment
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from apps.common import clock, egress
from apps.common.errors import PolarError
from apps.reliability.adapters.doubles import HOST, Double
from apps.reliability.errors import DrillFailed
from apps.reliability.ports import DISK, Scenery

LOCKED = "bubblewrap: no network, read-only file system"
LOOSE = "a process group: only Polar's own egress guards the network"
#: How long a child may take to leave. Units: seconds.
PATIENCE = 3


#: How long a command of a drill may take. Units: seconds.
LONGEST_ORDER = 60
#: How long a broker may take to answer. Units: seconds.
BROKER_STARTS_WITHIN = 10.0
BROKER = "redis-server"


class Stage:
    """Starts and ends rehearsals."""

    def isolation(self) -> str:
        """Say how a rehearsal is kept apart here."""
        return LOCKED if _can_lock() else LOOSE

    def lacks(self, scenery: Scenery) -> str:
        """Say what this machine lacks for a drill, or ""."""
        if scenery.has_broker and shutil.which(BROKER) is None:
            return f"{BROKER} is not installed here"
        if scenery.disk_bytes and not _can_lock():
            return "a small disk of its own needs bubblewrap"
        return ""

    def free_ports(self, count: int) -> list[int]:
        """Find loopback ports that nobody uses."""
        probes = [socket.create_server((HOST, 0)) for _ in range(count)]
        try:
            return [int(probe.getsockname()[1]) for probe in probes]
        finally:
            for probe in probes:
                probe.close()

    def start(self, folder: Path, scenery: Scenery, *arguments: str) -> "Troupe":
        """Start `manage.py rehearse` in the clone of this folder."""
        command = [*_manage("rehearse"), *arguments]
        if _can_lock():
            command = [*_locked(folder, scenery.disk_bytes), *command]
        return _begin(folder, command, _environment(folder))

    def start_live(self, folder: Path, *arguments: str) -> "Troupe":
        """Start `manage.py rehearse --live` beside the install's own processes."""
        command = [*_manage("rehearse"), *arguments]
        return _begin(folder, command, dict(settings.ENVIRONMENT))

    def spawn(self, *arguments: str) -> "Troupe":
        """Inside a rehearsal: start one of Polar's own processes."""
        return _child(_manage(*arguments))

    def serve(self, place: str) -> "Troupe":
        """Inside a rehearsal: start the web as the Procfile does."""
        gunicorn = [sys.executable, "-m", "gunicorn", "polar_site.asgi:application"]
        return _child([*gunicorn, "-k", "asgi", "--bind", place, "--no-control-socket"])

    def broker(self, place: str) -> "Broker":
        """Inside a rehearsal: start a Redis that keeps nothing on disk."""
        return Broker(int(place.rsplit(":", 1)[1]))

    def double(self, kind: str, place: str) -> Double:
        """Inside a rehearsal: play a vendor."""
        return Double(kind, int(place.rsplit(":", 1)[1]))

    def order(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Inside a rehearsal: give one command and return its code and words."""
        try:
            done = subprocess.run(  # noqa: S603 (argv of ours, no shell)
                _manage(*arguments),
                env=_environment(Path(settings.POLAR_CLONE)),
                cwd=settings.BASE_DIR,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=LONGEST_ORDER,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DrillFailed(f"{' '.join(arguments)}: {error}") from error
        return done.returncode, done.stdout + done.stderr

    def status_of(self, url: str, bearer: str) -> int:
        """Inside a rehearsal: ask for a page; 0 where nobody answers."""
        try:
            with egress.client(local=[url.split("/")[2]]) as client:
                headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
                return client.get(url, headers=headers).status_code
        except (httpx.HTTPError, PolarError):
            return 0

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

    def abort(self) -> None:
        """End the experiment that is played in this process, with its rollbacks."""
        exit_gracefully()


class Troupe:
    """A child process and what it started."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", *, leads: bool = False
    ) -> None:
        self._process = process
        #: Whether it leads a group of its own, which may outlive it.
        self._leads = leads

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        """Kill it, and its group when it leads one. Again: nothing."""
        leads, self._leads = self._leads, False
        if leads:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)


class Broker(Troupe):
    """A Redis of the rehearsal's own, with nothing on disk."""

    def __init__(self, port: int) -> None:
        said = ("--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no")
        super().__init__(_child([BROKER, *said])._process)
        self._redis: Redis = Redis(host=HOST, port=port, socket_timeout=5.0)
        until = clock.monotonic() + BROKER_STARTS_WITHIN
        while not self._answers():
            if clock.monotonic() > until or self.code is not None:
                raise DrillFailed("The drill's own broker does not start.")
            clock.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return bool(self._redis.ping())
        except (RedisError, OSError):
            return False

    def holds(self) -> int:
        """Count the hints that wait for a worker."""
        return int(self._redis.llen("default"))

    def wipe(self) -> None:
        """Lose everything."""
        self._redis.flushall()


def _manage(*arguments: str) -> list[str]:
    return [sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments]


def _begin(folder: Path, command: list[str], env: dict[str, str]) -> Troupe:
    with (folder / "output.txt").open("wb") as out:
        try:
            process = subprocess.Popen(  # noqa: S603 (argv of ours, no shell)
                command,
                env=env,
                cwd=settings.BASE_DIR,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except OSError as error:
            raise DrillFailed(f"The drill does not start: {error}") from error
    return Troupe(process, leads=True)


def _child(command: list[str]) -> Troupe:
    try:
        process = subprocess.Popen(  # noqa: S603 (argv of ours, no shell)
            command,
            env=_environment(Path(settings.POLAR_CLONE)),
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise DrillFailed(f"{command[0]} does not start: {error}") from error
    return Troupe(process)


def _environment(folder: Path) -> dict[str, str]:
    """What a process of the clone is given; the rest it reads in the clone's `env`,
    as it stands when it starts."""
    return {
        "PATH": str(settings.ENVIRONMENT.get("PATH", os.defpath)),
        "LANG": "C.UTF-8",
        "DJANGO_SETTINGS_MODULE": "polar_site.settings",
        "POLAR_CLONE": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _locked(folder: Path, disk_bytes: int = 0) -> list[str]:
    own = ["--bind", str(folder), str(folder)]
    if disk_bytes:
        own += ["--size", str(disk_bytes), "--tmpfs", str(folder / DISK)]
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
