"""The words of a call, and the sockets that higher floors plug into.

A caller describes an effect as a `CallRequest` whose `perform` is handed a
`Permit`. The adapter spends it immediately before it sends; that is the moment
an effect starts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from django.db import connection, models

from apps.common import canonical

from .errors import PermitRefused

if TYPE_CHECKING:
    # Plugged in at start-up, before any model may be loaded.
    from apps.access.models import Principal

Json = dict[str, Any]
#: The lane below which there is none.
LOWEST_LANE = "local"


class CallKind(models.TextChoices):
    MODEL = "model"
    TOOL = "tool"
    HANDOFF = "handoff"
    MESSAGE = "message"
    RECEIVE = "receive"
    AUTOMATION = "automation"
    LIFECYCLE = "lifecycle"


class EffectClass(models.TextChoices):
    """What may be done when nobody knows whether it happened."""

    PURE = "pure"
    INTERNAL = "internal"
    KEYED = "keyed"
    RECONCILABLE = "reconcilable"
    NON_REPEATABLE = "non_repeatable"


@dataclass(frozen=True, slots=True)
class Risk:
    """What a capability can do to the world. Unknown risk cannot run."""

    level: str = "unknown"  # read | write | destructive | unknown
    side_effects: str = "none"  # none | internal | external
    data_egress: str = "none"  # none | network

    def as_dict(self) -> Json:
        return {
            "riskLevel": self.level,
            "sideEffects": self.side_effects,
            "dataEgress": self.data_egress,
        }


READ = Risk("read")


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """The stored trust and state of the extension that would run."""

    extension_id: str
    extension_type: str
    trust: str  # trusted | reviewed | sandboxed | blocked
    lifecycle: str  # enabled | disabled | …
    reason: str = ""
    is_pinned: bool = True
    #: False where its code runs here unconfined, because an operator accepted it.
    is_isolated: bool = True


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where in the tree of work a call stands, derived on the server."""

    run_id: UUID | None = None
    turn_id: UUID | None = None
    step_id: UUID | None = None
    root_id: UUID | None = None
    parent_call_id: UUID | None = None
    depth: int = 0
    agent: str = ""
    session_id: str = ""
    fence: int = 0
    seq: str = ""
    trace_id: str = ""
    #: What is left of the share that a handoff gave; None is no share.
    allowance_micros: int | None = None
    #: The agents that handed this work down.
    ancestors: tuple[str, ...] = ()
    #: Whoever asked has gone on: the answer is brought to them.
    answers_later: bool = False
    #: An agent here or above asks before every change, whatever was granted.
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """The worst case that a budget sets aside. Units: micro-USD, tokens."""

    micros: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call really took. Units: micro-USD, tokens."""

    micros: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What an adapter brings back: JSON and what it took."""

    output: Any
    usage: Usage = field(default_factory=Usage)


