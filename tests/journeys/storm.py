"""A storm: real web, workers and clock, work over the API, kills without mercy.

Hides: who is killed when (by a seed), how an answer that was lost is asked for
again, and when all is quiet.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.journeys.outside import Received
from tests.journeys.processes import ROOT, House, Process, eventually, house
from tests.services import free_port

TOKEN = "pat_" + "storm" * 8
#: Leases are short here, so that a storm needs no half minutes. Units: seconds.
LEASE = os.environ.get("POLAR_STORM_LEASE", "6")
#: A run that is not over and waits for nobody.
MOVING = ("queued", "running")
#: What a storm may be answered: taken in, and honest refusals to be sent again.
ANSWERS = {202, 409, 503, 507}
#: What changes as long as anything moves.
MOVES = "SELECT state, count(*), sum(fence) FROM runs_run GROUP BY state"
#: A storm of any size may take its time; it may not stand still. Units: seconds.
PATIENCE = 120.0
MOST_FILES, MOST_MEGABYTES = 400, 600


class Storm:
    """One house in a storm."""

    def __init__(
        self,
        polar: House,
        seed: int,
        *,
        lease: str = LEASE,
        effect_seconds: float = 0.02,
    ) -> None:
        self.polar, self.lease = polar, lease
        self.chance = random.Random(seed)
        self.port = free_port()
        self.effects = polar.folder / "effects.txt"
        self.effects.touch()
        receiver_port = free_port()
        polar.env["JOURNEY_RECEIVER"] = f"http://127.0.0.1:{receiver_port}/"
        command = [sys.executable, "-m", "tests.journeys.outside", str(receiver_port)]
        command += [str(self.effects), str(effect_seconds)]
        receiver = subprocess.Popen(command, cwd=ROOT)
        polar.processes.append(receiver)
        self.roles: dict[str, Process] = {}
        self.answered: Counter[int] = Counter()
        self.lost_answers = 0
        #: Refusals for now that did not say when to ask again.
        self.bare = 0
        self.kills: Counter[str] = Counter()

    # --- processes

    def start(self, role: str, *, die: str = "") -> Process:
        commands = {
            "web": ("serve", str(self.port)),
            "clock": ("--lease", self.lease, "clock"),
        }
        lease = ("--lease", self.lease)
        worker = (*lease, "worker", "--concurrency", "6", "--name", role)
        self.roles[role] = self.polar.start(*commands.get(role, worker), die=die)
        return self.roles[role]

    def kill(self, role: str) -> None:
        """SIGKILL a process and its children, and start another in its place."""
        end(self.roles[role])
        self.kills[role.rstrip("123456789")] += 1
        self.start(role)

    def blow(self, kills: int, pause: tuple[float, float]) -> None:
        """Kill again and again somebody who is at work, never one who only starts."""
        for _ in range(kills):
            time.sleep(self.chance.uniform(*pause))
            assert eventually(lambda: bool(self.at_work())), self.polar.output()
            self.kill(self.chance.choice(self.at_work()))

    def at_work(self) -> list[str]:
        """Return who has come up."""
        beats = {pid for (pid,) in self.polar.rows("SELECT pid FROM runs_workerbeat")}
        owners = self.polar.rows("SELECT owner FROM runs_clocklease")
        clocks = {int(owner.split(":")[-2]) for (owner,) in owners if owner}
        up = [role for role, it in self.roles.items() if it.pid in beats | clocks]
        return sorted([*up, *(["web"] if self.send("/healthz")[0] == 200 else [])])

    # --- work

    def submit(self, texts: list[str], *, over: float = 0.0) -> list[str]:
        """Send each text under a key of its own until it is answered.

        Shape: the run of each. `over`: spread over so many seconds.
        """
        begun, apart = time.monotonic(), over / len(texts)

        def ask(number: int) -> str:
            time.sleep(max(0.0, begun + number * apart - time.monotonic()))
            return self.ask(number, texts[number])

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(ask, range(len(texts))))

    def ask(self, number: int, text: str) -> str:
        """Ask until it is taken in; give up when for long nothing at all is."""
        taken, since = self.answered[202], time.monotonic()
        while time.monotonic() - since < PATIENCE:
            status, body = self.send("/api/v1/orchestrate", {"text": text}, number)
            if status == 202:
                return str(body["runId"])
            time.sleep(0.2)
            if self.answered[202] != taken:
                taken, since = self.answered[202], time.monotonic()
        raise AssertionError(f"no answer to message {number}: {self.answered}")

    def send(
        self, path: str, body: object = None, key: object = ""
    ) -> tuple[int, dict[str, object]]:
        """Ask once. Shape: (status, body); status 0 when nobody answered."""
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {TOKEN}",
                "Content-Type": "application/json",
                **({} if key == "" else {"Idempotency-Key": f"message-{key}"}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                if body is not None:
                    self.answered[answer.status] += 1
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refusal:
            self.answered[refusal.code] += 1
            passes = refusal.code in (503, 507)
            self.bare += passes and not refusal.headers.get("Retry-After")
            refusal.close()
            return refusal.code, {}
        except (OSError, ValueError):
            self.lost_answers += body is not None
            return 0, {}

    # --- what became of it

    def quiet(self) -> bool:
        """Wait until nothing is to be done; False when for long nothing moves."""
        seen: object = None
        now, since = [("queued", 0, 0)], time.monotonic()
        while time.monotonic() - since < PATIENCE:
            with suppress(psycopg.OperationalError):  # the server may be down
                now = self.polar.rows(MOVES)
            if not {state for state, _, _ in now} & set(MOVING):
                return True
            if sorted(now) != seen:
                seen, since = sorted(now), time.monotonic()
            time.sleep(0.1)
        return False

    def received(self) -> Received:
        return Received(self.effects)

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Shape: role → (open files, resident megabytes) of its processes."""
        return {
            role: (max(map(files, tree)), max(map(megabytes, tree)))
            for role, process in self.roles.items()
            if (tree := family(process.pid))
        }

    def calm(self) -> None:
        """Have all leave as operators do, and see that nobody stays behind."""
        for process in self.roles.values():
            process.send_signal(signal.SIGTERM)
        for role, process in self.roles.items():
            assert process.wait(timeout=40) is not None, role
        assert eventually(lambda: not self.orphans(), 10), self.orphans()

    def orphans(self) -> list[int]:
        """Return processes of this house that are neither ours nor gone."""
        mark = f"JOURNEY_LOG={self.polar.log}".encode()
        ours = {process.pid for process in self.polar.processes}
        return [pid for pid in pids() if pid not in ours and mark in environ(pid)]


