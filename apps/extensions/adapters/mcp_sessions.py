"""One MCP session: opened once, asked often, closed when idle, stopped or dead.

Everything here runs on the portal's loop. A session knows which calls are in
flight on it, so that stopping it can say what nobody can confirm.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

import mcp_types as types
from mcp import Client, MCPError

from apps.common import canonical, clock
from apps.common.errors import PolarError
from apps.extensions.adapters import mcp_wires, sandbox
from apps.extensions.errors import (
    ToolMisconfigured,
    ToolTransientError,
    ToolUnavailable,
    ToolValidationError,
)
from apps.extensions.ports import Definition, Offer, Source, Target, Transport
from apps.gateway.errors import OutcomeUnknown, OutputBroken
from apps.gateway.ports import Json

T = TypeVar("T")

CLIENT = types.Implementation(name="polar", version="1")
#: Grace for a server that let a call time out. Units: seconds.
GRACE_SECONDS = 2.0
#: More pages or tools than this are an attack.
MOST_PAGES = 50
MOST_TOOLS = 500
#: Not a schema: an extension that serves it is refused, or quarantined.
TOO_DEEP: Json = {"type": f"nested deeper than {canonical.MOST_LEVELS} levels"}
#: A server's processor time, over its whole life. Units: seconds.
CPU_SECONDS = 3600


class Session:
    """A connected server. `env` holds leased secrets; `held` keeps them leased."""

    def __init__(self, source: Source, env: dict[str, str], held: ExitStack) -> None:
        self.source = source
        self.wire = mcp_wires.Wire(source)
        #: Call → turn, of what is being waited for.
        self.in_flight: dict[UUID, UUID | None] = {}
        #: How many questions of ours it has not answered yet.
        self._asking = 0
        self.is_stopped = False
        self._env, self._held = env, held
        self._client: Client | None = None
        self._closing = asyncio.Event()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._used = clock.monotonic()
        #: The tools that answer only by a task.
        self._by_task: frozenset[str] = frozenset()
        #: Whether its process ended though nobody closed it.
        self.has_died = False

    @property
    def is_open(self) -> bool:
        running = self._task is not None and not self._task.done()
        return running and not self._closing.is_set()

    async def open(self) -> None:
        """Connect and shake hands. Raises: ToolMisconfigured, ToolTransientError."""
        self._task = asyncio.create_task(self._serve())
        seconds = self.source.limits.connect_seconds
        await self._first(self._ready.wait(), seconds)
        if self._task.done():
            raise self._reason("did not start")
        if not self._ready.is_set():
            await self.close()
            raise ToolTransientError(
                f"{self.source.ext_id} did not greet us in {seconds:g} s."
            )

    async def close(self) -> None:
        """End it, its process included. Again: does nothing."""
        self._closing.set()
        if self._task is None or self._task.done():
            return
        if self._ready.is_set():
            await asyncio.wait({self._task}, timeout=GRACE_SECONDS)
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=GRACE_SECONDS)

    async def describe(self, headers: dict[str, str]) -> Definition:
        """Ask what is served now. Raises: as `open`."""
        self.wire.begin(headers)
        seconds = self.source.limits.connect_seconds
        found = await self._first(self._describe(), seconds)
        if isinstance(found, Definition):
            return found
        await self.close()
        if isinstance(found, PolarError):
            raise found
        raise self._reason(f"did not say what it serves in {seconds:g} s")

    async def call(
        self,
        target: Target,
        arguments: Json,
        headers: dict[str, str],
        ids: tuple[UUID, UUID | None],
    ) -> Any:
        """Ask one tool once. Raises: see `ports.Runtime.execute`."""
        assert self._client is not None
        self.wire.begin(headers)
        self.in_flight[ids[0]] = ids[1]
        try:
            self._check_answers_here(target)
            asking = self._client.session.call_tool(target.name, arguments)
            answer = await self._first(asking, self.source.limits.call_seconds)
        finally:
            self.in_flight.pop(ids[0], None)
            self._used = clock.monotonic()
            if not self.in_flight and not self._asking:
                self.wire.headers = {}
        if isinstance(answer, types.CallToolResult):
            return _output(target, answer)
        raise await self._unanswered(target, answer)

    # --- inside

    def _check_answers_here(self, target: Target) -> None:
        if target.name in self._by_task:
            raise ToolMisconfigured(
                f"{target.capability} answers only by a task, an experiment of the "
                "protocol of 2025-11-25 that Polar does not take part in."
            )

    async def _first(self, work: Coroutine[Any, Any, T], seconds: float) -> object:
        """Wait for work, for the end of the session or for the time, whichever is
        first. Returns the work's result, its exception, or None."""
        task = asyncio.create_task(work)
        assert self._task is not None
        self._asking += 1
        try:
            await asyncio.wait(
                {task, self._task}, timeout=seconds, return_when="FIRST_COMPLETED"
            )
        finally:
            self._asking -= 1
        if not task.done() and self._task.done():
            await asyncio.wait({task}, timeout=0.1)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE_SECONDS)
            return None
        return None if task.cancelled() else (task.exception() or task.result())

    async def _serve(self) -> None:
        """Hold the session open until it is closed, dies or nobody uses it."""
        with self._held:
            async with Client(
                self._transport(), client_info=CLIENT, cache=None, mode="auto"
            ) as client:
                self._client = client
                self._ready.set()
                while not self._closing.is_set():
                    await self._wait_while_used()

    def _ended(self) -> None:
        self.has_died = self.has_died or not self._closing.is_set()
        self._closing.set()

    async def _wait_while_used(self) -> None:
        limit = self.source.limits.idle_seconds
        try:
            async with asyncio.timeout(limit):
                await self._closing.wait()
        except TimeoutError:
            if not self.in_flight and clock.monotonic() - self._used >= limit:
                self._closing.set()

    @asynccontextmanager
    async def _transport(self) -> AsyncGenerator[mcp_wires.Streams, None]:
        if self.source.transport == Transport.HTTP:
            async with mcp_wires.http(self.wire) as streams:
                yield streams
            return
        job = sandbox.Job.of(
            self.source,
            self.source.command,
            env={**self.source.env, **self._env},
            cpu_seconds=CPU_SECONDS,
            is_asked=lambda: self._asking > 0,
        )
        async with mcp_wires.stdio(self.wire, job, self._ended) as streams:
            yield streams

    async def _describe(self) -> Definition:
        client = self._client
        assert client is not None
        info = client.server_info
        server = {
            "name": info.name if info else "",
            "version": info.version if info else "",
            "instructions": client.session.instructions or "",
            "protocol": client.protocol_version,
        }
        if client.server_capabilities.tools is None:
            return Definition(server=server)
        return Definition(server=server, offers=tuple(await self._offers(client)))

    async def _offers(self, client: Client) -> list[Offer]:
        offers: list[Offer] = []
        by_task: set[str] = set()
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            offers += [_offer(tool) for tool in page.tools]
            by_task |= {tool.name for tool in page.tools if _needs_task(tool)}
            cursor = page.next_cursor
            if not cursor:
                break
        names = [offer.name for offer in offers]
        if cursor or len(names) > MOST_TOOLS or len(set(names)) != len(names):
            raise ToolMisconfigured(
                f"{self.source.ext_id} serves too many tools, or two of one name."
            )
        self._by_task = frozenset(by_task)
        return offers

    async def _unanswered(self, target: Target, error: object) -> PolarError:
        """Say why there is no answer, and end what can no longer be trusted."""
        name = target.capability
        if isinstance(error, MCPError) and error.code in _CODES:
            kind = _CODES[error.code]
            return kind(f"{name}: {error.message[:1000]}")
        if self.wire.fault is not None:
            fault, self.wire.fault = self.wire.fault, None
            await self.close()
            return fault
        if isinstance(error, MCPError) and error.code not in _LOST:
            return ToolTransientError(f"{name}: {error.message[:1000]}", permanent=True)
        if isinstance(error, ValueError | RuntimeError):
            return OutputBroken(
                f"{name} answered against the protocol: {str(error)[:500]}",
                permanent=True,
            )
        await self._close_if_deaf()
        why = "was stopped" if self.is_stopped else self._last_words()
        if target.is_careful:
            return OutcomeUnknown(f"{name} {why}.", permanent=True)
        return ToolTransientError(f"{name} {why}.", permanent=self.is_stopped)

    async def _close_if_deaf(self) -> None:
        """After a call that timed out a server is asked once more; one that does
        not answer that either is ended."""
        if self.is_open:
            still = await self._first(self._describe(), GRACE_SECONDS)
            if isinstance(still, Definition):
                return
        await self.close()

    def _last_words(self) -> str:
        child = self.wire.child
        if child is not None and not child.is_alive:
            why = child.ended_for or f"exit code {child.process.returncode}"
            return f"died ({why}) {child.complaint()}".strip()
        return f"did not answer in {self.source.limits.call_seconds:g} s"

    def _reason(self, otherwise: str) -> PolarError:
        """Say why the session ended, from the innermost cause."""
        error = self._task.exception() if self._task and self._task.done() else None
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self.wire.fault is not None:
            return self.wire.fault
        if isinstance(error, PolarError):
            return error
        child = self.wire.child
        said = child.complaint() if child else ""
        why = f"{otherwise}: {str(error or '')[:300]} {said}".strip()
        return ToolTransientError(f"{self.source.ext_id} {why}")