#: What a value carries: an outsider wrote it; it is nobody else's to see.
UNTRUSTED, PRIVATE, SECRET = "untrusted", "private", "secret"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended well. `replayed` means that nothing was done again."""

    call_id: UUID
    state: str
    output: Any
    usage: Usage
    replayed: bool = False
    #: What was done ran without isolation.
    is_degraded: bool = False
    #: What the output carries to whoever reads it: untrusted, private, secret.
    labels: frozenset[str] = frozenset()


class Permit:
    """The right to one effect, once, with exactly these arguments."""

    def __init__(
        self,
        *,
        call_id: UUID,
        args_digest: str,
        idempotency_key: str,
        start: Callable[[], None],
        is_inside: bool = False,
    ) -> None:
        self.call_id = call_id
        self.idempotency_key = idempotency_key
        self.is_spent = False
        self._is_inside = is_inside
        self._args_digest = args_digest
        self._start = start

    def spend(self, arguments: Json, *, waits: bool = True) -> None:
        """Start the effect: the last thing an adapter does before it sends.

        Writes: Call AUTHORIZED → EXECUTING, halts read in that transaction.
        Raises: PermitRefused when spent, for other arguments, or when the Call
        moved on; Halted. With `waits` the thread's connection is given back.
        """
        if self.is_spent:
            raise PermitRefused("This permit is spent.")
        if canonical.digest(canonical.arguments(arguments)) != self._args_digest:
            raise PermitRefused("This permit was given for other arguments.")
        if waits or not self._is_inside:
            check_outside_transaction()
        self._start()
        self.is_spent = True
        if waits:
            release_connection()


def check_outside_transaction() -> None:
    """Refuse to send while a transaction is open (rule R9)."""
    open_blocks = [
        block
        for block in connection.atomic_blocks
        if not getattr(block, "_from_testcase", False)
    ]
    if open_blocks:
        raise RuntimeError("nothing is sent from inside a transaction")


def release_connection() -> None:
    """Give the thread's connection back before waiting for somebody else."""
    if not connection.atomic_blocks:
        connection.close()


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One exact call of a plan: what would be called, with what, at which risk."""

    capability: str
    arguments: Json
    risk: Risk

    @property
    def args_digest(self) -> str:
        return canonical.digest(canonical.arguments(self.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """One effect that somebody wants to have."""

    kind: CallKind
    capability: str
    principal: "Principal"
    workspace_id: UUID
    arguments: Json
    perform: Callable[[Permit], Result]
    #: Writes what else follows from a success, in the transaction that settles it.
    settled: Callable[[Outcome], None] | None = None
    effect_class: EffectClass = EffectClass.PURE
    #: What it does is rows of this store, written by `perform`: it happens in the
    #: transaction that decides, exactly once or not at all.
    is_inside: bool = False
    risk: Risk = field(default_factory=Risk)
    lineage: Lineage = field(default_factory=Lineage)
    scope: Json | None = None
    labels: frozenset[str] = frozenset()
    estimate: Estimate = field(default_factory=Estimate)
    lane: str = ""
    provider: str = ""
    idempotency_key: str = ""
    input_schema: Json | None = None
    output_schema: Json | None = None
    extension: TrustFacts | None = None
    #: Reads the extension's trust again, in the transaction that starts the effect.
    standing: Callable[[], TrustFacts] | None = None
    needs_secret: bool = False
    max_output_bytes: int = 1_048_576
    #: Whom or what it reaches; empty: read from the arguments.
    targets: tuple[str, ...] = ()
    #: From this many targets on a person is asked first.
    bulk_threshold: int = 50
    #: Says what would happen and does nothing; shown to who decides.
    preview: Callable[[], Json] | None = None
    #: The steps that one approval of this call would cover.
    plan: tuple[PlannedStep, ...] = ()
    #: An automation that starts by itself unless somebody rejects it until then.
    reject_window: timedelta | None = None


Plugged = TypeVar("Plugged", bound=Callable[..., Any])


class Socket(Generic[Plugged]):
    """A place where higher floors plug in at start-up, by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._plugged: dict[str, Plugged] = {}

    def plug(self, name: str, function: Plugged) -> None:
        """Plug in. Again: the same name is replaced."""
        self._plugged[name] = function

    def all(self) -> list[Plugged]:
        return list(self._plugged.values())


#: Called in the transaction that decides, with the run that waited for it.
decided: Socket[Callable[[UUID], None]] = Socket("decided")


def wake(run_id: UUID | None) -> None:
    """Tell whoever is plugged in that a run may go on, in this transaction."""
    if run_id is not None:
        for tell in decided.all():
            tell(run_id)


#: Of these runs, which does somebody still carry? Asked before what a call has
#: set aside is taken back.
carried: Socket[Callable[[set[UUID]], set[UUID]]] = Socket("carried")


class Contracts:
    """The registered contracts: one JSON schema per kind of action."""

    def __init__(self) -> None:
        self._schemas: dict[str, Json] = {}

    def register(self, name: str, schema: Json) -> None:
        self._schemas[name] = schema

    def find(self, name: str) -> Json | None:
        return self._schemas.get(name)


contracts = Contracts()
for _kind in CallKind.values:
    contracts.register(_kind, {"type": "object"})
