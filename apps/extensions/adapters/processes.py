"""Finds, watches and ends the processes of extensions on this host.

A process is recognised by a mark that we put on its command line or into its
environment, so whichever process of ours started it, any other can end it.
Killing the first process of a PID namespace kills all that are in it, also what
called setsid; the kernel lets it be gone only when they are.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from apps.common import clock
from apps.extensions.ports import Termination

EXTENSION_MARK = "POLAR_EXTENSION"
CALL_MARK = "POLAR_CALL"
CHILD_MARK = "POLAR_CHILD"
#: How soon everything must be gone. Units: seconds.
END_SECONDS = 2.0
LOOK_SECONDS = 0.02
#: How often memory is added up. Units: seconds.
WATCH_SECONDS = 0.5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Seen:
    """One process as the kernel shows it. `born` tells a reused id apart."""

    pid: int
    parent: int
    state: str
    born: int
    memory: int

    @property
    def is_gone(self) -> bool:
        now = look_at(self.pid)
        return now is None or now.born != self.born or now.state in "ZX"


def look_at(pid: int) -> Seen | None:
    """Read one process; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Seen(
        pid=pid,
        parent=int(words[1]),
        state=words[0].decode(),
        born=int(words[19]),
        memory=int(words[21]) * PAGE_BYTES,
    )


def everything() -> list[Seen]:
    """Read every process of this host."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [seen for pid in pids if (seen := look_at(pid)) is not None]


def _with_children(found: list[Seen], seen: list[Seen]) -> list[Seen]:
    """Add all that these processes started."""
    pids = {each.pid for each in found}
    for parent in found:
        added = [e for e in seen if e.parent == parent.pid and e.pid not in pids]
        pids |= {each.pid for each in added}
        found.extend(added)
    return found


def end_child(child_id: str, pid: int) -> bool:
    """Kill one child and all that it started. Returns whether they are gone.

    Its mark cannot be read yet while the kernel still loads its program; it is known
    by its number too, as long as this process is its parent.
    """
    return _end(CHILD_MARK, child_id, pid)[1]


def end_extension(extension_id: UUID) -> list[Termination]:
    """End every process of an extension on this host, and say how that went."""
    started = clock.monotonic()
    tops, is_gone = _end(EXTENSION_MARK, str(extension_id))
    return [
        Termination(
            what=f"process {top.pid}",
            is_confirmed=is_gone or top.is_gone,
            detail="seen gone" if is_gone else "something of it was still there",
            call_id=call_id,
            seconds=round(clock.monotonic() - started, 3),
        )
        for top, call_id in tops
    ]


def _end(
    mark: str, value: str, own: int = 0
) -> tuple[list[tuple[Seen, UUID | None]], bool]:
    """Kill whatever carries a mark, looking again until nothing does: what was
    being started meanwhile is found by the next look.

    The inner ones first, so that the outermost sees them go and nobody has to
    collect the dead.
    """
    began = clock.monotonic()
    tops: dict[int, tuple[Seen, UUID | None]] = {}
    while True:
        seen = everything()
        marked = [
            each
            for each in seen
            if _mark(each.pid, mark) == value
            or (each.pid == own and each.parent == os.getpid())
        ]
        tree = _with_children(marked, seen)
        alive = [each for each in tree if each.state not in "ZX"]
        if not alive or clock.monotonic() > began + END_SECONDS:
            return list(tops.values()), not alive
        pids = {each.pid for each in tree}
        outer = [each for each in alive if each.parent not in pids]
        for each in outer:
            tops.setdefault(each.pid, (each, _call(each.pid)))
        inner = [each for each in alive if each.parent in pids]
        is_late = clock.monotonic() > began + END_SECONDS / 4
        for each in inner + (outer if is_late or not inner else []):
            _kill(each)
        clock.sleep(LOOK_SECONDS)


def _kill(each: Seen) -> None:
    if not each.is_gone:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each.pid, signal.SIGKILL)


def _call(pid: int) -> UUID | None:
    found = _mark(pid, CALL_MARK)
    with suppress(ValueError):
        return UUID(found)
    return None


def _mark(pid: int, name: str) -> str:
    """Read a mark from a command line ("NAME", "value") or an environment."""
    words = list(_words(pid, "cmdline"))
    if "bwrap" in words[:1] and name in words:
        return words[words.index(name) + 1]
    prefix = f"{name}="
    return next(
        (
            word[len(prefix) :]
            for word in _words(pid, "environ")
            if word.startswith(prefix)
        ),
        "",
    )


def _words(pid: int, file: str) -> Iterator[str]:
    with suppress(OSError), open(f"/proc/{pid}/{file}", "rb") as opened:
        yield from opened.read(262_144).decode(errors="replace").split("\0")


# --- memory, added up over everything that one child has started

_watched: dict[int, tuple[int, Callable[[], None]]] = {}
_watching: asyncio.Task[None] | None = None


def watch(pid: int, most_bytes: int, too_much: Callable[[], None]) -> None:
    """Call `too_much` once when a child with all its own uses more than this."""
    global _watching
    _watched[pid] = (most_bytes, too_much)
    here = asyncio.get_running_loop()
    if _watching is None or _watching.done() or _watching.get_loop() is not here:
        _watching = asyncio.create_task(_add_up())


def forget(pid: int) -> None:
    _watched.pop(pid, None)


async def _add_up() -> None:
    while _watched:
        seen = await asyncio.to_thread(everything)
        for pid, (most_bytes, too_much) in list(_watched.items()):
            if _memory(pid, seen) > most_bytes:
                forget(pid)
                too_much()
        await asyncio.sleep(WATCH_SECONDS)


def _memory(pid: int, seen: list[Seen]) -> int:
    tree = _with_children([each for each in seen if each.pid == pid], seen)
    return sum(each.memory for each in tree)
