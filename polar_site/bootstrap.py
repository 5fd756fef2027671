"""From a fresh clone to a running Polar, with the standard library only.

Hides: the virtual environment, the first `.env`, the process runner.
Invariants: a step that is done is not done again; a secret is written once (only
`keys.py` replaces one); no key is made while data that needs the old one exists.
"""

import sys
from pathlib import Path

# Run by its path, this folder stands first on the way of imports, and our `sqlite3`
# before Python's.
if Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parent:
    del sys.path[0]

import argparse
import base64
import configparser
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
ENV_FILE = ROOT / ".env"
STAMP = VENV / ".installed.json"
VAR = ROOT / "var"
LOGS = VAR / "log"
SUPERVISOR_LOG = LOGS / "supervisord.log"

#: Waits so many seconds; only `common.clock` may read the time.
pause = threading.Event().wait

#: What a file made here denies: everything to everybody but its owner.
PRIVATE = 0o077
#: How long the web process may take to answer first. Units: seconds.
READY_SECONDS = 120


def say(text: str) -> None:
    print(text, flush=True)


def stop_with(text: str) -> None:
    """End with a sentence that says what to do."""
    sys.exit(f"polar: {text}")


# --- The virtual environment ------------------------------------------------


def lock_digest(name: str) -> str:
    return hashlib.sha256(
        (ROOT / "requirements" / f"{name}.txt").read_bytes()
    ).hexdigest()


def installed() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def install(name: str) -> None:
    """Install one lock file into `.venv`, every file checked against its hash.

    Again: nothing happens while the lock is unchanged; a broken attempt is resumed.
    """
    done = installed()
    if done.get(name) == lock_digest(name) and (BIN / "python").exists():
        return
    make_venv()
    STAMP.unlink(missing_ok=True)
    say(f"Installing requirements/{name}.txt, a minute or two the first time ...")
    pip = [*pip_command(), "install", "--quiet", "--disable-pip-version-check"]
    pip.append("--no-compile")  # most of it is never imported; the rest compiles once
    pip += lock_arguments(ROOT / "requirements" / f"{name}.txt")
    for attempt in (1, 2, 3):
        if not subprocess.run(pip).returncode:
            break
        say(f"pip did not finish (attempt {attempt} of 3).")
        pause(attempt)
    else:
        stop_with("the requirements could not be installed; run the command again.")
    names = ["base", "dev"] if name == "dev" else [name]
    STAMP.write_text(json.dumps({each: lock_digest(each) for each in names}))
    say("Requirements are in place.")


def lock_arguments(lock: Path) -> list[str]:
    """Install what the lock names and nothing else.

    The lock is whole, so pip has nothing to resolve: where it does, it takes up a newer
    release that an extra admits, finds no hash for it and gives up.
    """
    return ["--require-hashes", "--no-deps", "-r", str(lock)]


def make_venv() -> None:
    """Create `.venv`; where the system has no ensurepip, without its own pip."""
    if (BIN / "python").exists():
        return
    say("Creating .venv ...")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        subprocess.run([*command, "--without-pip"], check=True)


def pip_command() -> list[str]:
    own = [str(BIN / "python"), "-m", "pip"]
    if not subprocess.run([*own, "--version"], capture_output=True).returncode:
        return own
    return [sys.executable, "-m", "pip", "--python", str(BIN / "python")]


# --- The first .env ---------------------------------------------------------


def random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


FIRST_LINES = """\
# Secrets of this install. Back up POLAR_VAULT_KEY outside this machine.
# Every other variable is explained in .env.example.
"""

#: variable -> (how it is made, whether existing data depends on it)
SECRETS: dict[str, tuple[Callable[[], str], bool]] = {
    "SECRET_KEY": (lambda: secrets.token_urlsafe(48), False),
    "POLAR_VAULT_KEY": (random_key, True),
    "POLAR_AUDIT_KEY": (random_key, True),
}


