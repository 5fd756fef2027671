"""The store under storms: processes killed, the disk full, the server restarted.

The kills are few here and 200 under `make chaos` (POLAR_KILL_ROUNDS); what needs a
cluster or minutes is played only there (POLAR_STORE_STORMS=1).
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import services
from tests.journeys.cluster import Cluster
from tests.journeys.processes import ON_POSTGRES, ROOT, House, eventually, house
from tests.journeys.resident import Resident

pytestmark = pytest.mark.journey
STORMS = bool(os.environ.get("POLAR_STORE_STORMS"))
ROUNDS = os.environ.get("POLAR_KILL_ROUNDS", "6")
RUNS = os.environ.get("POLAR_RESTART_RUNS", "500")
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
    with tempfile.TemporaryDirectory(prefix="polar-cluster-") as home:
        Path(home).chmod(0o755)
        cluster = Cluster(Path(home) / "pg")
        folder = Path(home) / "house"
        folder.mkdir()
        polar = House(folder, cluster.url)
        polar.env["REDIS_URL"] = ""
        answers: Counter[str] = Counter()
        stop = threading.Event()
        try:
            assert polar.do("migrate") == 0, polar.output()
            assert polar.do("enqueue", "journey.wait", '{"seconds": 0.3}', RUNS) == 0
            port = services.free_port()
            start_web(polar, port)
            asking = threading.Thread(target=ask, args=(port, answers, stop))
            asking.start()
            polar.start("clock")
            polar.start("worker", "--concurrency", "4")
            restarts = restart_until_done(polar, cluster)
            carried = {line[0] for line in polar.carried()}
        finally:
            stop.set()
            polar.stop_all()
            cluster.stop()
        asking.join()
    sys.stdout.write(f"{restarts} restarts, answers {dict(answers)}\n")
    assert len(carried) == int(RUNS)
    assert set(answers) <= {"401", "503 with Retry-After", "no server"}
    assert answers["503 with Retry-After"]


def restart_until_done(polar: House, cluster: Cluster) -> int:
    """Kill the server every few seconds until every run has succeeded."""
    restarts = 0
    until = time.monotonic() + 900
    while time.monotonic() < until:
        if restarts < 12:
            cluster.stop(signal.SIGQUIT)
            time.sleep(1)
            cluster.start()
            restarts += 1
        time.sleep(4)
        if polar.states() == {"succeeded": int(RUNS)} and restarts >= 3:
            break
    assert polar.states() == {"succeeded": int(RUNS)}, polar.output()[-3000:]
    return restarts


def start_web(polar: House, port: int) -> None:
    command = [sys.executable, "-m", "gunicorn", "-k", "asgi", "--no-control-socket"]
    command += ["-b", f"127.0.0.1:{port}", "polar_site.asgi:application"]
    env = {**polar.env, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    with (polar.folder / "web.txt").open("wb") as out:
        web = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
    polar.processes.append(web)
    address = ("127.0.0.1", port)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(address) == 0

    assert eventually(listens), (polar.folder / "web.txt").read_text()


def ask(port: int, answers: Counter[str], stop: threading.Event) -> None:
    """Ask the API all the while and count what it answers."""
    url = f"http://127.0.0.1:{port}/api/v1/runs"
    headers = {"Authorization": "Bearer " + "a" * 43}
    while not stop.wait(0.1):
        try:
            urllib.request.urlopen(  # noqa: S310 (loopback)
                urllib.request.Request(url, headers=headers),
                timeout=60,  # noqa: S310
            ).close()
        except urllib.error.HTTPError as error:
            wait = error.headers.get("Retry-After")
            answers[f"{error.code} with Retry-After" if wait else str(error.code)] += 1
            error.close()
        except OSError:
            answers["no server"] += 1
