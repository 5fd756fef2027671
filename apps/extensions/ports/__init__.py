"""Where native tools and the runtimes of extensions plug in at start-up.

A native tool is code of this house that a model may call: its schemas and risk
stand beside it. A runtime starts, asks and stops code that is not ours; one is
plugged in for each transport, and it is handed everything it may use.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from uuid import UUID

from apps.common import canonical
from apps.gateway.ports import (
    READ,
    EffectClass,
    Json,
    Lineage,
    Permit,
    Result,
    Risk,
    Socket,
)

from .authorizing import (
    Authority,
    Authorizer,
    Peer,
    Registration,
    Tokens,
    authorizers,
)

__all__ = ["Authority", "Authorizer", "Peer", "Registration", "Tokens", "authorizers"]

if TYPE_CHECKING:
    # Plugged in at start-up, before any model may be loaded.
    from apps.access.models import Principal

#: The plugin that ships with Polar and whose tools the apps register.
SHIPPED = "polar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Who calls a tool, from where in the tree of work, and how far it may reach."""

    principal: "Principal"
    workspace_id: UUID
    lineage: Lineage
    scope: Json
    #: The same for every attempt of one effect: what a keyed tool sends along.
    idempotency_key: str = ""

    @property
    def conversation_id(self) -> str:
        return self.lineage.session_id

    @property
    def turn_id(self) -> UUID | None:
        return self.lineage.turn_id

    @property
    def run_id(self) -> UUID | None:
        return self.lineage.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeTool:
    """A capability in code: what it takes, gives and risks."""

    capability_id: str
    title: str
    description: str
    input_schema: Json
    fn: Callable[[Json, ToolContext], Any]
    output_schema: Json = field(default_factory=dict)
    risk: Risk = READ
    effect_class: EffectClass = EffectClass.PURE
    extension_id: str = SHIPPED
    #: What its results carry: they quote people, or hold what is nobody else's.
    labels: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.extension_id}/{self.capability_id}"


class NativeTools:
    """Every native tool of this process, by "extensionId/capabilityId"."""

    def __init__(self) -> None:
        self._tools: dict[str, NativeTool] = {}
        #: Grows with each change, so that what is derived can be kept.
        self.generation = 0

    def register(self, tool: NativeTool) -> None:
        """Make a tool known. Again: the same name is replaced."""
        self._tools[tool.name] = tool
        self.generation += 1

    def forget(self, name: str) -> None:
        self._tools.pop(name, None)
        self.generation += 1

    def find(self, name: str) -> NativeTool | None:
        return self._tools.get(name)

    def of(self, extension_id: str) -> list[NativeTool]:
        """Return one extension's tools in a fixed order."""
        mine = [t for t in self._tools.values() if t.extension_id == extension_id]
        return sorted(mine, key=lambda tool: tool.capability_id)


native_tools = NativeTools()


class Transport(StrEnum):
    """How a part of an extension is reached; one runtime is plugged in for each."""

    NATIVE = "native"  # code of this house
    TEXT = "text"  # files of a package, read and never run
    SCRIPT = "script"  # a script of a package, run in the sandbox
    STDIO = "stdio"  # an MCP server as a child process in the sandbox
    HTTP = "http"  # an MCP server behind a streamable HTTP URL