def read_env() -> dict[str, str]:
    """The variables of `.env`; quotes around a value are dropped."""
    if not ENV_FILE.exists():
        return {}
    pattern = re.compile(r"^\s*(?:export\s+)?([A-Z][A-Z0-9_]*)\s*=\s*(.*?)\s*$")
    found = (pattern.match(line) for line in ENV_FILE.read_text().splitlines())
    return {match[1]: match[2].strip("'\"") for match in found if match}


def data_exists() -> bool:
    """Whether the store holds tables; looking at it once leaves a file without any."""
    database = ROOT / "polar-system.db"
    if not database.exists():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        ) as store:
            return bool(store.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall())
    except sqlite3.Error:
        return database.stat().st_size > 0


def write_env() -> None:
    """Add what is missing to `.env`; create it, readable by its owner only.

    Raises: SystemExit when a key is missing that existing data was written with.
    """
    known = {**read_env(), **os.environ}
    if known.get("POLAR_VAULT_KEYS"):
        known["POLAR_VAULT_KEY"] = "in the ring"
    missing = [name for name in SECRETS if not known.get(name)]
    if not missing:
        return
    kept = [name for name in missing if SECRETS[name][1]]
    if kept and data_exists():
        stop_with(
            f"{' and '.join(kept)} missing, but a database exists that was written "
            "with it. Restore it in .env; a new key could read none of the old data."
        )
    made = {name: SECRETS[name][0]() for name in missing}
    replace_private(ENV_FILE, with_values(made))
    say(f"Wrote {', '.join(missing)} to .env (mode 0600).")


def with_values(made: dict[str, str]) -> str:
    """The text of `.env` with these variables; an assignment there is changed."""
    text = FIRST_LINES if not ENV_FILE.exists() else ENV_FILE.read_text()
    lines = text.splitlines()
    for name, value in made.items():
        there = [i for i, line in enumerate(lines) if line.split("=")[0] == name]
        at = there[-1] if there else len(lines)
        lines[at : at + 1] = [f"{name}={value}"]
    return "\n".join(lines) + "\n"


