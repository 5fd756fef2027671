"""Runs a script of a package in the sandbox, once.

It finds the texts of `args` on its command line, as its author meant them, and on
its input `stdin` as it is, or else all arguments as JSON. It answers with one JSON
value, or with text.
The script is started, held and seen before the permit is spent, so a stop that
comes after the spend finds a process to kill.
"""

import asyncio
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from apps.common import canonical, failpoints
from apps.common.errors import Invalid
from apps.extensions.adapters import leasing, narrowing, processes, sandbox
from apps.extensions.adapters.portal import portal
from apps.extensions.errors import ToolMisconfigured, ToolTransientError
from apps.extensions.ports import (
    Definition,
    Grants,
    Source,
    Target,
    Termination,
    ToolContext,
)
from apps.gateway.errors import OutcomeUnknown, OutputBroken, PermitRefused
from apps.gateway.ports import (
    Json,
    Permit,
    Result,
    check_outside_transaction,
    release_connection,
)

#: Tells a script that nothing is to be done, and that nothing can be.
DRY_RUN = "DRY_RUN"
#: A question waits for what a dry run says. Units: seconds.
LONGEST_REHEARSAL = 10.0
#: What runs a script that names no command of its own.
INTERPRETERS = {".py": "python3", ".js": "node", ".mjs": "node", ".sh": "sh"}


class ScriptRuntime:
    """The runtime of scripts in skill and plugin packages."""

    def describe(self, source: Source) -> Definition:
        """A script serves nothing: its bytes are the package's."""
        sandbox.check(_job(source, ("true",), {}))
        return Definition()

    def execute(
        self, target: Target, arguments: Json, permit: Permit, context: ToolContext
    ) -> Result:
        """Run a script once. Raises: see `ports.Runtime`; OutputBroken when it
        does not answer with JSON or text within its limit."""
        if not isinstance(permit, Permit):
            raise PermitRefused("A script runs only with a permit.")
        source = narrowing.narrowed(target)
        command = _command(source, target.name, arguments)
        seconds = source.limits.call_seconds
        with ExitStack() as held:
            secrets = leasing.open_all(held, source, target.capability, context)
            job = _job(source, command, secrets, permit.call_id)
            child = portal.run(
                sandbox.start(job), seconds=source.limits.connect_seconds
            )
            try:
                permit.spend(arguments)
                failpoints.reach("tool.in_flight")
                answer = portal.run(_ask(child, arguments, seconds), seconds=seconds)
            finally:
                portal.run(child.end(), seconds=processes.END_SECONDS)
        return Result(_read(answer, child, target))

    def rehearse(self, target: Target, arguments: Json) -> object:
        """Run a script once where it can do nothing: no network, no secret, its
        folders to read only.

        DRY_RUN=1 tells it so. Where isolation is not available nothing is run,
        whatever was accepted for real calls.
        """
        check_outside_transaction()
        release_connection()
        source = _harmless(narrowing.narrowed(target))
        seconds = source.limits.call_seconds
        child = portal.run(
            sandbox.start(_job(source, _command(source, target.name, arguments), {})),
            seconds=source.limits.connect_seconds,
        )
        try:
            answer = portal.run(_ask(child, arguments, seconds), seconds=seconds)
        finally:
            portal.run(child.end(), seconds=processes.END_SECONDS)
        return _read(answer, child, target)

    def stop(self, extension_id: UUID) -> list[Termination]:
        return processes.end_extension(extension_id)


def _harmless(source: Source) -> Source:
    """Leave a source what it may look at, and nothing that changes anything."""
    grants = source.grants
    looks = Grants(read_paths=(*grants.read_paths, *grants.write_paths))
    limits = source.limits
    return replace(
        source,
        grants=looks,
        local=frozenset(),
        bearer=None,
        accepts_degraded=False,
        env={**source.env, DRY_RUN: "1"},
        limits=replace(
            limits, call_seconds=min(limits.call_seconds, LONGEST_REHEARSAL)
        ),
    )


