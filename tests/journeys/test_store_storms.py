"""The store under storms: processes killed, the disk full, the server restarted.

The kills are few here and 200 under `make chaos` (POLAR_KILL_ROUNDS); what needs a
cluster or minutes is played only there (POLAR_STORE_STORMS=1).
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.journeys import aftermath
from tests.journeys.cluster import Cluster
from tests.journeys.processes import ON_POSTGRES, House, eventually, house
from tests.journeys.resident import Resident
from tests.journeys.storm import ANSWERS, Storm, end

pytestmark = pytest.mark.journey
STORMS = bool(os.environ.get("POLAR_STORE_STORMS"))
ROUNDS = os.environ.get("POLAR_KILL_ROUNDS", "6")
RUNS = int(os.environ.get("POLAR_RESTART_RUNS", "500"))
DISK_BYTES = 24 * 1024 * 1024


def test_store_when_killed_again_and_again_then_no_false_alarm(tmp_path: Path) -> None:
    with house(tmp_path) as polar:
        resident = Resident(polar)
        assert resident.do("live", "1")["code"] == 0

        found = resident.do("churn", ROUNDS)

        assert found["said"] == {"rounds": int(ROUNDS), "alarms": 0}, found
        assert not (tmp_path / "witness" / "alarm.json").exists()
        assert resident.do("store", "check")["code"] == 0
        assert resident.do("audit", "verify")["code"] == 0
        ((runs,),) = polar.rows("SELECT count(*) FROM runs_run")
        assert runs > int(ROUNDS) // 2
        sys.stdout.write(f"{found['said']}, {runs} runs written\n")
        resident.close()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own that is soon full."""
    folder.mkdir()
    size = f"size={DISK_BYTES}"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(ON_POSTGRES, reason="fills the disk under SQLite")
def test_store_when_the_disk_is_full_then_refused_nothing_lost_and_it_resumes(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk, house(disk) as polar:
        resident = Resident(polar)
        resident.do("live", "1")
        resident.do("sign-in")
        kept, refused = 0, []
        (disk / "filler").write_bytes(b"\0" * max(0, room(disk) - 256 * 1024))
        for number in range(400):
            status, wait = resident.do("post", "/boards/new/", f"shelf-{number}")[
                "said"
            ]
            if status != 302:
                refused.append((status, bool(wait)))
                break
            kept += 1
        reads = resident.do("answers", "/boards/", "/healthz")["said"]
        (disk / "filler").unlink()
        again = resident.do("post", "/boards/new/", "again")["said"]

        assert refused == [(507, True)]
        assert set(reads.values()) <= {200, 503, 507}
        assert again[0] == 302
        ((boards,),) = polar.rows("SELECT count(*) FROM boards_board")
        assert boards == kept + 1
        assert resident.do("live", "1")["code"] == 0
        assert resident.do("store", "check")["code"] == 0
        assert resident.do("audit", "verify")["code"] == 0
        sys.stdout.write(f"{kept} kept, then {refused}, reads {reads}, again {again}\n")
        resident.close()


def room(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.mark.postgres
@pytest.mark.skipif(not (ON_POSTGRES and STORMS), reason="make chaos plays it")
def test_database_when_restarted_again_and_again_then_no_run_is_lost() -> None:
    texts = ["once" if number % 4 == 3 else "keyed" for number in range(RUNS)]
    with cluster() as server, shore(server) as built:
        stop = threading.Event()
        asking = threading.Thread(target=ask, args=(built, stop))
        breaking = threading.Thread(target=restart, args=(server, stop))
        asking.start()
        breaking.start()
        try:
            # As many messages as the server's crashes leave time for.
            runs = built.submit(texts, over=RUNS / 6)
            assert built.quiet(), built.polar.output()[-3000:]
        finally:
            stop.set()
            breaking.join()
            asking.join()
        sys.stdout.write(
            f"{RUNS} runs, {server.crashes} crashes of the server, asked"
            f" {dict(built.answered)}, {built.bare} refusals without Retry-After,"
            f" ends {built.polar.states()}\n"
        )

        assert server.crashes >= 3
        assert set(built.answered) <= {200, *ANSWERS}, built.answered
        assert built.answered[503]
        aftermath.check(built, dict(zip(runs, texts, strict=True)))


@contextmanager
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="polar-cluster-") as home:
        Path(home).chmod(0o755)
        server = Cluster(Path(home) / "pg")
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def shore(server: Cluster) -> Iterator[Storm]:
    """Web, clock and a worker over a server of their own."""
    folder = server.home / "house"
    folder.mkdir()
    polar = House(folder, server.url)
    polar.env["REDIS_URL"] = ""
    built = Storm(polar, 1)  # the tools outside are known to all that follow
    for command in ("migrate", "seed_demo", "storm"):
        assert polar.do(command) == 0, polar.output()
    try:
        for role in ("web", "clock", "worker1"):
            built.start(role)
        assert eventually(lambda: built.send("/healthz")[0] == 200), polar.output()
        yield built
    finally:
        for process in built.roles.values():
            end(process)
        polar.stop_all()


def restart(server: Cluster, stop: threading.Event) -> None:
    """Let the server crash every few seconds."""
    while not stop.wait(4):
        server.stop(signal.SIGQUIT)
        time.sleep(1)
        server.start()


def ask(built: Storm, stop: threading.Event) -> None:
    """Read the API all the while, as somebody does who watches."""
    while not stop.wait(0.1):
        status, _ = built.send("/api/v1/runs?limit=5")
        built.answered[200] += status == 200
