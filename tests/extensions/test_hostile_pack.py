"""Skills that mean harm: each is contained, and each is named in the ledger."""

import os
import resource
import socket
import threading
from uuid import uuid4

import pytest

from apps.common.errors import PolarError
from apps.extensions import ports
from apps.extensions.adapters import processes, sandbox
from tests.extensions.hostile import (
    SMALL,
    Attack,
    execute,
    report,
    row_of,
    source,
    target,
    write,
)

# ruff: noqa: E501 (attacks read best on one line)
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        not sandbox.isolation().is_available, reason=sandbox.isolation().detail
    ),
]

SHORT = ports.Limits(
    call_seconds=0.5,
    output_bytes=65_536,
    memory_bytes=SMALL.memory_bytes,
    processes=SMALL.processes,
)
#: What the gateway itself may grow by, whatever an extension does. Units: bytes.
MOST_GROWTH = 64 * 1_048_576


def reads(path: str) -> str:
    return report(f"return open({path!r}).read()[:40]")


def connects(family: str, address: str) -> str:
    return report(
        f"s = socket.socket(socket.{family}); s.settimeout(1)\n"
        f"s.connect({address})\nreturn 'connected'"
    )


NO_FILE = {"got": "FileNotFoundError"}
NO_RIGHT = {"got": "PermissionError"}
NO_WRITE = {"got": "OSError"}

