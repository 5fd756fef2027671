"""The sockets between Polar and model vendors, in Polar's own words.

Hides: how a vendor names things. Messages, tools, usage and answers are neutral
and go through JSON unchanged; `native` and `parts` carry a vendor's own blocks
(thinking, signatures) and are only ever replayed, never read.
Invariant: an adapter sends nothing before it has spent its permit.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.utils.module_loading import import_string

from apps.common import canonical
from apps.common.errors import Invalid
from apps.common.redaction import SecretStr

Json = Any

#: How an answer ended that Polar cut, because the server did not keep its cap.
CUT = "cut"
#: Endings of an answer of which the rest is missing.
CUT_SHORT = frozenset({"length", CUT})


class Spendable(Protocol):
    """The part of a gateway permit that an adapter uses."""

    def spend(self, arguments: dict[str, Json], *, waits: bool = True) -> None: ...


#: The only member of a tool call's arguments that were no JSON object.
NOT_JSON = "INVALID_JSON"


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: dict[str, Json]

    def as_json(self) -> dict[str, Json]:
        return {"id": self.id, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class Message:
    """One message. A `tool` message answers the call `tool_call_id`."""

    role: str
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    native: Json = None

    def as_json(self) -> dict[str, Json]:
        body: dict[str, Json] = {"role": self.role, "text": self.text}
        if self.tool_calls:
            body["tool_calls"] = [call.as_json() for call in self.tool_calls]
        if self.tool_call_id:
            body["tool_call_id"] = self.tool_call_id
        if self.native is not None:
            body["native"] = self.native
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> "Message":
        return cls(
            role=str(body["role"]),
            text=str(body.get("text", "")),
            tool_calls=tuple(ToolCall(**call) for call in body.get("tool_calls", ())),
            tool_call_id=str(body.get("tool_call_id", "")),
            native=body.get("native"),
        )


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as a model sees it."""

    name: str
    description: str = ""
    schema: Mapping[str, Json] = field(default_factory=dict)

    def as_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "description": self.description,
            "schema": dict(self.schema),
        }


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Units: tokens. `tokens_in` includes the cached ones."""

    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    counted: bool = False  # True when the vendor said nothing and we counted


@dataclass(frozen=True, slots=True)
class Tariff:
    """What tokens cost. Units: micro-USD per million tokens."""

    input_micros: int
    output_micros: int
    cached_micros: int

    def price(self, usage: TokenUsage) -> int:
        """Price one call, rounded up. Units: micro-USD."""
        fresh = max(usage.tokens_in - usage.cached, 0)
        total = (
            fresh * self.input_micros
            + usage.cached * self.cached_micros
            + usage.tokens_out * self.output_micros
        )
        return -(-total // 1_000_000)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: TokenUsage = TokenUsage()
    finish: str = "stop"
    parts: Json = None
    ttft_ms: int = 0

    def as_json(self) -> dict[str, Json]:
        use = self.usage
        return {
            "text": self.text,
            "tool_calls": [call.as_json() for call in self.tool_calls],
            "usage": [use.tokens_in, use.tokens_out, use.cached, use.counted],
            "finish": self.finish,
            "parts": self.parts,
            "ttft_ms": self.ttft_ms,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> "Answer":
        return cls(
            text=body["text"],
            tool_calls=tuple(ToolCall(**call) for call in body["tool_calls"]),
            usage=TokenUsage(*body["usage"]),
            finish=body["finish"],
            parts=body["parts"],
            ttft_ms=body["ttft_ms"],
        )


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long each stage of a call may take. Units: seconds; bytes."""

    connect: float = 5.0
    first_byte: float = 30.0
    idle: float = 20.0
    wall: float = 180.0
    max_bytes: int = 4_000_000
    #: Fewer bytes than this in any ten seconds after the first is a drip.
    min_bytes_per_10s: int = 100