@contextmanager
def storm(
    folder: Path, seed: int = 1, *, workers: int = 2, **told: Any
) -> Iterator[Storm]:
    """A house with web, clock and workers, seeded, its outside listening."""
    with house(folder, "seed_demo") as polar:
        built = Storm(polar, seed, **told)
        assert polar.do("storm") == 0, polar.output()
        try:
            for role in ("web", "clock"):
                built.start(role)
            for number in range(workers):
                built.start(f"worker{number + 1}")
            assert eventually(lambda: built.send("/healthz")[0] == 200), polar.output()
            assert eventually(polar.working), polar.output()
            built.lost_answers = 0
            yield built
        finally:
            for process in built.roles.values():
                end(process)


def plain(run: object) -> str:
    """A run's id as every backend writes it."""
    return str(run).replace("-", "")


def end(process: Process) -> None:
    """SIGKILL a process and those it started, all at the same moment."""
    for pid in reversed(family(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def family(pid: int) -> list[int]:
    """Return a process and its descendants, the oldest first."""
    children: dict[int, list[int]] = {}
    for each in pids():
        children.setdefault(parent(each), []).append(each)
    found = [pid] if pid in pids() else []
    for each in found:
        found.extend(children.get(each, ()))
    return found


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def megabytes(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()
    except OSError:
        return 0
    return int(words[0]) // 1024 if words else 0