def _job(
    source: Source,
    command: tuple[str, ...],
    secrets: dict[str, str],
    call_id: UUID | None = None,
) -> sandbox.Job:
    return sandbox.Job.of(
        source,
        command,
        env={**source.env, **secrets},
        cpu_seconds=int(source.limits.call_seconds) + 1,
        call_id=call_id,
    )


def _command(source: Source, name: str, arguments: Json) -> tuple[str, ...]:
    """Return the vector for one script, which must lie in the package. No shell
    reads it."""
    if source.folder is None:
        raise ToolMisconfigured(f"{source.ext_id} has no package.")
    root = Path(os.path.realpath(source.folder))
    real = Path(os.path.realpath(root / name))
    if not name or real == root or root not in real.parents or not real.is_file():
        raise ToolMisconfigured(f"The package holds no script {name[:200]!r}.")
    inside = real.relative_to(root)
    isolated = sandbox.isolation().is_available
    path = str(Path(sandbox.PACKAGE, inside)) if isolated else str(real)
    said = arguments.get("args")
    words = tuple(map(str, said)) if isinstance(said, list) else ()
    if source.command:
        return (*source.command, path, *words)
    interpreter = INTERPRETERS.get(real.suffix)
    return (interpreter, path, *words) if interpreter else (path, *words)


class _Answer:
    """What a script has said until it ended or was cut off."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.is_cut = False
        self.is_late = False


async def _ask(child: sandbox.Child, arguments: Json, seconds: float) -> _Answer:
    """Hand over the arguments, and read until the limit, the end or the time."""
    answer = _Answer()
    child.release()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(_write(child, arguments), _hear(child, answer))
            await child.process.wait()
    except TimeoutError:
        answer.is_late = True
    await child.end()
    return answer


async def _write(child: sandbox.Child, arguments: Json) -> None:
    stdin = child.process.stdin
    assert stdin is not None
    try:
        given = arguments.get("stdin")
        said = given if isinstance(given, str) else canonical.arguments(arguments)
        stdin.write(said.encode() + b"\n")
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()
    except (BrokenPipeError, ConnectionResetError):
        return  # it does not read what it is given; its answer counts


async def _hear(child: sandbox.Child, answer: _Answer) -> None:
    stdout = child.process.stdout
    assert stdout is not None
    while chunk := await stdout.read(sandbox.READ_BYTES):
        answer.output += chunk
        if len(answer.output) > child.job.limits.output_bytes:
            answer.is_cut = True
            await child.end("it said more than its limit")
            return


def _read(answer: _Answer, child: sandbox.Child, target: Target) -> object:
    limits, name = child.job.limits, target.capability
    if answer.is_cut:
        raise OutputBroken(
            f"{name} said more than {limits.output_bytes} bytes and was ended.",
            permanent=True,
        )
    if answer.is_late:
        raise _unfinished(target, f"did not end in {limits.call_seconds:g} s")
    if child.ended_for:
        raise _unfinished(target, f"was ended: {child.ended_for}")
    code = child.process.returncode
    if code is None or code < 0 or code >= 128:
        raise _unfinished(target, f"was killed ({code})")
    if code:
        raise ToolTransientError(
            f"{name} failed with exit code {code}: {child.complaint()}", permanent=True
        )
    try:
        said = bytes(answer.output).decode()
    except ValueError as error:
        raise OutputBroken(
            f"{name} answered with what is no text.", permanent=True
        ) from error
    try:
        return canonical.loads(said)
    except Invalid as error:
        is_endless = isinstance(error.__cause__, RecursionError)
        if is_endless or not canonical.is_storable(said):
            raise OutputBroken(
                f"{name} did not answer with one JSON value, nor with plain text.",
                permanent=True,
            ) from error
    return {"text": said}


def _unfinished(target: Target, what: str) -> ToolTransientError | OutcomeUnknown:
    """What nobody may repeat unseen may have happened; the rest has failed."""
    detail = f"{target.capability} {what}."
    if target.is_careful:
        return OutcomeUnknown(detail, permanent=True)
    return ToolTransientError(detail, permanent=True)
