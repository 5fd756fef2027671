"""A private PostgreSQL and Redis for one command, gone when it ends.

`install` adds missing system packages where that is possible; `exec -- CMD` runs CMD
with DATABASE_URL and REDIS_URL. What cannot be had is named with its reason; with
CI=true it is an error. Standard library only.
"""

import argparse
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

#: Debian package -> the program that shows that it is there.
PACKAGES = {
    "redis-server": "redis-server",
    "postgresql": "initdb",
    "chromium": "chromium",
    "bubblewrap": "bwrap",
}
START_SECONDS = 30


class Missing(Exception):
    """A service cannot be had here; the text says why."""


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


def find(program: str) -> str | None:
    """Where a program is; PostgreSQL's server tools are not on Debian's PATH."""
    on_path = shutil.which(program)
    if on_path:
        return on_path
    homes = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(homes[-1]) if homes else None


# --- Packages ---------------------------------------------------------------


def install() -> int:
    wanted = [name for name, program in PACKAGES.items() if find(program) is None]
    if not wanted:
        return 0
    print(f"Missing system packages: {', '.join(wanted)}", flush=True)
    problem = apt_install(wanted)
    still = [name for name in wanted if find(PACKAGES[name]) is None]
    for name in still:
        print(f"LEFT OUT {name}: {problem}", flush=True)
    return 1 if still and in_ci() else 0


def apt_install(names: list[str]) -> str:
    """Install packages; return why that was not possible, or an empty text."""
    if shutil.which("apt-get") is None:
        return "this system has no apt-get; install it by hand"
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and shutil.which("sudo") is None:
        return "not root and no sudo; install it by hand"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update", "-qq"], ["install", "-y", "-qq", *names]):
        done = subprocess.run(
            [*root, "apt-get", *step], env=env, capture_output=True, text=True
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            return f"apt-get {step[0]}: {lines[-1]}"
    return "installed, but its program was not found"


# --- Services ---------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Missing(f"it ended at once with status {process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise Missing(f"it did not listen within {START_SECONDS} s")


@contextlib.contextmanager
def running(command: list[str], port: int, **options: object) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the tests first, then us
        **options,
    )
    try:
        wait_for(port, process)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis(home: Path) -> Iterator[str]:
    program = find("redis-server")
    if program is None:
        raise Missing("redis-server is not installed")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running([*command, "--appendonly", "no", "--dir", str(home)], port):
        yield f"redis://127.0.0.1:{port}/0"


def cluster_owner() -> str | None:
    """PostgreSQL refuses to run as root: then who owns the cluster."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Missing("root may not run it and there is no other user")


@contextlib.contextmanager
def postgres(home: Path, *, durable: bool = False) -> Iterator[str]:
    """A cluster on loopback, new unless `home` holds one; not durable unless asked."""
    tools = {name: find(name) for name in ("initdb", "postgres", "createdb")}
    absent = [name for name, path in tools.items() if path is None]
    if absent:
        raise Missing(f"{', '.join(absent)} not installed")
    owner = cluster_owner()
    options: dict[str, object] = {"cwd": home}
    if owner:
        account = pwd.getpwnam(owner)
        os.chown(home, account.pw_uid, account.pw_gid)
        options |= {"user": owner, "group": account.pw_gid, "extra_groups": []}
    data = home / "data"
    kept = data.exists()
    if not kept:
        init_cluster(str(tools["initdb"]), data, options)
    port = free_port()
    server = [tools["postgres"], "-D", str(data), "-p", str(port), "-k", str(home)]
    safety = "on" if durable else "off"
    for setting in (
        "listen_addresses=127.0.0.1",
        f"fsync={safety}",
        f"synchronous_commit={safety}",
        f"full_page_writes={safety}",
        "max_connections=200",
        "log_min_messages=panic",
    ):
        server += ["-c", setting]
    with running(server, port, **options, stderr=subprocess.DEVNULL):
        if not kept:
            create_database(str(tools["createdb"]), port)
        yield f"postgres://polar@127.0.0.1:{port}/polar"


def init_cluster(initdb: str, data: Path, options: dict[str, object]) -> None:
    made = subprocess.run(
        [initdb, "-D", data, "-U", "polar", "-A", "trust", "-E", "UTF8"]
        + ["--no-sync", "--locale=C.UTF-8"],
        capture_output=True,
        text=True,
        **options,
    )
    if made.returncode:
        raise Missing(f"initdb: {made.stderr.strip()[-300:]}")


def create_database(createdb: str, port: int) -> None:
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "polar", "polar"]
    for _ in range(50):
        done = subprocess.run([createdb, *where], capture_output=True, text=True)
        if not done.returncode:
            return
        time.sleep(0.1)
    raise Missing(f"createdb: {done.stderr.strip()}")


def run_with_services(command: list[str]) -> int:
    """Run one command with every service that this machine can start."""
    env = dict(os.environ)
    with contextlib.ExitStack() as stack:
        for variable, service in (("DATABASE_URL", postgres), ("REDIS_URL", redis)):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            home.chmod(0o755)
            try:
                env[variable] = stack.enter_context(service(home))
            except Missing as reason:
                print(f"LEFT OUT {service.__name__}: {reason}", flush=True)
                if in_ci():
                    return 1
                env[variable] = ""
        if not env["DATABASE_URL"]:
            print("LEFT OUT the suite on PostgreSQL: see above", flush=True)
            return 0
        if not env["REDIS_URL"]:
            command = [*command, "-m", "not redis"]
        return subprocess.run(command, env=env).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["install", "exec"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args()
    if chosen.step == "install":
        return install()
    return run_with_services([part for part in chosen.command if part != "--"])


if __name__ == "__main__":
    sys.exit(main())
