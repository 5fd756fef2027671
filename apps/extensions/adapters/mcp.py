"""Runs the tools of MCP servers, by the official SDK.

Hides: which sessions are open. One session per part and form of an extension;
what is served is asked before every call and compared with what was reviewed, so
a changed word stops the call that would have used it. A server that keeps dying
is left alone for longer each time.
"""

import asyncio
import os
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from uuid import UUID

from apps.common import canonical, clock, failpoints
from apps.common.errors import PolarError
from apps.extensions.adapters import leasing, narrowing, processes
from apps.extensions.adapters.mcp_sessions import Session
from apps.extensions.adapters.portal import portal
from apps.extensions.errors import (
    AuthorizationWanted,
    DefinitionChanged,
    ToolMisconfigured,
    ToolTransientError,
    ToolUnavailable,
)
from apps.extensions.ports import (
    Definition,
    Source,
    Target,
    Termination,
    ToolContext,
    Transport,
)
from apps.gateway.errors import PermitRefused
from apps.gateway.ports import Json, Permit, Result

#: A server that died this often within the window is not started again in it.
MOST_DEATHS = 5
DEATH_WINDOW_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 60.0

Key = tuple[UUID, str, str]


@dataclass(frozen=True, slots=True)
class Met:
    """An open session, what it serves now, and the headers of this call."""

    headers: dict[str, str] = field(repr=False)
    session: Session
    served: Definition


class McpRuntime:
    """The runtime of MCP servers, over pipes and over HTTP."""

    def __init__(self) -> None:
        # Touched on the portal's loop only.
        self._sessions: dict[Key, Session] = {}
        self._opening: dict[Key, asyncio.Lock] = {}
        self._deaths: dict[tuple[UUID, str], deque[float]] = {}
        self._pid = os.getpid()

    def describe(self, source: Source) -> Definition:
        """Say what a server serves now. The wall stands; grants are not asked,
        since an operator who installs has not granted anything yet."""
        with ExitStack() as leased:
            return self._greet(source, "describe", None, leased).served

    def execute(
        self, target: Target, arguments: Json, permit: Permit, context: ToolContext
    ) -> Result:
        """Ask one tool once. Raises: see `ports.Runtime`."""
        if not isinstance(permit, Permit):
            raise PermitRefused("A tool runs only with a permit.")
        source = narrowing.narrowed(target)
        if source.transport == Transport.HTTP:
            narrowing.check_host(source)
        limits = source.limits
        ids = (permit.call_id, context.turn_id)
        with ExitStack() as leased:
            met = self._greet(source, target.capability, context, leased)
            session = met.session
            _check_pinned(target, met.served)
            try:
                permit.spend(arguments)
            finally:
                # A stop that came before the spend must not leave a server behind.
                if not permit.is_spent:
                    portal.run(session.close(), seconds=processes.END_SECONDS)
            failpoints.reach("tool.in_flight")
            try:
                output = portal.run(
                    session.call(target, arguments, met.headers, ids),
                    seconds=limits.call_seconds + 2 * processes.END_SECONDS,
                )
            except AuthorizationWanted as wanted:
                raise _renewed(source, wanted) from wanted
        failpoints.reach("tool.answered")
        return Result(output)

    def stop(self, extension_id: UUID) -> list[Termination]:
        """Kill its processes on this host, and drop this process's sessions."""
        mine = [s for key, s in self._mine().items() if key[0] == extension_id]
        for session in mine:
            session.is_stopped = True
        calls = [(s, dict(s.in_flight)) for s in mine]
        ended = processes.end_extension(extension_id)
        is_gone = all(each.is_confirmed for each in ended)
        for session in mine:
            portal.run(session.close(), seconds=processes.END_SECONDS)
        return ended + [
            _stopped(session, call_id, turn_id, is_gone)
            for session, in_flight in calls
            for call_id, turn_id in in_flight.items()
        ]

    # --- sessions

    def _mine(self) -> dict[Key, Session]:
        """The sessions of this process; a fork inherits none."""
        if self._pid != os.getpid():
            self._sessions, self._opening, self._pid = {}, {}, os.getpid()
        return dict(self._sessions)

    def _greet(
        self,
        source: Source,
        purpose: str,
        context: ToolContext | None,
        leased: ExitStack,
    ) -> "Met":
        """Connect and ask what is served. A token that is refused is renewed once;
        nothing was done yet, so asking again is harmless."""
        try:
            return self._ask(source, purpose, context, leased)
        except AuthorizationWanted as wanted:
            if source.bearer is None or _lacks_scope(wanted):
                raise
            source.bearer.refused()
        return self._ask(source, purpose, context, leased)

    def _ask(
        self,
        source: Source,
        purpose: str,
        context: ToolContext | None,
        leased: ExitStack,
    ) -> "Met":
        headers, session = self._connect(source, purpose, context, leased)
        served = portal.run(
            session.describe(headers), seconds=source.limits.connect_seconds
        )
        return Met(headers, session, served)

    def _connect(
        self,
        source: Source,
        purpose: str,
        context: ToolContext | None,
        leased: ExitStack,
    ) -> tuple[dict[str, str], Session]:
        """Return the headers of this call and an open session.

        Over HTTP secrets are leased for the call and stand in its headers; a
        process gets its own once, and they stay leased as long as it lives.
        """
        self._mine()
        is_http = source.transport == Transport.HTTP
        held = ExitStack()
        wanted = leased if is_http else held
        with held:
            secrets = leasing.open_all(wanted, source, purpose, context)
            headers, env = (secrets, {}) if is_http else ({}, secrets)
            session = portal.run(
                self._session(source, env, headers, held),
                seconds=source.limits.connect_seconds + processes.END_SECONDS,
            )
        return headers, session

    async def _session(
        self,
        source: Source,
        env: dict[str, str],
        headers: dict[str, str],
        held: ExitStack,
    ) -> Session:
        """Find the open session of this form of a part, or open it."""
        key = (source.extension_id, source.part, _form(source))
        async with self._opening.setdefault(key, asyncio.Lock()):
            found = self._sessions.get(key)
            if found is not None and found.is_open and not found.is_stopped:
                return found
            if found is not None:
                self._sessions.pop(key, None)
                if found.has_died and not found.is_stopped:
                    self._note_death(key)
            self._check_may_start(source)
            session = Session(source, env, held.pop_all())
            session.wire.begin(headers)
            self._sessions[key] = session
            try:
                await session.open()
            except PolarError as error:
                self._sessions.pop(key, None)
                if isinstance(error, ToolTransientError):
                    self._note_death(key)
                raise
            return session

    def _note_death(self, key: Key) -> None:
        deaths = self._deaths.setdefault(key[:2], deque(maxlen=MOST_DEATHS))
        deaths.append(clock.monotonic())

    def _check_may_start(self, source: Source) -> None:
        """Raises: ToolTransientError within the pause after a death;
        ToolMisconfigured after too many."""
        deaths = self._deaths.get((source.extension_id, source.part), deque())
        now = clock.monotonic()
        recent = [each for each in deaths if now - each < DEATH_WINDOW_SECONDS]
        if not recent:
            return
        if len(recent) >= MOST_DEATHS:
            raise ToolMisconfigured(
                f"{source.ext_id} died {len(recent)} times within five minutes; it is "
                "not started again for now."
            )
        pause = min(2.0 ** (len(recent) - 1), LONGEST_PAUSE_SECONDS)
        left = recent[-1] + pause - now
        if left > 0:
            raise ToolTransientError(
                f"{source.ext_id} died and is started again in {left:.1f} s.",
                retry_after=left,
            )