@dataclass(frozen=True, slots=True)
class Target:
    """The server that a call goes to. `base_url` empty: the vendor's own."""

    provider_id: str
    slug: str
    kind: str
    base_url: str = ""
    revision: int = 1
    settings: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request to one model, with what the adapter needs to watch over it."""

    target: Target
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    max_output_tokens: int = 4096
    deadlines: Deadlines = Deadlines()
    on_delta: Callable[[str], None] | None = None
    stopping: Callable[[], bool] | None = None


class ModelAdapter(Protocol):
    """Speaks to one kind of server.

    Raises: ModelCallFailed, with the class of the failure and redacted text.
    """

    def generate(
        self, permit: Spendable, call: ModelCall, key: SecretStr | None
    ) -> Answer: ...


class Catalog(Protocol):
    """Asks a server the small questions, without loading a vendor's SDK.

    Raises: ModelCallFailed, as the adapter does.
    """

    def list_models(
        self, permit: Spendable, target: Target, key: SecretStr | None
    ) -> list[str]: ...

    def embed(
        self, permit: Spendable, call: "EmbedCall", key: SecretStr | None
    ) -> tuple[list[list[float]], TokenUsage]: ...

    def probe(self, permit: Spendable, target: Target) -> list[str] | None: ...


@dataclass(frozen=True, slots=True)
class EmbedCall:
    target: Target
    model: str
    texts: tuple[str, ...]


def arguments_of(call: ModelCall) -> dict[str, Json]:
    """Say what a call sends, exactly and briefly: the permit is bound to this."""
    messages = canonical.arguments([each.as_json() for each in call.messages])
    tools = canonical.arguments([tool.as_json() for tool in call.tools])
    return {
        "provider": call.target.slug,
        "model": call.model,
        "max_output_tokens": call.max_output_tokens,
        "messages": len(call.messages),
        "messages_digest": canonical.digest(messages),
        "tools": [tool.name for tool in call.tools],
        "tools_digest": canonical.digest(tools),
        "bytes": len(messages.encode()) + len(tools.encode()),
    }


def list_arguments(target: Target) -> dict[str, Json]:
    """Say what `list_models` asks for."""
    return {"provider": target.slug, "operation": "listModels"}


def embed_arguments(call: EmbedCall) -> dict[str, Json]:
    """Say what `embed` sends."""
    return {
        "provider": call.target.slug,
        "model": call.model,
        "operation": "embedText",
        "texts": len(call.texts),
        "texts_digest": canonical.digest(canonical.arguments(list(call.texts))),
        "bytes": sum(len(text.encode()) for text in call.texts),
    }


# --- The registry of vendor kinds ---------------------------------------------

_plugs: dict[str, tuple[str, str]] = {}
_adapters: dict[str, Any] = {}
_lock = threading.Lock()


def register(kind: str, *, adapter: str, catalog: str) -> None:
    """Plug in a kind of provider by dotted paths, imported when first used.

    Vendor SDKs take most of a second to import, and pages never need them.
    """
    _plugs[kind] = (adapter, catalog)


def kinds() -> tuple[str, ...]:
    """Name the kinds of provider that this install can speak to."""
    return tuple(_plugs)


def adapter_for(kind: str) -> ModelAdapter:
    """Return the adapter of a kind, one per process.

    Raises: Invalid for a kind that nothing is plugged in for.
    """
    adapter: ModelAdapter = _made(_plug(kind)[0])
    return adapter


def catalog_for(kind: str) -> Catalog:
    """Return the catalog of a kind.   Raises: Invalid, as `adapter_for` does."""
    catalog: Catalog = _made(_plug(kind)[1])
    return catalog


def _plug(kind: str) -> tuple[str, str]:
    if kind not in _plugs:
        raise Invalid(f"No adapter speaks to providers of kind {kind!r}.")
    return _plugs[kind]


def _made(dotted_path: str) -> Any:
    """Import and build once: two adapters would mean two event loops."""
    with _lock:
        if dotted_path not in _adapters:
            _adapters[dotted_path] = import_string(dotted_path)()
        return _adapters[dotted_path]
