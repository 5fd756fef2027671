"""Real processes that start warm: Django is loaded once, each is a fork of that.

A start of Python costs seconds of imports, and a journey starts dozens. A fork is as
much a process of its own: its connections, its threads and its death belong to it.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.journeys.warm"])


class Forked:
    """One process. Shape: what `subprocess.Popen` offers, as far as journeys ask."""

    def __init__(
        self, arguments: tuple[str, ...], env: Mapping[str, str], out: Path
    ) -> None:
        _let_the_server_run(env)
        self.arguments = arguments
        self._process = _context.Process(
            target=_be, args=(list(arguments), dict(env), str(out))
        )
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises: subprocess.TimeoutExpired."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _let_the_server_run(env: Mapping[str, str]) -> None:
    """Start it in the world of its first process; kept for the rest of the tests."""
    before = os.environ.get("REDIS_URL")
    os.environ["REDIS_URL"] = env["REDIS_URL"]
    try:
        forkserver.ensure_running()
    finally:
        os.environ["REDIS_URL"] = before or ""


def _be(arguments: list[str], env: dict[str, str], out: str) -> None:
    """Become the process that is asked for. Runs in the fork."""
    from tests.journeys import harness  # loaded already; the test has no need of it

    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["harness", *arguments]
    harness.settle_in(env)
    harness.main(arguments)
