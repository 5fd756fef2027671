"""Checks of the machine and of how Polar was set up on it."""

import ipaddress
import os
import resource
import shutil
import stat
import sys
from pathlib import Path

from django.conf import settings

from apps.audit.models import Event
from apps.common import clock
from apps.extensions import ports as extensions
from apps.reliability import ports
from apps.reliability.engine.doctor.check import (
    Found,
    check,
    fail,
    ok,
    unused,
    warn,
)

FREE_BYTES, FREE_SHARE = 1_073_741_824, 0.05
OPEN_FILES = 1024
#: How far the clocks of this machine and of the newest event may lie apart.
AHEAD_SECONDS = 60


@check(
    "host-python",
    "Python is one that Polar is tested on",
    mend="Install Python 3.11 or newer and run `make run` again.",
)
def python() -> Found:
    version = ".".join(map(str, sys.version_info[:3]))
    return ok(version) if sys.version_info >= (3, 11) else fail(version)


@check(
    "host-user",
    "Polar does not run as root",
    mend="Give Polar a user of its own: docs/how-to/deploy.md",
)
def user() -> Found:
    return warn("user id 0") if os.geteuid() == 0 else ok(f"user id {os.geteuid()}")


@check(
    "host-open-files",
    "There are enough open files for a worker",
    mend="Raise the limit: `ulimit -n 4096`, or LimitNOFILE= in the unit.",
)
def open_files() -> Found:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= OPEN_FILES
    return ok(str(soft)) if enough else warn(f"{soft}, {OPEN_FILES} are wanted")


def judge_space(path: Path) -> Found:
    """Say whether the disk of a folder, or of its nearest parent, has room."""
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    said = f"{usage.free // 1_048_576} MiB of {usage.total // 1_048_576} MiB free"
    if usage.free < FREE_BYTES / 4:
        return fail(said)
    short = usage.free < FREE_BYTES or usage.free / usage.total < FREE_SHARE
    return warn(said) if short else ok(said)


SPACE = "Free some space, or move the folder: .env.example names its variable."


@check("host-disk-store", "The disk of the store has room", mend=SPACE)
def disk_store() -> Found:
    name = str(settings.DATABASES["default"]["NAME"])
    if "sqlite" not in settings.DATABASES["default"]["ENGINE"] or ":" in name:
        return unused("the store is a server's")
    return judge_space(Path(name).parent)


@check("host-disk-witness", "The disk of the witness has room", mend=SPACE)
def disk_witness() -> Found:
    return judge_space(Path(settings.POLAR_WITNESS_DIR))


@check("host-disk-snapshots", "The disk of the snapshots has room", mend=SPACE)
def disk_snapshots() -> Found:
    return judge_space(Path(settings.POLAR_SNAPSHOT_DIR))


@check(
    "host-clock",
    "The clock does not lag behind what is on record",
    mend="Set the clock and keep it set: `timedatectl set-ntp true`.",
)
def time() -> Found:
    newest = Event.objects.order_by("-id").values_list("occurred_at", flat=True).first()
    if newest is None:
        return ok("nothing is on record yet")
    ahead = (newest - clock.now()).total_seconds()
    if ahead > AHEAD_SECONDS:
        return fail(f"the newest event is {ahead:.0f} s in the future")
    return ok(f"{clock.now():%F %T} UTC")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@check(
    "host-bind",
    "Nobody outside reaches the pages without TLS",
    mend="Set POLAR_BIND=127.0.0.1, or put a proxy with TLS before it and set"
    " POLAR_BEHIND_TLS=true.",
)
def bind() -> Found:
    where = f"{settings.POLAR_BIND}:{settings.POLAR_PORT}"
    if is_loopback(settings.POLAR_BIND) or settings.POLAR_BEHIND_TLS:
        return ok(where)
    return fail(f"{where} without TLS")


@check(
    "host-names",
    "Only the names of this install are answered",
    mend="List the host names in POLAR_HOSTS; `*` is none.",
)
def names() -> Found:
    hosts = list(settings.ALLOWED_HOSTS)
    return fail("any name") if "*" in hosts else ok(", ".join(hosts)[:200])


@check(
    "host-debug",
    "Errors show nothing of the inside",
    mend="Set DEBUG=false and restart.",
)
def debug() -> Found:
    return fail("DEBUG is on") if settings.DEBUG else ok("DEBUG is off")


@check(
    "host-static",
    "The pages' styles and scripts are in place",
    mend="Run: ./polar collectstatic --noinput",
)
def static() -> Found:
    root = Path(settings.STATIC_ROOT)
    there = (root / "staticfiles.json").is_file() or (root / "css").is_dir()
    return ok(str(root)) if there else fail(f"{root} is empty")


def judge_private(paths: list[Path]) -> Found:
    """Say which of these others on this machine may read or write."""
    open_ones = [
        f"{path} ({stat.S_IMODE(path.stat().st_mode):o})"
        for path in paths
        if path.exists() and path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP)
    ]
    if open_ones:
        return fail("others may open " + ", ".join(open_ones)[:300])
    there = sum(path.exists() for path in paths)
    return ok(f"{there} are private") if there else unused("none is there yet")


@check(
    "host-env-file",
    "Nobody else on this machine reads the secrets of .env",
    mend="Run: chmod 600 .env",
)
def env_file() -> Found:
    return judge_private([Path(settings.BASE_DIR) / ".env"])


@check(
    "host-folders",
    "Nobody else on this machine reads witness, snapshots, evidence or the sink",
    mend="Run: chmod -R o= on the folder that is named.",
)
def folders() -> Found:
    paths = [settings.POLAR_WITNESS_DIR, settings.POLAR_SNAPSHOT_DIR]
    paths.append(settings.POLAR_DRILLS_DIR / "evidence")
    if settings.POLAR_SINK_FILE:
        paths.append(Path(settings.POLAR_SINK_FILE))
    return judge_private([Path(path) for path in paths])


@check(
    "host-sandbox",
    "Code that is not ours can be shut in",
    mend="Install bubblewrap and allow user namespaces; until then extensions with"
    " code do not start.",
)
def sandbox() -> Found:
    found = extensions.isolation()
    return ok(found.detail) if found.is_available else warn(found.detail)


@check(
    "host-drill-stage",
    "Drills are rehearsed without a network",
    mend="Install bubblewrap; until then only Polar's own egress keeps a clone in.",
)
def drill_stage() -> Found:
    said = ports.stage().isolation()
    return ok(said) if "no network" in said else warn(said)