def replace_private(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(
        os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w"
    ) as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


# --- Running ----------------------------------------------------------------


def child_environment() -> dict[str, str]:
    """What every child gets: the caller's environment, the address, `.venv` first.

    Secrets stay in `.env`, which the settings read for themselves.
    """
    told = {k: v for k, v in read_env().items() if k in {"POLAR_BIND", "POLAR_PORT"}}
    env = {**told, **os.environ, "PYTHONUNBUFFERED": "1"}
    env["PATH"] = f"{BIN}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env


def programs() -> Iterator[tuple[str, str]]:
    """The processes that the Procfile names."""
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, colon, command = line.partition(":")
        if colon and not name.startswith("#"):
            yield name.strip(), command.strip()


def write_supervisor_config() -> Path:
    """Turn the Procfile into a supervisor file: restart with back-off, logs kept.

    All programs are one group, so that they stop together and not one by one.
    """
    config = configparser.RawConfigParser()
    config["supervisord"] = {
        "nodaemon": "true",
        "silent": "true",
        "logfile": "var/log/supervisord.log",
        "logfile_maxbytes": "2MB",
        "logfile_backups": "1",
        "loglevel": "warn",
        "pidfile": "var/supervisord.pid",
        "childlogdir": "var/log",
        "umask": f"{PRIVATE:03o}",
    }
    names = []
    for name, command in programs():
        names.append(name)
        shell = "exec " + command.replace("%", "%%")
        config[f"program:{name}"] = {
            "command": f"/bin/sh -c '{shell}'",
            "autorestart": "true",
            "startsecs": "3",
            "startretries": "100000",
            "stopsignal": "TERM",
            # The longest a child may take before it is killed. Units: seconds.
            "stopwaitsecs": "25",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": f"var/log/{name}.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    config["group:polar"] = {"programs": ",".join(names)}
    path = VAR / "supervisord.conf"
    with path.open("w") as file:
        config.write(file)
    return path


def manage(*arguments: str) -> str:
    """Run one management command; its output comes back, its failure ends us."""
    done = subprocess.run(
        [str(BIN / "python"), "manage.py", *arguments],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        say(done.stdout)
        stop_with(f"`manage.py {arguments[0]}` failed; nothing was started.")
    return done.stdout


def address() -> tuple[str, int]:
    env = child_environment()
    return env.get("POLAR_BIND") or "127.0.0.1", int(env.get("POLAR_PORT") or 8000)


def check_port_is_free() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address())
        except OSError as problem:
            stop_with(
                f"cannot listen on {address()[0]}:{address()[1]} ({problem.strerror}). "
                "Stop what is there or choose another port: POLAR_PORT=8001 make run"
            )


def is_up() -> bool:
    host, port = address()
    host = "127.0.0.1" if host in {"", "0.0.0.0"} else host  # noqa: S104 - only read
    try:
        with urllib.request.urlopen(  # noqa: S310 - a constant http address
            f"http://{host}:{port}/healthz", timeout=2
        ) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def prepare() -> str:
    """Bring the database and the static files up to date; return what seeding said."""
    say("Preparing the database ...")
    manage("migrate", "--verbosity", "0")
    said = manage("seed_demo")
    manage("collectstatic", "--noinput", "--verbosity", "0")
    return said.strip()


def announce(*, up: bool, said: str) -> None:
    host, port = address()
    say("")
    if up:
        say(f"Polar is ready:  http://{host}:{port}/")
    else:
        say(
            f"The web process does not answer yet; see {LOGS.relative_to(ROOT)}/web.log"
        )
    if said:
        say(said)
    say(f"Logs: {LOGS.relative_to(ROOT)}/   Stop: Ctrl-C")


def supervise(said: str) -> int:
    """Run the Procfile until a signal; say when it is up and what was restarted."""
    config = write_supervisor_config()
    SUPERVISOR_LOG.touch()
    start = SUPERVISOR_LOG.stat().st_size
    runner = subprocess.Popen(
        [str(BIN / "supervisord"), "-c", str(config)],
        cwd=ROOT,
        env=child_environment(),
        start_new_session=True,
    )

    def ask_to_stop(_signal: int, _frame: object) -> None:
        runner.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask_to_stop)
    for _ in range(3 * READY_SECONDS):
        if runner.poll() is not None or is_up():
            break
        pause(1 / 3)
    announce(up=runner.poll() is None and is_up(), said=said)
    return follow(runner, start)


def follow(runner: "subprocess.Popen[bytes]", position: int) -> int:
    """Pass on the runner's warnings until it ends."""
    with SUPERVISOR_LOG.open() as log:
        log.seek(position)
        while runner.poll() is None:
            for line in log:
                if " CRIT " not in line:
                    say(line.rstrip())
            pause(0.5)
    say("Stopped.")
    return 0


def keep_private() -> None:
    """Let no stranger on this machine read what is written from here on, nor the
    secrets, logs and copies of an older install."""
    os.umask(PRIVATE)
    for path in (ENV_FILE, VAR):
        if path.exists():
            path.chmod(path.stat().st_mode & ~stat.S_IRWXO)


def run() -> int:
    """`make run`: install, write `.env`, migrate, seed, start, and stay."""
    install("base")
    keep_private()
    write_env()
    check_port_is_free()
    LOGS.mkdir(parents=True, exist_ok=True)
    return supervise(prepare())


def clean() -> None:
    """Remove what can be made again; never `.env`, the database or the witness."""
    for name in (".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    shutil.rmtree(VAR / "static", ignore_errors=True)
    for cache in [
        *ROOT.glob("apps/**/__pycache__"),
        *ROOT.glob("tests/**/__pycache__"),
    ]:
        shutil.rmtree(cache, ignore_errors=True)


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file meets the system's Python
        stop_with(f"needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    parser = argparse.ArgumentParser(prog="bootstrap")
    steps: dict[str, Callable[[str], None]] = {
        "install": lambda what: install("dev" if what == "dev" else "base"),
        "env": lambda what: write_env(),
        "clean": lambda what: clean(),
    }
    parser.add_argument("step", choices=["run", *steps])
    parser.add_argument("what", nargs="?", default="", help="install dev")
    chosen = parser.parse_args()
    if chosen.step == "run":
        return run()
    steps[chosen.step](chosen.what)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