#: Transports of servers, which are asked what they offer.
SERVED = frozenset({Transport.STDIO, Transport.HTTP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What a part may reach, already narrowed by trust: a `sandboxed` extension's
    grants hold no domain and no secret, a `reviewed` one's no secret."""

    domains: tuple[str, ...] = ()
    #: Absolute folders that may be read; everything else is not there.
    read_paths: tuple[str, ...] = ()
    #: Absolute folders that may be written.
    write_paths: tuple[str, ...] = ()
    #: Environment variable or HTTP header → id of a vault secret.
    secrets: Mapping[str, UUID] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a part is cut off. Units: seconds, bytes."""

    connect_seconds: float = 10.0
    call_seconds: float = 60.0
    idle_seconds: float = 300.0
    output_bytes: int = 1_048_576
    memory_bytes: int = 536_870_912
    processes: int = 64


class Bearer(Protocol):
    """The token of one connection, for one call: leased, renewed, never shown."""

    def lease(self, held: ExitStack, purpose: str, context: ToolContext | None) -> str:
        """Give a token that is good now, leased until `held` closes.

        Raises: AuthorizationWanted when an administrator has to connect it again;
        ToolTransientError when it could not be renewed this time.
        """

    def refused(self) -> None:
        """Renew it, since its server refused what `lease` gave. Raises: as `lease`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One part of an extension: all that a runtime needs to start it.

    `command` is an argument vector, never a shell line. `folder` is the unpacked
    package in the content store: read-only, and checked against its SHA-256 before
    it is handed out. `local` holds the exact host:port pairs on private addresses
    that an operator wrote down for this part.
    """

    extension_id: UUID
    ext_id: str
    transport: Transport
    part: str = ""
    trust: str = "sandboxed"
    command: tuple[str, ...] = ()
    url: str = ""
    folder: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    local: frozenset[str] = frozenset()
    grants: Grants = field(default_factory=Grants)
    limits: Limits = field(default_factory=Limits)
    #: An operator wrote that this may run where isolation is not available.
    accepts_degraded: bool = False
    #: Who is asked for the token of a server that was connected.
    bearer: Bearer | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One tool as its server describes it now. Every byte of it is reviewed."""

    name: str
    title: str = ""
    description: str = ""
    input_schema: Json = field(default_factory=dict)
    output_schema: Json = field(default_factory=dict)
    annotations: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a part serves now. `server` holds its name, version, instructions and
    protocol; nothing in it that changes from one start to the next."""

    offers: tuple[Offer, ...] = ()
    server: Json = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return canonical.digest(self.as_json())

    def as_json(self) -> Json:
        """Shape: {"server", "offers": [in the order of their names]}."""
        return {
            "server": self.server,
            "offers": [
                {
                    "name": offer.name,
                    "title": offer.title,
                    "description": offer.description,
                    "inputSchema": offer.input_schema,
                    "outputSchema": offer.output_schema,
                    "annotations": offer.annotations,
                }
                for offer in sorted(self.offers, key=lambda offer: offer.name)
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One capability of one part, and what binds this call of it."""

    source: Source
    #: The name under which the source itself knows it: a tool, a script's path.
    name: str
    capability: str
    #: Digest of the part's reviewed `Definition`; "" where nothing is served.
    pinned: str = ""
    #: What nobody may repeat unseen is in doubt when its answer is lost.
    effect_class: EffectClass = EffectClass.NON_REPEATABLE
    #: Effective constraints: domainsAllowlist, pathsAllowlist, maxTargets, …
    constraints: Json = field(default_factory=dict)

    @property
    def is_careful(self) -> bool:
        """Whether a lost answer leaves it in doubt, never to be repeated unseen."""
        return self.effect_class in (
            EffectClass.NON_REPEATABLE,
            EffectClass.RECONCILABLE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """How stopping one process or session went, for the certificate.

    `is_confirmed` only when it was seen to be gone; a request that was sent and
    not answered is not confirmed.
    """

    what: str
    is_confirmed: bool
    detail: str = ""
    call_id: UUID | None = None
    turn_id: UUID | None = None
    seconds: float = 0.0


class Runtime(Protocol):
    """Starts, asks and stops the code of one transport."""

    def describe(self, source: Source) -> Definition:
        """Say what a part serves now. Starts it where it does not run.

        Raises: ToolMisconfigured, ToolTransientError. Called outside a transaction,
        with the permit of a lifecycle call spent.
        """

    def execute(
        self, target: Target, arguments: Json, permit: Permit, context: ToolContext
    ) -> Result:
        """Do it once.

        1. Make ready and ask what is served; where its digest is not
           `target.pinned`, raise DefinitionChanged with what is served instead.
        2. Spend the permit, as the last thing before sending.
        3. Send, wait within the limits, bring back the output.

        Raises: DefinitionChanged, ToolTransientError, ToolMisconfigured, and
        OutcomeUnknown when it was sent and nobody knows.
        """

    def stop(self, extension_id: UUID) -> list[Termination]:
        """End everything of this extension on this host, whichever process of ours
        started it. Again: an empty list when nothing runs."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """Whether this host can keep a process apart, and how or why not."""

    is_available: bool
    detail: str = ""


#: Says, by having tried it once, whether this host can isolate.
isolations: Socket[Callable[[], Isolation]] = Socket("isolation")


def isolation() -> Isolation:
    """Ask the sandbox that is plugged in."""
    for ask in isolations.all():
        return ask()
    return Isolation(is_available=False, detail="no sandbox is plugged in")


_runtimes: dict[Transport, Runtime] = {}


def plug_runtime(transport: Transport, runtime: Runtime) -> None:
    """Reach parts by this transport here. Again: replaces the earlier one."""
    _runtimes[transport] = runtime


def find_runtime(transport: str) -> Runtime | None:
    return _runtimes.get(Transport(transport))


@runtime_checkable
class Rehearsing(Protocol):
    """A runtime that tries a call out, with nothing in reach that could do it."""

    def rehearse(self, target: Target, arguments: Json) -> Any: ...


def runtimes() -> list[Runtime]:
    """Return every runtime once."""
    return list({id(each): each for each in _runtimes.values()}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation as a higher floor knows it."""

    session_id: str
    workspace_id: UUID
    #: The principal whose session it is.
    principal_id: UUID
    #: The capability scope of the profile that serves it; None narrows nothing.
    scope: Json | None = None
    #: What its conversation has taken in; every call of the session carries it.
    labels: frozenset[str] = frozenset()


#: Finds a session by its id; None when there is no such session.
sessions: Socket[Callable[[str], Session | None]] = Socket("sessions")

#: Finds a principal's newest session, for an example that works.
own_sessions: Socket[Callable[[UUID], Session | None]] = Socket("own_sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """Something that loses an extension when it stops."""

    kind: str  # profile | schedule | run
    name: str
    detail: str = ""
    url: str = ""


#: Says who depends on an extension, by its ext_id, for the kill switch's preview.
dependents: Socket[Callable[[str], list[Dependent]]] = Socket("dependents")
