"""Starts code that is not ours where it can reach almost nothing.

Hides: bubblewrap. Invariants: an empty environment but for what the caller names;
its own PID, IPC, UTS, cgroup and network namespaces, without any network but the
outlet to its granted domains; a read-only root with nothing of this machine but its
programs; a small private /tmp; no capability, no new privilege; each process limited
in processor time, memory, file size and open files, all of them together in number
and memory.
Where Polar runs as root the child gets a user id of its own; elsewhere a user
namespace. Where neither works nothing starts, unless an operator accepted it.
"""

import asyncio
import itertools
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from uuid import UUID, uuid4

from apps.extensions.adapters import outlet, processes
from apps.extensions.errors import ToolMisconfigured
from apps.extensions.ports import Grants, Isolation, Limits, Source

logger = logging.getLogger(__name__)

#: Where the package stands inside.
PACKAGE = "/package"
#: What every child sees of this machine, where it exists.
SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs")
BASE_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 (the child's own)
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
}
#: Never granted, whoever asks: they hold the host's own state.
REFUSED_FOLDERS = ("/", "/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/root")
TMP_BYTES = 67_108_864
FILE_BYTES = 67_108_864
OPEN_FILES = 256
PROBE_SECONDS = 10.0
#: Kept of what a child says on its error stream. Units: bytes.
STDERR_BYTES = 4096
#: How long the end of the error stream is waited for. Units: seconds.
LAST_WORDS_SECONDS = 0.2
#: Bytes of one line from a child that are read at once.
READ_BYTES = 65_536

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
#: Variables by which the loader or the C library runs other code.
_REFUSED_VARIABLE = re.compile(r"(LD_|GLIBC_|GCONV_|POLAR_)")
_UIDS = itertools.count(os.getpid() * 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be started, for whom, and what it may have."""

    extension_id: UUID
    command: tuple[str, ...]
    folder: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    grants: Grants = field(default_factory=Grants)
    limits: Limits = field(default_factory=Limits)
    #: Processor seconds of each process.
    cpu_seconds: int = 60
    accepts_degraded: bool = False
    #: The exact host:port pairs on private addresses that were written down.
    local: frozenset[str] = frozenset()
    #: Whether anything is asked of it just now; nothing leaves it otherwise.
    is_asked: Callable[[], bool] = lambda: True
    call_id: UUID | None = None
    child_id: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, source: Source, command: tuple[str, ...], **more: object) -> "Job":
        """Take what a source says about itself."""
        return cls(
            extension_id=source.extension_id,
            command=command,
            folder=source.folder,
            grants=source.grants,
            limits=source.limits,
            accepts_degraded=source.accepts_degraded,
            local=source.local,
            **more,  # type: ignore[arg-type]
        )


@lru_cache(maxsize=1)
def isolation() -> Isolation:
    """Say whether this host can isolate, by doing it once with a real child."""
    for tool in ("bwrap", "prlimit", "setpriv"):
        if shutil.which(tool) is None:
            return Isolation(is_available=False, detail=f"{tool} is not installed")
    job = Job(extension_id=UUID(int=0), command=("/bin/sh", "-c", "test ! -e /root"))
    try:
        tried = subprocess.run(  # noqa: S603 (our own words)
            [*_isolated(job, []), *job.command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            env=BASE_ENV,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Isolation(is_available=False, detail=f"bubblewrap: {error}")
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip()[-300:]
        return Isolation(is_available=False, detail=f"bubblewrap: {said}")
    return Isolation(is_available=True, detail="bubblewrap")


class Child:
    """One started program, with everything it starts in turn."""

    def __init__(self, process: asyncio.subprocess.Process, wires: "_Wires") -> None:
        self.process = process
        self._gate = wires.take_gate()
        self._outlet = wires.take_outlet()
        job = self.job = wires.job
        self.stderr = bytearray()
        #: Why we ended it, when we did.
        self.ended_for = ""
        self._tasks = [asyncio.create_task(self._hear_stderr())]
        processes.watch(process.pid, job.limits.memory_bytes, self._too_much_memory)

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def complaint(self) -> str:
        """The last that it said on its error stream."""
        said = bytes(self.stderr).decode(errors="replace").strip()[-1000:]
        refused = self._outlet.complaint if self._outlet else ""
        return f"{said} {refused}".strip()

    def release(self) -> None:
        """Let it take its first step. Again: does nothing."""
        gate, self._gate = self._gate, -1
        if gate >= 0:
            with suppress(BrokenPipeError):
                os.write(gate, b"1")
            os.close(gate)

    async def end(self, why: str = "") -> None:
        """Kill it and all that it started; wait until they are seen gone."""
        self.ended_for = self.ended_for or why
        if self._outlet is not None:
            self._outlet.close()
        processes.forget(self.process.pid)
        # What ends by itself has taken everything inside along.
        if self.is_alive or (self.process.returncode or 0) < 0:
            await asyncio.to_thread(
                processes.end_child, self.job.child_id, self.process.pid
            )
        await asyncio.wait(self._tasks[:1], timeout=LAST_WORDS_SECONDS)
        # A pipe that nobody reads any more would hold the rest open.
        self.process._transport.close()  # type: ignore[attr-defined]
        await self.process.wait()
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
        self._tasks[0].cancel()

    def _too_much_memory(self) -> None:
        self.ended_for = "it used more memory than its limit"
        task = asyncio.create_task(self.end())
        self._tasks.append(task)

    async def _hear_stderr(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        while chunk := await stream.read(READ_BYTES):
            self.stderr += chunk
            del self.stderr[:-STDERR_BYTES]


async def start(job: Job) -> Child:
    """Start a program. Where isolated it is held before its first step until
    `release`, so that it can be seen, and ended, before anything is decided.

    Raises: ToolMisconfigured when it may not or cannot be started.
    """
    check(job)
    way_out = None
    if _reaches_out(job):
        way_out = outlet.Outlet(job.grants.domains, job.local, job.is_asked)
        await way_out.open()
    with _Wires(job, way_out) as wires:
        try:
            process = await asyncio.create_subprocess_exec(
                *wires.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=wires.env,
                pass_fds=wires.passed,
                start_new_session=True,
                cwd=wires.cwd,
                limit=READ_BYTES,
            )
        except OSError as error:
            raise ToolMisconfigured(f"It cannot be started: {error}") from error
        return Child(process, wires)


class _Wires:
    """The vector of one start, and the descriptors that go with it: one from which
    bubblewrap reads what nobody may see in the process list, and the gate."""

    def __init__(self, job: Job, way_out: outlet.Outlet | None) -> None:
        self.job, self._outlet = job, way_out
        mounts = list(way_out.mounts()) if way_out else []
        relay = way_out.wrapped() if way_out else []
        command = [_inside(job, word) for word in job.command]
        self.argv = [*_confined(job, mounts), *relay, *command]
        self.env, self.cwd = BASE_ENV, None
        self.passed: tuple[int, ...] = ()
        self._gate = -1
        if not isolation().is_available:
            self.env = _marked(job) | environment(job)
            self.cwd = job.folder
            return
        hidden = os.memfd_create("arguments")
        os.write(hidden, b"".join(each + b"\0" for each in _hidden(job)))
        os.lseek(hidden, 0, os.SEEK_SET)
        inner, self._gate = os.pipe()
        self.passed = (hidden, inner)
        place = self.argv.index("--clearenv") + 1
        self.argv[place:place] = [
            *("--args", str(hidden)),
            *("--block-fd", str(inner)),
        ]

    def take_gate(self) -> int:
        gate, self._gate = self._gate, -1
        return gate

    def take_outlet(self) -> outlet.Outlet | None:
        taken, self._outlet = self._outlet, None
        return taken

    def __enter__(self) -> "_Wires":
        return self

    def __exit__(self, *_: object) -> None:
        if self._outlet is not None:
            self._outlet.close()
        for each in (*self.passed, self._gate):
            if each >= 0:
                os.close(each)


def check(job: Job) -> None:
    """Refuse what cannot be confined. Raises: ToolMisconfigured."""
    if not job.command:
        raise ToolMisconfigured("It has no command.")
    if not isolation().is_available and not job.accepts_degraded:
        raise ToolMisconfigured(
            f"Nothing is started without isolation ({isolation().detail}); an "
            "operator may accept `degraded` for this extension.",
            reason_code="isolation_unavailable",
        )
    if job.grants.domains and not isolation().is_available:
        raise ToolMisconfigured(
            "Without isolation a process reaches every host, so its granted domains "
            "cannot be held; serve it over HTTP instead.",
            reason_code="network_not_enforceable",
        )
    for name, value in job.env.items():
        if not _VARIABLE.fullmatch(name) or _REFUSED_VARIABLE.match(name):
            raise ToolMisconfigured(f"The variable {name[:80]!r} is never passed on.")
        if "\0" in value:
            raise ToolMisconfigured(f"The variable {name} holds a NUL byte.")
    for _ in _bound(job):
        pass


def environment(job: Job) -> dict[str, str]:
    """Everything that the child finds in its environment."""
    proxies = outlet.ENV if _reaches_out(job) else {}
    return {**BASE_ENV, **proxies, **job.env}


def _reaches_out(job: Job) -> bool:
    return bool(job.grants.domains or job.local) and isolation().is_available


def _marked(job: Job) -> dict[str, str]:
    """By which a process of an extension is recognised, whoever started it."""
    call = {processes.CALL_MARK: str(job.call_id)} if job.call_id else {}
    return {
        processes.EXTENSION_MARK: str(job.extension_id),
        processes.CHILD_MARK: job.child_id,
        **call,
    }


def _hidden(job: Job) -> Iterator[bytes]:
    """Arguments that nobody may read in the process list."""
    for name, value in environment(job).items():
        yield from (b"--setenv", name.encode(), _inside(job, value).encode())


def _inside(job: Job, word: str) -> str:
    """Name the package as the child finds it."""
    if job.folder is None or not isolation().is_available:
        return word
    return word.replace(str(job.folder), PACKAGE)


def _confined(job: Job, mounts: list[str]) -> list[str]:
    if isolation().is_available:
        return _isolated(job, mounts)
    logger.warning("started without isolation", extra={"event": "sandbox.degraded"})
    return [*_limited(job), *(_as_nobody(_next_uid()) if _is_root() else [])]


def _isolated(job: Job, mounts: list[str]) -> list[str]:
    """The whole vector before the command: nice, bwrap, limits, identity."""
    uid = _next_uid()
    return [
        "nice",
        "-n10",
        "bwrap",
        *("--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts"),
        *("--unshare-cgroup-try", "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *_privilege(),
        *_root(),
        *(word for each in _bound(job) for word in _mounted(*each)),
        *mounts,
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", PACKAGE if job.folder else "/tmp"),  # noqa: S108
        "--clearenv",
        *(f for item in _marked(job).items() for f in ("--setenv", *item)),
        "--",
        *_limited(job),
        *(_as_nobody(uid) if _is_root() else []),
    ]


def _privilege() -> tuple[str, ...]:
    """Root hands over to a plain user inside; others need a user namespace."""
    if _is_root():
        needed = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
        return tuple(word for each in needed for word in ("--cap-add", each))
    return ("--unshare-user", "--disable-userns")


def _root() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr", "--dir", "/etc", "--dir", "/etc/ssl")
    for folder in SYSTEM_FOLDERS:
        if os.path.islink(folder):
            yield from ("--symlink", os.readlink(folder), folder)
        elif os.path.isdir(folder):
            yield from ("--ro-bind", folder, folder)
    for file in SYSTEM_FILES:
        yield from ("--ro-bind-try", file, file)
    yield from ("--proc", "/proc", "--dev", "/dev")
    yield from ("--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp")  # noqa: S108
    yield from ("--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/dev/shm")  # noqa: S108


def _bound(job: Job) -> Iterator[tuple[str, str, str]]:
    """What is granted, at its own place; the package at /package."""
    if job.folder:
        yield "--ro-bind", _folder(str(job.folder), is_ours=True), PACKAGE
    for path in job.grants.read_paths:
        yield "--ro-bind", _folder(path), path
    for path in job.grants.write_paths:
        yield "--bind", _folder(path), path


def _mounted(how: str, real: str, path: str) -> Iterator[str]:
    """Mount one folder; those above it exist, empty, and may be walked through."""
    for above in reversed(Path(path).parents[:-1]):
        yield from ("--dir", str(above))
    yield from (how, real, path)


def _folder(path: str, *, is_ours: bool = False) -> str:
    """Raises: ToolMisconfigured for what is not there, or never granted."""
    clean = os.path.normpath(path)
    real = os.path.realpath(path)
    refused = {clean, real} & set(REFUSED_FOLDERS)
    if not os.path.isabs(path) or clean != path.rstrip("/") or refused:
        raise ToolMisconfigured(f"The folder {path[:200]!r} is never granted.")
    hidden = ("/proc", "/sys", "/dev", "/run", "/var/run")
    if not is_ours and any(real.startswith(f"{each}/") for each in hidden):
        raise ToolMisconfigured(f"The folder {path[:200]!r} is never granted.")
    if not os.path.exists(real):
        raise ToolMisconfigured(f"The folder {path[:200]!r} is not there.")
    return real


def _limited(job: Job) -> list[str]:
    """Limits of each process. Node reserves far more than it uses, so memory is
    bounded by what may be written (RLIMIT_DATA), not by addresses."""
    limits = job.limits
    return [
        "prlimit",
        f"--cpu={job.cpu_seconds}",
        f"--data={limits.memory_bytes}",
        f"--nproc={limits.processes}",
        f"--nofile={OPEN_FILES}",
        f"--fsize={FILE_BYTES}",
        "--core=0",
        "--",
    ]


def _as_nobody(uid: int) -> list[str]:
    return [
        "setpriv",
        *("--reuid", str(uid), "--regid", str(uid), "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"),
    ]


def _next_uid() -> int:
    """A user id of its own, so that one child's processes are not counted, seen
    or killed as another's."""
    return 61_000 + next(_UIDS) % 4_000


def _is_root() -> bool:
    return os.geteuid() == 0