ATTACKS = [
    # it breaks
    Attack(name="crash", script="import os; os.abort()", says="killed"),
    Attack(name="segfault", script="import ctypes; ctypes.string_at(0)", says="killed"),
    Attack(name="exit-code", script="raise SystemExit(7)", says="exit code 7"),
    Attack(
        name="kills-itself", script="import os; os.kill(os.getpid(), 9)", says="killed"
    ),
    Attack(
        name="garbage", script="print('\\x00\\xff not json')", says="one JSON value"
    ),
    Attack(name="deep-json", script="print('['*60000)", says="one JSON value"),
    Attack(name="closes-stdin", script="import os; os.close(0); print('1')", output=1),
    # it does not end
    Attack(
        name="hang",
        script="import time; time.sleep(99)",
        says="did not end",
        limits=SHORT,
    ),
    Attack(name="spin", script="while True: pass", says="did not end", limits=SHORT),
    Attack(
        name="ignores-signals",
        script="import signal, time\nfor n in range(1, 32):\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except OSError: pass\ntime.sleep(99)",
        says="did not end",
        limits=SHORT,
    ),
    Attack(
        name="zombies",
        script="import os, time\nfor n in range(8):\n  os.fork() or os._exit(0)\ntime.sleep(99)",
        says="did not end",
        limits=SHORT,
    ),
    Attack(
        name="holds-the-pipe",
        script="import os, time\nif os.fork() == 0: time.sleep(99)\nprint('1')",
        output=1,
    ),
    Attack(
        name="setsid-escape",
        script="import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(99)\n"
        "  os._exit(0)\ntime.sleep(99)",
        says="did not end",
        limits=SHORT,
    ),
    # it takes too much
    Attack(
        name="gigabyte-output",
        script="import sys\nblock = 'x' * 65536\nfor n in range(16384): sys.stdout.write(block)",
        says="said more than",
    ),
    Attack(
        name="gigabyte-stderr",
        script="import sys\nblock = 'x' * 65536\nwhile True: sys.stderr.write(block)",
        says="did not end",
        limits=SHORT,
    ),
    Attack(
        name="memory-bomb",
        script=report("return len(bytearray(10**9))"),
        output={"got": "MemoryError"},
    ),
    Attack(
        name="memory-bomb-in-parts",
        script="import os, time\nfor n in range(8):\n  if os.fork() == 0:\n    kept = b'x' * 40_000_000\n"
        "    time.sleep(99)\ntime.sleep(99)",
        says="more memory",
    ),
    Attack(
        name="fork-bomb",
        script=report(
            "n = 0\nwhile True:\n  if os.fork() == 0: time.sleep(99)\n  n += 1"
        ),
        output={"got": "BlockingIOError"},
    ),
    Attack(
        name="disk-bomb",
        script=report("f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * 1048576)"),
        output=NO_WRITE,
    ),
    Attack(
        name="shared-memory-bomb",
        script=report(
            "for n in range(99):\n  f = open(f'/dev/shm/{n}', 'wb')\n"
            "  [f.write(b'x' * 1048576) for _ in range(32)]"
        ),
        output=NO_WRITE,
    ),
    Attack(
        name="descriptor-bomb",
        script=report("kept = []\nwhile True: kept.append(open('/dev/null'))"),
        output=NO_WRITE,
    ),
    # it looks around
    Attack(
        name="reads-home", script=reads(os.path.expanduser("~/.bashrc")), output=NO_FILE
    ),
    Attack(name="reads-passwords", script=reads("/etc/shadow"), output=NO_FILE),
    Attack(
        name="reads-our-env-file", script=reads(os.path.abspath(".env")), output=NO_FILE
    ),
    Attack(
        name="reads-our-code",
        script=reads(os.path.abspath("manage.py")),
        output=NO_FILE,
    ),
    Attack(
        name="path-trick", script=reads("/package/../../../etc/passwd"), output=NO_FILE
    ),
    Attack(
        name="proc-root-trick", script=reads("/proc/1/root/etc/passwd"), output=NO_RIGHT
    ),
    Attack(
        name="symlink-trick",
        script=report(
            "os.symlink('/etc/passwd', '/tmp/l'); return open('/tmp/l').read()"
        ),
        output=NO_FILE,
    ),
    Attack(
        name="reads-our-memory",
        script=reads(f"/proc/{os.getpid()}/mem"),
        output=NO_FILE,
    ),
    Attack(
        name="sees-our-processes",
        script=report(
            "return len([p for p in os.listdir('/proc') if p.isdigit()]) < 6"
        ),
        output={"got": True},
    ),
    Attack(
        name="kills-us",
        script=report(f"os.kill({os.getpid()}, 9)"),
        output={"got": "ProcessLookupError"},
    ),
    # it wants more rights
    Attack(name="becomes-root", script=report("os.setuid(0)"), output=NO_RIGHT),
    Attack(name="changes-root", script=report("os.chroot('/tmp')"), output=NO_RIGHT),
    Attack(
        name="mounts",
        script=report(
            "return subprocess.run(['mount', '-t', 'tmpfs', 'x', '/usr'], capture_output=True).returncode != 0"
        ),
        output={"got": True},
    ),
    Attack(
        name="makes-a-device",
        script=report("os.mknod('/tmp/d', 0o20666, os.makedev(1, 1))"),
        output=NO_RIGHT,
    ),
    Attack(
        name="writes-the-system",
        script=report("open('/usr/bin/x', 'w')"),
        output=NO_WRITE,
    ),
    Attack(
        name="rewrites-itself",
        script=report("open('/package/attack.py', 'w')"),
        output=NO_WRITE,
    ),
    # it calls home
    Attack(
        name="opens-a-socket",
        script=connects("AF_INET", "('1.1.1.1', 80)"),
        output=NO_WRITE,
    ),
    Attack(
        name="asks-metadata",
        script=connects("AF_INET", "('169.254.169.254', 80)"),
        output=NO_WRITE,
    ),
    Attack(
        name="opens-a-socket-6",
        script=connects("AF_INET6", "('2606:4700::1111', 80)"),
        output=NO_WRITE,
    ),
    Attack(
        name="asks-a-name",
        script=report("return socket.getaddrinfo('example.com', 80)"),
        output={"got": "gaierror"},
    ),
    Attack(
        name="raw-socket",
        script=report("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
        output=NO_RIGHT,
    ),
    Attack(
        name="host-unix-socket",
        script=connects("AF_UNIX", "'/var/run/docker.sock'"),
        output=NO_FILE,
    ),
    Attack(
        name="database-socket",
        script=connects("AF_UNIX", "'/var/run/postgresql/.s.PGSQL.5432'"),
        output=NO_FILE,
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_contained_and_named(rob, tmp_path, attack):
    package = write(tmp_path / "package", {"attack.py": attack.script})
    hostile = source(package, ext_id=attack.name, limits=attack.limits)
    aimed = target(hostile, "attack.py")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    said = _say(rob, aimed)

    assert (
        attack.says in said["error"] if attack.says else said["output"] == attack.output
    )
    row = row_of(f"{attack.name}/attack")
    assert row.state == ("failed" if attack.says else "succeeded")
    assert processes.end_extension(hostile.extension_id) == [], "something lives on"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MOST_GROWTH


def _say(rob, aimed):
    try:
        return {"output": execute(rob, aimed), "error": ""}
    except PolarError as error:
        return {"output": None, "error": error.detail}


def test_loopback_listener_of_the_host_hears_nothing(rob, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        script = connects("AF_INET", f"('127.0.0.1', {port})")
        package = write(tmp_path / "package", {"attack.py": script})

        output = execute(rob, target(source(package), "attack.py"))

        assert output == {"got": "ConnectionRefusedError"}
        with pytest.raises(TimeoutError):
            listener.accept()


def test_extension_that_runs_is_ended_from_another_thread(rob, tmp_path):
    package = write(tmp_path / "package", {"attack.py": "import time; time.sleep(99)"})
    hostile = source(package, extension_id=uuid4())
    runtime = ports.find_runtime(ports.Transport.SCRIPT)
    ended: list[ports.Termination] = []

    def stop():
        while not ended:
            ended.extend(runtime.stop(hostile.extension_id))

    stopper = threading.Thread(target=stop)
    stopper.start()
    said = _say(rob, target(hostile, "attack.py"))
    stopper.join()

    assert "was killed" in said["error"]
    assert all(each.is_confirmed for each in ended)
    assert {each.call_id for each in ended} == {row_of("hostile/attack").id}


def test_pack_is_large_enough():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 30