_CODES: dict[int, type[PolarError]] = {
    types.INVALID_PARAMS: ToolValidationError,
    types.METHOD_NOT_FOUND: ToolUnavailable,
}
#: The library's own words for "nobody knows".
_LOST = frozenset({types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT})


def _needs_task(tool: types.Tool) -> bool:
    return tool.execution is not None and tool.execution.task_support == "required"


def _offer(tool: types.Tool) -> Offer:
    annotations = tool.annotations
    return Offer(
        name=tool.name,
        title=tool.title or "",
        description=tool.description or "",
        input_schema=_bounded(tool.input_schema),
        output_schema=_bounded(tool.output_schema or {}),
        annotations=_bounded(
            annotations.model_dump(mode="json", by_alias=True, exclude_none=True)
            if annotations
            else {}
        ),
    )


def _bounded(said: Json) -> Json:
    """Put in the place of what nobody walks to its bottom what no review accepts."""
    return said if canonical.depth_of(said) <= canonical.MOST_LEVELS else TOO_DEEP


def _output(target: Target, answer: types.CallToolResult) -> Any:
    """Shape: what the tool's own schema promises, or {"content": [blocks]}."""
    content = [
        block.model_dump(mode="json", by_alias=True, exclude_none=True)
        for block in answer.content
    ]
    if answer.is_error:
        said = " ".join(str(block.get("text", "")) for block in content).strip()
        raise ToolTransientError(
            f"{target.capability} says that it failed: {said[:2000]}",
            permanent=True,
            reason_code="tool_error",
        )
    if answer.structured_content is not None:
        return answer.structured_content
    return {"content": content}
