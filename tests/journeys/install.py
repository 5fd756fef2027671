"""A whole install in a folder of its own, run as an operator runs it.

Hides: the copied house with its own `.env`, store and supervisor, and the reading of
a runbook: its fenced `sh` blocks are given to a shell as they stand, and what an
`# ->` beside a line promises is compared with what the line answers.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.journeys.processes import ROOT, eventually

BOOKS = ROOT / "docs" / "runbooks"
COPIED = ("apps", "polar_site", "templates", "static", "requirements")
FILES = ("manage.py", "polar", "Procfile")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISE = re.compile(r"^(?P<line>.*?)\s+# -> (?P<said>.*)$")
PREPARE = "from polar_site import bootstrap; print(bootstrap.prepare())"
CONFIGURE = "from polar_site import bootstrap; bootstrap.write_supervisor_config()"


class Install:
    """One copy of Polar: shell lines, its processes, its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        # Nothing of the suite's own environment: this is an operator's shell.
        self.env = {
            "PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "POLAR_PORT": str(port),
        }
        self.runner: subprocess.Popen[bytes] | None = None

    def sh(self, text: str) -> str:
        """Run a shell text to its end; a line that fails ends the test."""
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", text],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def follow(self, *blocks: str) -> str:
        """Run blocks of a runbook in one shell; check what they promise."""
        lines, promised = [], []
        for line in "".join(blocks).splitlines():
            found = PROMISE.match(line)
            if found:
                promised.append(found["said"])
                line = f"{found['line']} | sed 's/^/answered: /'"
            lines.append(line)
        said = self.sh("\n".join(lines))
        answered = re.findall(r"^answered: (.*)$", said, re.MULTILINE)
        assert answered == promised, said
        return said

    def start(self) -> None:
        (self.folder / "var" / "log").mkdir(parents=True, exist_ok=True)
        self.sh(f'{sys.executable} -c "{CONFIGURE}"')
        with (self.folder / "var" / "runner.txt").open("wb") as out:
            self.runner = subprocess.Popen(
                ["supervisord", "-c", "var/supervisord.conf"],
                cwd=self.folder,
                env=self.env,
                stdout=out,
                stderr=out,
            )
        assert eventually(lambda: self.asks("/healthz") == 200, 300), self.logs()

    def stop(self) -> None:
        if self.runner is not None:
            self.runner.send_signal(signal.SIGTERM)
            self.runner.wait(60)

    def asks(self, path: str, bearer: str = "") -> int:
        """Return the status of one GET, or 0 where nobody listens."""
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            return httpx.get(self.address + path, headers=headers).status_code
        except httpx.TransportError:
            return 0

    def logs(self) -> str:
        logs = sorted((self.folder / "var").glob("log/*.log"))
        return "".join(f"\n--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)


def blocks(book: str, heading: str = "") -> list[str]:
    """Return the `sh` blocks of a runbook, or those of one of its sections."""
    text = (BOOKS / f"{book}.md").read_text()
    if heading:
        _, found, after = text.partition(f" {heading}\n")
        assert found, heading
        text = re.split(r"^##", after, maxsplit=1, flags=re.MULTILINE)[0]
    return BLOCK.findall(text)


@contextmanager
def install(folder: Path) -> Iterator[Install]:
    """Copy the house, prepare it as `make run` does, and stop it at the end."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name)
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "docs").symlink_to(ROOT / "docs")
    built = Install(folder)
    built.sh("python3 polar_site/bootstrap.py env")
    built.sh(f'{sys.executable} -c "{PREPARE}"')
    try:
        yield built
    finally:
        built.stop()