def _lacks_scope(wanted: AuthorizationWanted) -> bool:
    """No renewed token would hold more than a person allowed."""
    return wanted.facts.get("status") == 403


def _renewed(source: Source, wanted: AuthorizationWanted) -> PolarError:
    """What a call that was refused at the door ends with: it was not carried out."""
    if source.bearer is None or _lacks_scope(wanted):
        return wanted
    source.bearer.refused()
    return ToolTransientError(
        f"{source.ext_id} refused its token at the call. It was renewed; try again."
    )


def _form(source: Source) -> str:
    """What makes two sessions of one part different."""
    plain = replace(source, grants=replace(source.grants, secrets={}))
    secrets = sorted(f"{k}={v}" for k, v in source.grants.secrets.items())
    return canonical.digest(f"{plain!r} {secrets}")


def _check_pinned(target: Target, served: Definition) -> None:
    name = target.capability
    if served.digest != target.pinned:
        raise DefinitionChanged(
            f"What {target.source.ext_id} serves is not what was reviewed.",
            served=served,
        )
    if target.name not in {offer.name for offer in served.offers}:
        raise ToolUnavailable(f"{name} is not served.")


def _stopped(
    session: Session, call_id: UUID, turn_id: UUID | None, is_gone: bool
) -> Termination:
    """A process that is gone does nothing more; a server elsewhere may go on."""
    is_http = session.source.transport == Transport.HTTP
    return Termination(
        what=f"call {call_id}",
        is_confirmed=is_gone and not is_http,
        detail="sent to a server elsewhere" if is_http else "its process is gone",
        call_id=call_id,
        turn_id=turn_id,
    )
